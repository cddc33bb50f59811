"""Texts of the participants' pages, apart from title, questions and prompts: a JSON file that can be replaced."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from fairhuman.errors import DataError
from fairhuman.utils.parse import parse_json

DEFAULT = Path(__file__).with_name("texts.json")
ABOUT_RANKS = ("how_to_rank", "rank", "next", "unranked")
_PLACE = re.compile(r"\{\w+\}")


def load_texts(path: Path | None = None, ranked: bool = False) -> Mapping[str, str]:
    """Read texts by name. `DEFAULT`, read for None, defines the required names and the {placeholders} of each text.

    Texts about ranks may be missing where nothing is `ranked`, as in files that are older than ranks.

    Raises:
        DataError: the file can't be read; a text is missing, unknown, empty or not a string; a {placeholder} is
            unknown.
    """
    path = path or DEFAULT
    texts = _read(path)
    known = _read(DEFAULT)
    if not ranked:
        texts = {name: known[name] for name in ABOUT_RANKS} | texts
    problems = [f"{name!r} is missing" for name in known if name not in texts]
    for name, text in texts.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            problems.append(f"{name!r} is unknown" + (f", did you mean {near[0]!r}?" if near else ""))
        elif not isinstance(text, str) or not text.strip():
            problems.append(f"{name!r} must be a text, found {text!r}")
        else:
            places = set(_PLACE.findall(text)) - set(_PLACE.findall(known[name]))
            problems += [f"{name!r} must not contain {place}" for place in sorted(places)]
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}. All English texts are in {DEFAULT}")
    return texts


def _read(path: Path) -> dict[str, str]:
    try:
        texts = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a UTF-8 JSON file of texts; {error}") from error
    if not isinstance(texts, dict):
        raise DataError(f"{path}: expected an object of texts by name, found {type(texts).__name__}")
    return texts
