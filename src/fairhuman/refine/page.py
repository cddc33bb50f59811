"""The report of a refinement: counts and quality of poor and improved parts, with before/after pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from fairhuman.errors import DataError
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.picture import GOOD, KEPT, REFINED
from fairhuman.refine.run import RefineManifest, RefineOutcome, RefineSource
from fairhuman.refine.settings import KINDS
from fairhuman.report.html import picture_uri, render
from fairhuman.utils.files import write_text

SHOWN = 60  # refined parts, and unimproved parts, on the page
SIDE = 256  # side of a crop in pixels


def write_page(out: Path, sources: Sequence[RefineSource], manifest: RefineManifest, done: RefineOutcome) -> Path:
    """Write `report.html` into `out` and return its path."""
    paths = {source.name: source.path for source in sources}
    parts = [(row, part) for row in done.rows for part in row["parts"]]
    refined = _first(parts, REFINED, lambda part: part["before"] - part["after"])
    kept = _first(parts, KEPT, lambda part: part["before"])
    page = render(
        "refine.html",
        title="Refinement",
        pictures=Counter(str(row["outcome"]) for row in done.rows),
        table=[(kind, *_numbers([part for _, part in parts if part["kind"] == kind])) for kind in KINDS],
        failed=done.failed,
        refined=[_shown(row, part, paths[row["name"]], out / row["output"]) for row, part in refined],
        kept=[_shown(row, part, paths[row["name"]], None) for row, part in kept],
        more=[max(sum(part["outcome"] == outcome for _, part in parts) - SHOWN, 0) for outcome in (REFINED, KEPT)],
        settings_text=yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False),
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def summary(done: RefineOutcome) -> list[str]:
    """Summary of a refinement for the terminal, as lines."""
    lines = []
    for kind in KINDS:
        parts, poor, better, before, after = _numbers(
            [part for row in done.rows for part in row["parts"] if part["kind"] == kind]
        )
        lines.append(
            f"{parts} {kind}s, {poor} poor, {better} of them improved; mean quality {before} before, {after} after"
        )
    copied = Counter(str(row["outcome"]) for row in done.rows)
    changed = copied.pop(REFINED, 0)
    rest = ", ".join(f"{number} {outcome}" for outcome, number in sorted(copied.items()))
    lines.append(f"{len(done.rows)} pictures: {changed} refined" + (f", copied unchanged: {rest}" if rest else ""))
    return lines + [f"skipped: {name}: {why}" for name, why in done.failed.items()]


def _numbers(parts: Sequence[Mapping[str, Any]]) -> tuple[int, int, int, str, str]:
    """Number of parts, poor parts and improved parts; mean quality before and after."""
    poor = sum(part["outcome"] != GOOD for part in parts)
    better = sum(part["outcome"] == REFINED for part in parts)
    before, after = (f"{np.mean([part[when] for part in parts]):.3f}" if parts else "-" for when in ("before", "after"))
    return len(parts), poor, better, before, after


def _first(parts: Sequence[Any], outcome: str, key: Any) -> list[Any]:
    wanted = [one for one in parts if one[1]["outcome"] == outcome]
    return sorted(wanted, key=lambda one: key(one[1]))[:SHOWN]


def _shown(row: Mapping[str, Any], part: Mapping[str, Any], before: Path, after: Path | None) -> dict[str, Any]:
    return {
        "text": f"{row['name']}: {part['label']} {part['number']}",
        "before": _cut(before, part["square"]),
        "after": _cut(after, part["square"]) if after is not None else None,
        "quality": (f"{part['before']:.2f}", f"{part['after']:.2f}"),
        "attempts": [f"{quality:.2f}" + (f" ({why})" if why else "") for quality, why in part["attempts"]],
    }


def _cut(path: Path, square: Sequence[int]) -> str | None:
    """A crop as a data URI; None if the picture can no longer be read."""
    left, top, side = square
    try:
        picture = Image.fromarray(Canvas.read(path.read_bytes()).rgb())
    except (DataError, OSError):
        return None
    return picture_uri(picture.crop((left, top, left + side, top + side)), SIDE)
