"""The report of a refinement: counts and quality of poor and improved parts, with before/after pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairhuman.config import to_yaml
from fairhuman.errors import DataError
from fairhuman.refine.attempts import SIDE, Shots, read_attempts
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.picture import DOUBTFUL, GOOD, KEPT, REFINED
from fairhuman.refine.run import ANIMATED, RefineManifest, RefineOutcome, RefineSource
from fairhuman.refine.settings import KINDS, REGION
from fairhuman.report.html import picture_uri, render_to
from fairhuman.report.text import plural

SHOWN = 60  # refined parts, and unimproved parts, on the page
COPIED = {
    GOOD: "good already",
    KEPT: "with poor parts left as they were",
    ANIMATED: "animated",
    "no parts": "without a face or hand",
}
SKIPPED = "skipped: "
UNREADABLE, NOT_STORED = "the file can no longer be read", "no picture of it was stored"


def write_page(out: Path, sources: Sequence[RefineSource], manifest: RefineManifest, done: RefineOutcome) -> Path:
    """Write `report.html` into `out` and return its path."""
    paths = {source.name: source.path for source in sources}
    parts = [(row, part) for row in done.rows for part in row["parts"]]
    refined = _first(parts, REFINED, lambda part: part["before"] - part["after"])
    kept = _first(parts, KEPT, lambda part: part["before"])
    doubtful = _first(parts, DOUBTFUL, lambda part: part["before"])
    shots = read_attempts(out)
    return render_to(
        out / "report.html",
        "refine.html",
        title="Refinement",
        summary=[line for line in summary(done) if not line.startswith(SKIPPED)],
        pictures=Counter(str(row["outcome"]) for row in done.rows),
        table=[(kind, *_numbers([part for _, part in parts if part["kind"] == kind])) for kind in KINDS],
        failed=done.failed,
        refined=[_shown(row, part, paths[row["name"]], out / row["output"], shots) for row, part in refined],
        kept=[_shown(row, part, paths[row["name"]], None, shots) for row, part in kept],
        doubtful=[_doubtful(row, part, paths[row["name"]]) for row, part in doubtful],
        more=[
            max(sum(part["outcome"] == outcome for _, part in parts) - SHOWN, 0)
            for outcome in (REFINED, KEPT, DOUBTFUL)
        ],
        settings_text=to_yaml(manifest),
    )


def summary(done: RefineOutcome) -> list[str]:
    """Summary of a refinement for the terminal, as lines."""
    lines = []
    for kind in KINDS:
        found = [part for row in done.rows for part in row["parts"] if part["kind"] == kind]
        parts, poor, better, before, after = _numbers(found)
        quality = f"; mean quality {before} before, {after} after" if parts else ""
        quality += ", as detectors see what was redrawn beside them too" if not better and before != after else ""
        doubtful = sum(part["outcome"] == DOUBTFUL for part in found)
        more = f"; {doubtful} doubtful, probably no {kind}, left as it is" if doubtful else ""
        lines.append(f"{plural(parts, kind)}, {poor} poor, {better} of them improved{quality}{more}")
    regions = [part for row in done.rows for part in row["parts"] if part["kind"] == REGION]
    for label in dict.fromkeys(part["label"] for part in regions):
        outcomes = Counter(part["outcome"] for part in regions if part["label"] == label)
        lines.append(f"{label}: {outcomes.total()}, {outcomes[REFINED]} of them redrawn")
    copied = Counter(str(row["outcome"]) for row in done.rows)
    changed = copied.pop(REFINED, 0)
    rest = ", ".join(f"{number} {COPIED[outcome]}" for outcome, number in sorted(copied.items()))
    lines.append(
        f"{plural(len(done.rows), 'picture')}: {changed} refined" + (f", copied unchanged: {rest}" if rest else "")
    )
    return lines + [f"{SKIPPED}{name}: {why}" for name, why in done.failed.items()]


def _numbers(parts: Sequence[Mapping[str, Any]]) -> tuple[int, int, int, str, str]:
    """Number of parts, poor parts and improved parts; mean quality before and after; all without doubtful parts."""
    parts = [part for part in parts if part["outcome"] != DOUBTFUL]
    poor = sum(part["outcome"] != GOOD for part in parts)
    better = sum(part["outcome"] == REFINED for part in parts)
    before, after = (f"{np.mean([part[when] for part in parts]):.3f}" if parts else "-" for when in ("before", "after"))
    return len(parts), poor, better, before, after


def _first(parts: Sequence[Any], outcome: str, key: Any) -> list[Any]:
    wanted = [one for one in parts if one[1]["outcome"] == outcome]
    return sorted(wanted, key=lambda one: key(one[1]))[:SHOWN]


def _shown(
    row: Mapping[str, Any], part: Mapping[str, Any], before: Path, after: Path | None, shots: Mapping[str, Shots]
) -> dict[str, Any]:
    """A part from left to right: before, every attempt with the reason for or against it, and what was kept."""
    of_picture, taken = shots.get(row["name"], {}), part["taken"]
    original = _cut(before, part["square"])
    words, tried = f"quality {part['before']:.2f}", part.get("tried")  # which older rows don't have
    if tried is not None and f"{tried:.2f}" != f"{part['before']:.2f}":
        words += f" in the original, {tried:.2f} beside the parts redrawn before it"
    of_region = part["kind"] == REGION  # which has no measure of quality
    steps = [_step("before", "as it was" if of_region else words, original, UNREADABLE)]
    for number, (quality, why) in enumerate(part["attempts"]):
        shot = of_picture.get((part["number"], number))
        words = _reason(number, None if of_region else quality, why, taken)
        steps.append(_step(f"attempt {number + 1}", words, shot, NOT_STORED))
    if after is None:
        steps.append(_step("kept", "the original, as no attempt was accepted", original, UNREADABLE))
    else:
        words = f"attempt {taken + 1}" + ("" if of_region else f", quality {part['after']:.2f}")
        steps.append(_step("kept", words, _cut(after, part["square"]), UNREADABLE))
    return {"name": row["name"], "part": _name(row, part), "steps": steps}


def _name(row: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """The part's label, and which one it is where a picture has several: `right hand 2 of 3`."""
    label = part["label"]
    alike = [one["number"] for one in row["parts"] if one["label"] == label]
    if len(alike) == 1:
        return str(label)
    return f"{label} {sorted(alike).index(part['number']) + 1} of {len(alike)}"


