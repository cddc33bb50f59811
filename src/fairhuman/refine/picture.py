"""Refinement of one picture: its poor parts are redrawn one by one, keeping the best attempt at each or none.

The noise of an attempt is determined by (seed, name of the picture, number of the part, number of the attempt).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from fairhuman.detect.found_region import Mask
from fairhuman.record import Box
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.conditions import Conditions
from fairhuman.refine.crop import RefineCrop, plan_crop
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.parts import BodyPart, PartScores, PartsDetector, PictureParts, rejection_reason, score_parts
from fairhuman.refine.regions import RegionsDetector, no_regions
from fairhuman.refine.settings import REGION, RefineSettings
from fairhuman.utils.randomness import Stream, seeded_generator

KeepAttempt = Callable[[int, int, Image.Image], None]  # part, attempt, and the crop as it would become
GOOD, SMALL, DOUBTFUL, KEPT, REFINED = "good", "small", "doubtful", "kept", "refined"  # outcomes of a part


@dataclass(frozen=True, slots=True)
class PartRow:
    """Outcome of one part.

    Attributes:
        number: index among the parts of the picture, from 0.
        kind, label, box: kind, label and box of the part, in pixels of the upright picture.
        before, after: its strict quality in the original and in the final picture.
        outcome: `good` (not poor), `small` (too small to redraw), `doubtful` (probably no face), `kept` (no attempt was
            accepted) or `refined`.
        square: left, top and side of the crop; None if nothing was redrawn.
        worked: side in pixels at which it was redrawn.
        attempts: for each attempt, the part's quality and the reason for rejection ("" if acceptable).
        taken: number of the attempt that was kept.
        without: conditions that a control network follows but that were unknown for this part.
        tried: its quality right before its attempts, in the picture with the parts that were redrawn earlier.
    """

    number: int
    kind: str
    label: str
    box: tuple[float, float, float, float]
    before: float
    after: float
    outcome: str
    square: tuple[int, int, int] | None = None
    worked: int | None = None
    attempts: tuple[tuple[float, str], ...] = ()
    taken: int | None = None
    without: tuple[str, ...] = ()
    tried: float | None = None

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RefineTools:
    """Detectors, painter and conditions for refining a picture; `regions` gives further parts to redraw."""

    detect: PartsDetector
    painter: Painter
    conditions: Conditions
    regions: RegionsDetector = no_regions


@dataclass(frozen=True, slots=True)
class _Try:
    canvas: Canvas
    after: PartScores
    number: int


def refine_picture(
    canvas: Canvas,
    name: str,
    prompt: str,
    settings: RefineSettings,
    tools: RefineTools,
    keep: KeepAttempt = lambda *_: None,
) -> tuple[Canvas, list[PartRow]]:
    """Redraw the poor parts of a picture where that improves it; returns the picture and the outcome of each part.

    The same canvas is returned if nothing changed. Every change is scored against the parts of the original picture and
    compared with the best that each has had, so that small losses don't add up (`fairhuman.refine.parts`). The
    picture's name seeds the noise; its prompt may be empty. `keep` gets every attempt, also those that are rejected.
    """
    picture = canvas.rgb()
    seen = tools.detect(picture)
    seen = replace(seen, parts=(*seen.parts, *tools.regions(picture, name)))
    first = now = peak = score_parts(seen, seen.parts)
    found: list[tuple[str, dict[str, Any]]] = []  # outcome and details of each part
    for number, part in enumerate(seen.parts):
        outcome = KEPT
        details: dict[str, Any] = {}
        if part.kind != REGION and now.quality_n[number] >= settings.poor(part.kind):
            outcome = GOOD
        elif part.kind == "face" and part.measured and part.quality < settings.doubtful_face:
            outcome = DOUBTFUL
        elif part.side < settings.least_part:
            outcome = SMALL
        else:
            best, details = _redraw(canvas, name, prompt, settings, tools, seen, now, peak, number, keep)
            if best is not None:
                canvas, now, outcome = best.canvas, best.after, REFINED
                peak = peak.best_of(now)
        found.append((outcome, details))
    return canvas, [_row(number, seen.parts[number], first, now, *one) for number, one in enumerate(found)]


def _redraw(
    canvas: Canvas,
    name: str,
    prompt: str,
    settings: RefineSettings,
    tools: RefineTools,
    seen: PictureParts,
    now: PartScores,
    peak: PartScores,
    number: int,
    keep: KeepAttempt,
) -> tuple[_Try | None, dict[str, Any]]:
    """The best accepted attempt at one part, or None, and details for its row."""
    part, painter = seen.parts[number], tools.painter
    crop = part_crop(part.box, canvas.size, settings, painter, part.mask_hw)
    picture, mask = crop.cut(canvas.rgb()), crop.mask()
    conditions = tools.conditions(part, crop, picture, seen.people)
    text = settings.prompt(part.kind, prompt, part.label)
    best: _Try | None = None
    attempts: list[tuple[float, str]] = []
    for attempt in range(settings.attempts):
        noise = seeded_generator(settings.seed, Stream.REFINE, _number(name), number, attempt)
        redrawn = painter(picture, mask, text, conditions, noise)
        candidate = canvas.with_pixels(crop.paste(canvas.pixels, redrawn))
        shown = candidate.rgb()
        after = score_parts(tools.detect(shown), seen.parts)
        keep(number, attempt, crop.cut(shown))
        why = rejection_reason(now, after, number, settings.gain, peak)
        attempts.append((round(float(after.quality_n[number]), 4), why))
        if not why and (best is None or after.quality_n[number] > best.after.quality_n[number]):
            best = _Try(candidate, after, attempt)
        if best is not None and (part.kind == REGION or best.after.quality_n[number] >= settings.poor(part.kind)):
            break  # of a region the first one that spoils nothing
    return best, {
        "square": tuple(crop.square),
        "worked": crop.worked,
        "attempts": tuple(attempts),
        "taken": None if best is None else best.number,
        "tried": float(now.quality_n[number]),
        "without": tuple(condition for condition in painter.follows if condition not in conditions),
    }


def part_crop(
    box: Box, size: tuple[int, int], settings: RefineSettings, painter: Painter, mask_hw: Mask | None = None
) -> RefineCrop:
    """Crop of a part in a picture of (width, height); with a mask, its pixels are redrawn instead of the box."""
    return plan_crop(
        box,
        size,
        context=settings.context,
        margin=settings.margin,
        feather=settings.feather,
        least=painter.least,
        grid=painter.grid,
        mask_hw=mask_hw,
    )


def _row(
    number: int, part: BodyPart, first: PartScores, last: PartScores, outcome: str, details: dict[str, Any]
) -> PartRow:
    box = part.box
    before, after = float(first.quality_n[number]), float(last.quality_n[number])
    place = (box.x0, box.y0, box.x1, box.y1)
    return PartRow(number, part.kind, part.label, place, before, after, outcome, **details)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8])


def picture_outcome(rows: Sequence[PartRow]) -> str:
    """Outcome of a picture: `refined`, `kept` (poor parts, none improved), `good` or `no parts` but doubtful ones."""
    outcomes = {row.outcome for row in rows} - {DOUBTFUL}
    if REFINED in outcomes:
        return REFINED
    return KEPT if outcomes & {KEPT, SMALL} else GOOD if outcomes else "no parts"
