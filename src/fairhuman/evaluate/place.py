"""The folder of an evaluation: one that holds another evaluation is never written over."""

from pathlib import Path
from typing import Any

from fairhuman.errors import DataError
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.utils.files import free_name
from fairhuman.utils.parse import parse_json

NUMBERS = "metrics.json"


def default_folder(wanted: Path, identity: dict[str, Any]) -> Path:
    """`wanted`, or `wanted-2`, `wanted-3` ... if there is another evaluation in it."""
    return wanted.with_name(
        free_name(wanted.name, lambda name: bool(other_evaluation(wanted.with_name(name), identity)))
    )


def check_folder(out: Path, identity: dict[str, Any]) -> None:
    """Check that a folder chosen by the user is free or has the same evaluation.

    Raises:
        DataError: it has another one; names what differs.
    """
    differing = other_evaluation(out, identity)
    if differing:
        raise DataError(
            f"{out}: holds another evaluation ({'; '.join(differing)}); give another --out, or remove that folder"
        )


def other_evaluation(folder: Path, identity: dict[str, Any]) -> list[str]:
    """How the evaluation in a folder differs from one of this identity, as `name old, not new`; empty if it doesn't."""
    file = folder / NUMBERS
    if not file.is_file():
        return ["a report.html without numbers of one"] if (folder / "report.html").exists() else []
    try:
        document = parse_json(file.read_text(encoding="utf-8"))
        earlier = {name: document[name] for name in identity if name in document}
    except (OSError, ValueError, TypeError):
        return [f"{NUMBERS} can't be read"]
    differing = []
    for name, value in earlier.items():
        if name == "settings":  # a setting that only one of two versions has is no difference
            shared = [key for key in value if key in identity[name] and key not in EvaluateSettings.EXECUTION]
            differing += [
                f"{key} {value[key]!r}, not {identity[name][key]!r}"
                for key in shared
                if value[key] != identity[name][key]
            ]
        elif value != identity[name]:
            differing.append(f"{name} {value!r}, not {identity[name]!r}")
    return differing
