"""The report of a build: counts, reasons, thresholds, files. It holds no times, so equal input gives equal files."""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.data.pictures.filters import Filter
from fairhuman.data.pipeline.select import RejectedRow, Selection
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json
from fairhuman.utils.tables import write_table

REPORT, REJECTED = "report.json", "rejected/00000.parquet"
STAGES = ("read", "check", "detect", "filter", "duplicate", "regions", "caption", "condition")


def write_report(
    out: Path,
    kind: str,
    recipe: BuildRecipe,
    regions: Sequence[str],
    selection: Selection,
    listed: int,
    shards: Sequence[str],
) -> dict[str, Any]:
    """Write `report.json` and the table of rejected rows; return the content of the report.

    `regions` are those of the data set: those of the recipe, and the source's own.
    """
    rejected = selection.rejected
    counts = Counter((each.stage, each.reason) for each in rejected)
    left = listed + sum(each.stage == "read" for each in rejected)
    funnel = [{"stage": "source", "rows": left}]
    for stage in STAGES:
        if stage == "regions" and (recipe.detect is None or not recipe.detect.regions):
            continue  # as reports had it before there were any
        left -= sum(number for (of, _), number in counts.items() if of == stage)
        funnel.append({"stage": stage, "rows": left})
    report = {
        "format": kind,
        "regions": list(regions),
        "kept": left,
        "funnel": funnel,
        "rejected": _nested(counts),
        "notes": _nested(selection.findings),
        "filters": [_filter(each, selection.unknown[each.name]) for each in selection.filters],
        "files": list(shards),
        "recipe": recipe.model_dump(mode="json"),
        "version": version("fairhuman"),
    }
    table = pyarrow.table(
        {
            name: pyarrow.array([getattr(each, name) for each in rejected], pyarrow.string())
            for name in RejectedRow._fields
        }
    )
    write_table(table, out / REJECTED)
    write_json(out / REPORT, report)
    return report


def rejections(selection: Selection) -> str:
    """The reasons why rows were rejected, the most frequent first, and what to change for a filter."""
    advice = {harm.reason: harm.advice for harm in selection.harms}
    counts = Counter(each.reason for each in selection.rejected).most_common()
    return "; ".join(
        f"{reason} ({number})" + (f": {advice[reason]}" if reason in advice else "") for reason, number in counts
    )


def _filter(rule: Filter, unknown: int) -> dict[str, Any]:
    return {"name": rule.name, "unit": rule.unit, "low": rule.low, "high": rule.high, "unknown": unknown}


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Counts by the first element of the key, then by the second, in alphabetical order."""
    nested: dict[str, dict[str, int]] = {}
    for (outer, inner), number in sorted(counts.items()):
        nested.setdefault(outer, {})[inner] = number
    return nested


def kept_before(out: Path) -> int | None:
    """Number of pictures in the data set of an earlier build in `out`; None if there is none."""
    try:
        kept = parse_json((out / REPORT).read_text(encoding="utf-8"))["kept"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, int) else None