def _doubtful(row: Mapping[str, Any], part: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A doubtful detection, with as much around it as its longer side."""
    x0, y0, x1, y1 = part["box"]
    side = 2 * max(x1 - x0, y1 - y0)
    square = [round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), round(side)]
    words = f"quality {part['before']:.2f}, left as it is"
    step = _step("doubtful", words, _cut(path, square), UNREADABLE)
    return {"name": row["name"], "part": _name(row, part), "steps": [step]}


def _reason(number: int, quality: float | None, why: str, taken: int | None) -> str:
    """Quality of an attempt, if it has one, and why it was rejected or accepted."""
    if quality is None:
        return f"rejected: {why}" if why else "accepted: no face or hand is worse"
    if why.startswith("quality"):
        return f"rejected: {why}"
    if why:
        return f"quality {quality:.2f}, rejected: {why}"
    better = "" if taken is None or taken == number else f", but attempt {taken + 1} was better"
    return f"quality {quality:.2f}, accepted{better}"


def _step(title: str, words: str, picture: str | None, absent: str) -> dict[str, str | None]:
    return {"title": title, "words": words, "picture": picture, "absent": absent}


def _cut(path: Path, square: Sequence[int]) -> str | None:
    """A crop as a data URI; None if the picture can no longer be read."""
    left, top, side = square
    try:
        picture = Image.fromarray(Canvas.read(path.read_bytes()).rgb())
    except (DataError, OSError):
        return None
    return picture_uri(picture.crop((left, top, left + side, top + side)), SIDE)
