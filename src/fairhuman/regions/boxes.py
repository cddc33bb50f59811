"""Parse, validate and clip boxes from files. Boxes with NaN are rejected."""

import math
from collections.abc import Iterable
from typing import Any, Literal

from fairhuman.record import Box, Finding

MAX_BOXES = 10_000  # of one region in one picture; each bad one gets a note
MIN_AREA = 1.0  # square pixels; a smaller box is an annotation error, not a region


def parse_boxes(
    value: Any, width: int, height: int, empty_means: Literal["none", "unknown"] = "none"
) -> tuple[tuple[Box, ...] | None, list[Finding]]:
    """Parse the boxes of one region of one picture.

    Args:
        value: the file's value: null, or a list of [x0, y0, x1, y1] or [x0, y0, x1, y1, score] in pixels
            of the upright picture.
        width, height: size of the upright picture.
        empty_means: meaning of an empty list: `none` (annotated as absent) or `unknown` (not annotated).

    Returns:
        The boxes inside the picture, and the findings about changed or dropped boxes. None means unknown: the value
        is null or no list, or no box of the list is valid (the region may be there, but its place isn't known).
    """
    if value is None:
        return None, []
    if not isinstance(value, list | tuple):
        return None, [Finding("dropped", "not a list of boxes, taken as not annotated", shorten(value))]
    if not value:
        return (() if empty_means == "none" else None), []
    if len(value) > MAX_BOXES:
        return None, [Finding("dropped", f"more than {MAX_BOXES} boxes, taken as not annotated", f"{len(value)} boxes")]
    boxes: list[Box] = []
    findings: list[Finding] = []
    for item in value:
        box, found = _parse_box(item, width, height)
        findings += found
        if box is not None:
            boxes.append(box)
    return (tuple(boxes) or None), findings


def clip_boxes(boxes: Iterable[Box], width: int, height: int) -> tuple[tuple[Box, ...], list[Finding]]:
    """Clip boxes to a picture and drop boxes outside it. Returns the boxes and the findings."""
    kept: list[Box] = []
    findings: list[Finding] = []
    for box in boxes:
        clipped, finding = _clip(box, width, height)
        findings += [finding] if finding else []
        kept += [clipped] if clipped else []
    return tuple(kept), findings


def shorten(value: Any, limit: int = 120) -> str:
    """A value as text for a message, truncated to `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _parse_box(item: Any, width: int, height: int) -> tuple[Box | None, list[Finding]]:
    """Parse one box; None if it is invalid. Returns the findings too."""
    shown = shorten(item)
    if not isinstance(item, list | tuple) or len(item) not in (4, 5):
        return None, [Finding("dropped", "box has not 4 numbers, or 5 with its score", shown)]
    findings: list[Finding] = []
    if any(isinstance(number, str) for number in item):
        findings.append(Finding("converted", "numbers of a box were strings", shown))
    numbers = [_number(number) for number in item[:4]]
    score = None if len(item) == 4 or item[4] is None else _number(item[4])
    if any(number is None for number in numbers) or (score is None and len(item) == 5 and item[4] is not None):
        return None, [Finding("dropped", "a box holds something that is not a number", shown)]
    x0, y0, x1, y1 = (float(number) for number in numbers if number is not None)
    if not all(map(math.isfinite, (x0, y0, x1, y1, score or 0.0))):
        return None, [Finding("dropped", "a box holds NaN or infinity", shown)]
    if x1 < x0 or y1 < y0:
        return None, [Finding("dropped", "inverted box (x1 < x0 or y1 < y0)", shown)]
    box, finding = _clip(Box(x0, y0, x1, y1, score), width, height)
    return box, findings + ([finding] if finding else [])


def _clip(box: Box, width: int, height: int) -> tuple[Box | None, Finding | None]:
    """The part of a box inside the picture, or None if it covers less than a pixel."""
    shown = f"[{box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g}] in {width}x{height}"
    if box.area < MIN_AREA:
        if max(box.x1, box.y1) <= 1.0:
            return None, Finding(
                "dropped", "box under one pixel: normalised 0..1 coordinates? pixels are expected", shown
            )
        return None, Finding("dropped", "box under one pixel", shown)
    x0, x1 = (min(max(x, 0.0), float(width)) for x in (box.x0, box.x1))
    y0, y1 = (min(max(y, 0.0), float(height)) for y in (box.y0, box.y1))
    clipped = Box(x0, y0, x1, y1, box.score)
    if clipped == box:
        return box, None
    if clipped.area < MIN_AREA:
        return None, Finding("dropped", "box outside the picture", shown)
    return clipped, Finding("converted", "box clipped to the picture", shown)


def _number(value: Any) -> float | None:
    """A float, also from text; None if the value isn't a number (booleans aren't numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer beyond the range of a float
        return math.inf
