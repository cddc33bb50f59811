"""The previews of a run as before/after pictures with close-ups of faces and hands at the same position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fairhuman.report.colours import colours
from fairhuman.report.html import picture_uri
from fairhuman.report.run_folder import read_json
from fairhuman.stats.bootstrap import Array

PICTURE, ZOOM = 448, 176  # longer sides in pixels, enough for a high-density screen
AROUND = 1.7  # side of a close-up as a multiple of the box's longer side
LEAST = 4.0  # minimum box side in pixels; smaller boxes are framed as if they were this large


@dataclass(frozen=True, slots=True)
class Zoom:
    """A close-up of a region as a data URI; None if the region has no box."""

    region: str
    picture: str | None


@dataclass(frozen=True, slots=True)
class PictureWithZooms:
    """A picture and its close-ups, as data URIs."""

    picture: str
    zooms: Sequence[Zoom]


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close a region of a preview is to its photo, before (first step) and after (last step) training.

    Attributes:
        before, after: root mean square difference from the photo's pixels, in levels of 0..255.
        moved: the same between the previews before and after.
        detail_before, detail_after: root mean square gradient of the brightness, as a share of the photo's; NaN if the
            photo is flat. Blur lowers it, noise raises it. A sharper preview may well have the larger difference.
    """

    before: float
    after: float
    moved: float
    detail_before: float
    detail_after: float


@dataclass(frozen=True, slots=True)
class PreviewPictures:
    """A held-out photo denoised before and after training, and samples from its caption.

    Attributes:
        caption: of the photo.
        seed: of the noise.
        photo: the photo itself with its boxes.
        before, after: the photo, noised halfway and denoised at the first and the last step.
        drawn: (step, picture) of each sample from the caption.
        conditions: (name, picture) of each condition that the model follows.
        closeness: of the denoised photo to the photo, by region.
    """

    caption: str
    seed: str
    photo: PictureWithZooms | None
    before: PictureWithZooms | None
    after: PictureWithZooms | None
    drawn: Sequence[tuple[int, str]]
    conditions: Sequence[tuple[str, str]]
    closeness: Mapping[str, Closeness]


def read_previews(run: Path) -> tuple[list[PreviewPictures], tuple[int, int]]:
    """The rows of `previews/index.json` that have a picture, and the first and last step."""
    entries = read_json(run / "previews" / "index.json").get("rows", [])
    steps = sorted({int(step) for entry in entries for step in entry.get("steps", {})})
    first, last = (steps[0], steps[-1]) if steps else (0, 0)
    rows = [_row(run, entry, first, last) for entry in entries]
    return [row for row in rows if row.photo or row.drawn], (first, last)


def open_picture(run: Path, name: str | None) -> Image.Image | None:
    """Open a picture in the run's folder as RGB; None if it is missing or not a picture."""
    if name is None:
        return None
    try:
        with Image.open(run / name, formats=("PNG",)) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _row(run: Path, entry: Mapping[str, Any], first: int, last: int) -> PreviewPictures:
    boxes, photo = entry.get("boxes") or {}, open_picture(run, entry.get("photo"))
    size = photo.size if photo else (1, 1)
    names = {step: entry.get("steps", {}).get(str(step), {}) for step in (first, last)}
    denoised = {step: open_picture(run, files.get("photo")) for step, files in names.items()}
    shots = {step: shot(picture, boxes, size) for step, picture in denoised.items()}
    conditions = {name: open_picture(run, file) for name, file in (entry.get("conditions") or {}).items()}
    drawn = {step: open_picture(run, files.get("caption")) for step, files in names.items()}
    closeness = _closeness(photo, denoised[first], denoised[last], boxes) if first != last else {}
    return PreviewPictures(
        caption=str(entry.get("caption", "")),
        seed=str(entry.get("seed", "?")),
        photo=shot(photo, boxes, size, outlined=True),
        before=shots[first],
        after=shots[last] if first != last else None,
        drawn=[(step, picture_uri(picture, PICTURE)) for step, picture in drawn.items() if picture],
        conditions=[(name, picture_uri(picture, PICTURE)) for name, picture in conditions.items() if picture],
        closeness=closeness,
    )


def _closeness(
    photo: Image.Image | None, before: Image.Image | None, after: Image.Image | None, boxes: Mapping[str, Any]
) -> dict[str, Closeness]:
    """Closeness of the whole picture, `global`, and of each region's largest box; empty if a picture is missing."""
    if photo is None or before is None or after is None:
        return {}
    shown = [np.asarray(picture.resize(photo.size), dtype=np.float64) for picture in (photo, before, after)]
    frames = {"global": (0.0, 0.0, *map(float, photo.size))}
    frames |= {region: found for region in boxes if (found := _largest(boxes[region])) is not None}
    closeness = {}
    for region, (x0, y0, x1, y1) in frames.items():
        rows, columns = slice(max(0, floor(y0)), ceil(y1)), slice(max(0, floor(x0)), ceil(x1))
        true, first, last = (picture[rows, columns] for picture in shown)
        if min(true.shape[:2]) < 2:
            continue  # without a gradient
        apart = [_root_mean_square(one - other) for one, other in ((first, true), (last, true), (last, first))]
        whole = _detail(true)
        shares = [_detail(picture) / whole if whole > 0 else np.nan for picture in (first, last)]
        closeness[region] = Closeness(*apart, *shares)
    return closeness


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _detail(picture_hwc: Array) -> float:
    return _root_mean_square(np.stack(np.gradient(picture_hwc.mean(axis=2))))


def _largest(boxes: Sequence[Sequence[float]] | None) -> tuple[float, float, float, float] | None:
    found = [(box[0], box[1], box[2], box[3]) for box in boxes or ()]
    return max(found, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


def shot(
    picture: Image.Image | None, boxes: Mapping[str, Any] | None, size: tuple[int, int], outlined: bool = False
) -> PictureWithZooms | None:
    """The picture with a close-up of the largest box of each region; boxes are in pixels of a picture of `size`.

    Without a picture the result is None; `boxes` None gives no close-ups.
    """
    if picture is None:
        return None
    scale = (picture.width / size[0], picture.height / size[1])
    zooms, outlines = [], []
    palette = colours(boxes or ())
    for region, listed in (boxes or {}).items():
        found = [tuple(v * s for v, s in zip(box[:4], scale * 2, strict=True)) for box in listed or ()]
        largest = _largest(found)
        cut = None if largest is None else picture_uri(_zoom(picture, largest))
        zooms.append(Zoom(region, cut))
        outlines += [(box, palette[region]) for box in found]
    if outlined:
        draw = ImageDraw.Draw(picture)
        for box, colour in outlines:
            draw.rectangle(box, outline=colour, width=max(1, round(max(picture.size) / 220)))
    return PictureWithZooms(picture_uri(picture, PICTURE), zooms)


def _zoom(picture: Image.Image, box: Sequence[float]) -> Image.Image:
    side = AROUND * max(box[2] - box[0], box[3] - box[1], LEAST)
    return cut_square(picture, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side, ZOOM)


def cut_square(picture: Image.Image, x: float, y: float, side: float, pixels: int) -> Image.Image:
    """Cut the square around (x, y), resized to `pixels` a side.

    A square that extends beyond the picture is moved inside; one that is larger than the picture is reduced.
    """
    side = min(side, *picture.size)
    left = min(max(x - side / 2, 0.0), picture.width - side)
    top = min(max(y - side / 2, 0.0), picture.height - side)
    return picture.resize((pixels, pixels), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
