"""Readers of a training run's files. A missing file counts as empty, not as an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.stats.bootstrap import Array
from fairhuman.utils.journal import read_rows
from fairhuman.utils.parse import parse_json

OBJECTIVES_FIRST = ("global", "face", "hand")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Columns of `metrics.jsonl` by step; NaN where a step has no value (no region in the batch)."""

    steps_n: Array
    columns: Mapping[str, Array]

    def group(self, prefix: str) -> dict[str, Array]:
        """The columns `prefix/NAME` by NAME: global, face and hand first, then the others in file order."""
        names = [name.removeprefix(f"{prefix}/") for name in self.columns if name.startswith(f"{prefix}/")]
        first = [name for name in OBJECTIVES_FIRST if name in names]
        ordered = first + [name for name in names if name not in first]
        return {name: self.columns[f"{prefix}/{name}"] for name in ordered}


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """One line of `validation.jsonl`: summed error and area of each held-out sample, by objective."""

    step: int
    keys: tuple[str, ...]
    errors: Mapping[str, Array]
    areas: Mapping[str, Array]


def read_metrics(run: Path) -> Metrics:
    """`metrics.jsonl` as columns sorted by step.

    A resumed run may have logged a step twice; the later line counts.

    Raises:
        DataError: a line before the last is damaged.
    """
    rows = {int(row["step"]): row for row in read_rows(run / "metrics.jsonl", step=int)}
    steps = sorted(rows)
    names = dict.fromkeys(name for step in steps for name in rows[step] if name != "step")
    columns = {name: np.array([_number(rows[step].get(name)) for step in steps]) for name in names}
    return Metrics(np.array(steps, dtype=np.float64), columns)


def read_validation(run: Path) -> list[HeldOutEvaluation]:
    """`validation.jsonl` sorted by step; if a step was evaluated twice, the later line counts.

    Lines before the records' boxes, captions or sizes were changed are left out: their losses are of other regions.

    Raises:
        DataError: a line before the last is damaged.
    """
    evaluations = {}
    for row in _of_the_same_records(read_rows(run / "validation.jsonl", step=int)):
        objectives: dict[str, dict[str, list[Any]]] = row.get("objectives", {})
        names = [name for name in OBJECTIVES_FIRST if name in objectives]
        names += [name for name in objectives if name not in names]
        evaluations[int(row["step"])] = HeldOutEvaluation(
            step=int(row["step"]),
            keys=tuple(str(key) for key in row.get("keys", ())),
            errors={name: np.array([_number(e) for e in objectives[name]["error"]]) for name in names},
            areas={name: np.array([_number(a, 0.0) for a in objectives[name]["area"]]) for name in names},
        )
    return [evaluations[step] for step in sorted(evaluations)]


def _of_the_same_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last evaluations, of the same records; lines of earlier versions, which don't say, are taken to be so."""
    of_last = rows[-1].get("records") if rows else None
    others = [number for number, row in enumerate(rows) if row.get("records", of_last) != of_last]
    return rows[others[-1] + 1 :] if others else rows


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or holds anything else."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: object, otherwise: float = float("nan")) -> float:
    return float(value) if isinstance(value, int | float) else otherwise
