"""One picture: its poor parts are redrawn one by one, and of each the best attempt is taken or none.

The noise of an attempt follows from (seed, name of the picture, number of the part, number of the attempt).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fairhuman.record import Box
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.conditions import Conditions
from fairhuman.refine.crop import RefineCrop, plan_crop
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.parts import BodyPart, Look, PartScores, PictureParts, loss, standing
from fairhuman.refine.settings import RefineSettings
from fairhuman.utils.randomness import Stream, seeded_generator

GOOD, SMALL, KEPT, REFINED = "good", "small", "kept", "refined"  # what became of a part


@dataclass(frozen=True, slots=True)
class PartRow:
    """What was done to one part.

    Attributes:
        number: place among the parts of the picture, from 0.
        kind, label, box: of the part, in pixels of the upright picture.
        before, after: its strict quality in the first and in the last picture.
        outcome: `good` (not poor), `small` (too small to be redrawn), `kept` (no attempt was better), `refined`.
        square: left, top and side of the crop; None where nothing was redrawn.
        worked: side in pixels at which it was redrawn.
        attempts: of each, the quality of the part after it, and why it wasn't taken; "" where it could be.
        taken: number of the attempt that was taken.
        without: conditions that a guide follows and that weren't known of this part.

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

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RefineTools:
    """What a picture is refined with."""

    look: Look
    painter: Painter
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class _Try:
    canvas: Canvas
    after: PartScores
    number: int


def refine_picture(
    canvas: Canvas, name: str, prompt: str, settings: RefineSettings, tools: RefineTools
) -> tuple[Canvas, list[PartRow]]:
    """The picture with its poor parts redrawn where that made it better, and what was done.

    The canvas itself comes back where nothing was changed. Every change is held against the parts of the original
    picture, so that no strict score falls from one to the next (`fairhuman.refine.parts`).

    Args:
        canvas: the picture.
        name: its name, for the noise.
        prompt: what it shows; may be empty.
        settings: what is poor, and how it is redrawn.
        tools: what finds, redraws and steers.

    """
    seen = tools.look(canvas.seen())
    first = now = standing(seen, seen.parts)
    rows: list[PartRow] = []
    for number, part in enumerate(seen.parts):
        outcome = KEPT
        details: dict[str, Any] = {}
        if now.quality_n[number] >= settings.poor(part.kind):
            outcome = GOOD
        elif part.side < settings.least_part:
            outcome = SMALL
        else:
            best, details = _redraw(canvas, name, prompt, settings, tools, seen, now, number)
            if best is not None:
                canvas, now, outcome = best.canvas, best.after, REFINED
        rows.append(_row(number, part, first, now, outcome, details))
    return canvas, [_with_after(row, now) for row in rows]


def _redraw(
    canvas: Canvas,
    name: str,
    prompt: str,
    settings: RefineSettings,
    tools: RefineTools,
    seen: PictureParts,
    now: PartScores,
    number: int,
) -> tuple[_Try | None, dict[str, Any]]:
    """The best attempt at one part, if one is better than what is there, and the row's details."""
    part, painter = seen.parts[number], tools.painter
    crop = crop_of(part.box, canvas.size, settings, painter)
    picture, mask = crop.cut(canvas.seen()), crop.mask()
    conditions = tools.conditions(part, crop, picture, seen.people)
    text = settings.prompt(part.kind, prompt)
    best: _Try | None = None
    attempts: list[tuple[float, str]] = []
    for attempt in range(settings.attempts):
        noise = seeded_generator(settings.seed, Stream.REFINE, _number(name), number, attempt)
        redrawn = painter(picture, mask, text, conditions, noise)
        candidate = canvas.changed(crop.lay(canvas.pixels, redrawn))
        after = standing(tools.look(candidate.seen()), seen.parts)
        why = loss(now, after, number, settings.gain)
        attempts.append((round(float(after.quality_n[number]), 4), why))
        if not why and (best is None or after.quality_n[number] > best.after.quality_n[number]):
            best = _Try(candidate, after, attempt)
        if best is not None and best.after.quality_n[number] >= settings.poor(part.kind):
            break
    return best, {
        "square": tuple(crop.square),
        "worked": crop.worked,
        "attempts": tuple(attempts),
        "taken": None if best is None else best.number,
        "without": tuple(condition for condition in painter.follows if condition not in conditions),
    }


def crop_of(box: Box, size: tuple[int, int], settings: RefineSettings, painter: Painter) -> RefineCrop:
    """The crop of a part in a picture of (width, height)."""
    return plan_crop(
        box,
        size,
        context=settings.context,
        margin=settings.margin,
        feather=settings.feather,
        least=painter.least,
        grid=painter.grid,
    )


def _row(
    number: int, part: BodyPart, first: PartScores, now: PartScores, outcome: str, details: dict[str, Any]
) -> PartRow:
    box = part.box
    before, after = float(first.quality_n[number]), float(now.quality_n[number])
    place = (box.x0, box.y0, box.x1, box.y1)
    return PartRow(number, part.kind, part.label, place, before, after, outcome, **details)


def _with_after(row: PartRow, last: PartScores) -> PartRow:
    """A part's quality may have moved a little since, as its neighbours were redrawn."""
    return PartRow(**{**row.plain(), "after": float(last.quality_n[row.number])})


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8])


def counted(rows: Sequence[PartRow]) -> str:
    """What became of a picture: `refined`, `kept` (poor parts, none better), `good`, or `no parts`."""
    outcomes = {row.outcome for row in rows}
    if REFINED in outcomes:
        return REFINED
    return KEPT if outcomes & {KEPT, SMALL} else GOOD if rows else "no parts"
