"""Draw a record as layers for a page: the picture, boxes, painted masks, pose, depth."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from fairhuman.data.condition.depth import decode_depth, depth_picture
from fairhuman.data.condition.people import move_people, people_from_source
from fairhuman.data.condition.pose import draw_pose
from fairhuman.data.look.reading import DataSet
from fairhuman.data.pictures.decode import decode, decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.sources.check import STAGE
from fairhuman.errors import DataError
from fairhuman.record import Finding, HumanRecord, MaskSource
from fairhuman.report.html import picture_uri

SIDE = 384  # pixels of the longest side
DEPTH_SIDE = 128
WIDE = ("person", "subject")  # regions that cover most of a picture, and others
STRONG, FAINT = 120, 40  # alpha of 255 of masks; that of wide regions


@dataclass(frozen=True, slots=True)
class BoxShape:
    """A box in pixels of the picture."""

    region: str
    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of a record, images as data URIs.

    Attributes:
        picture: the photo.
        boxes: boxes of all regions, largest first, so that small ones lie on top.
        masks: (region, image), coloured inside the region and transparent elsewhere.
        pose: the pose on a transparent background.
        depth: the depth map; near is bright.
    """

    picture: str
    boxes: list[BoxShape] = field(default_factory=list)
    masks: list[tuple[str, str]] = field(default_factory=list)
    pose: str | None = None
    depth: str | None = None


def draw_layers(dataset: DataSet, record: HumanRecord, colours: dict[str, str], report: LoadReport) -> Layers | None:
    """Decode and draw a record; parts that can't be drawn are noted. None if the picture can't be decoded. `colours` of
    masks are `#RRGGBB` by region.
    """
    try:
        picture = decode(record.image, dataset.settings.limits, longest=2 * SIDE).picture
    except PictureError as error:
        report.add(record.location, STAGE, error.finding)
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    drawer = _Drawer(dataset, record, picture.size, report)
    return Layers(
        picture=picture_uri(picture, quality=82),
        boxes=box_shapes(record),
        masks=[
            (name, uri)
            for name, mask in record.masks.items()
            if (
                uri := drawer.try_draw(
                    f"mask of {name}", partial(drawer.mask, mask, colours[name], FAINT if name in WIDE else STRONG)
                )
            )
        ],
        pose=drawer.try_draw("pose", drawer.pose),
        depth=drawer.try_draw("depth", drawer.depth),
    )


def box_shapes(record: HumanRecord) -> list[BoxShape]:
    """All boxes, largest first."""
    boxes = [(region, box) for region, found in record.boxes.items() for box in found or ()]
    return [
        BoxShape(
            region,
            round(box.x0, 1),
            round(box.y0, 1),
            round(box.x1 - box.x0, 1),
            round(box.y1 - box.y0, 1),
            region if box.score is None else f"{region} {box.score:.2f}",
        )
        for region, box in sorted(boxes, key=lambda each: -each[1].area)
    ]


@dataclass(frozen=True)
class _Drawer:
    dataset: DataSet
    record: HumanRecord
    size: tuple[int, int]
    report: LoadReport

    def try_draw(self, name: str, draw: Callable[[], str | None]) -> str | None:
        """Call `draw`; if it fails, add a note and return None."""
        try:
            return draw()
        except PictureError as error:
            finding = error.finding._replace(action="dropped", value=f"{name}: {error.finding.value}")
        except DataError as error:
            finding = Finding("dropped", f"{name} can't be drawn", str(error))
        self.report.add(self.record.location, STAGE, finding)
        return None

    def mask(self, mask: MaskSource, colour: str, alpha: int) -> str:
        """A PNG with two palette colours, one of them transparent: a few hundred bytes."""
        grey = decode_mask(mask, self.dataset.settings.limits).resize(self.size, Image.Resampling.BOX)
        painted = Image.fromarray((np.asarray(grey) > 127).astype(np.uint8), "P")
        painted.putpalette([0, 0, 0, *bytes.fromhex(colour[1:])])
        return _png_uri(painted, transparency=bytes([0, alpha]), bits=1)

    def pose(self) -> str | None:
        if self.record.pose is None:
            return None
        if isinstance(self.record.pose, list):
            scale = (self.size[0] / self.record.width, self.size[1] / self.record.height)
            drawn = draw_pose(move_people(people_from_source(self.record.pose), scale, (0, 0)), *self.size[::-1])
        else:
            drawn = decode(self.record.pose, self.dataset.settings.limits).picture.resize(self.size)
        colours_hw3 = np.asarray(drawn)
        alpha_hw1 = colours_hw3.max(axis=2, keepdims=True)
        return _png_uri(Image.fromarray(np.concatenate([colours_hw3, alpha_hw1], axis=2), "RGBA"))

    def depth(self) -> str | None:
        if self.record.depth is None:
            return None
        if isinstance(self.record.depth, list):
            raise PictureError("depth is not a picture")
        near_hw = depth_picture(decode_depth(self.record.depth), self.record.depth_kind)
        return picture_uri(Image.fromarray((near_hw * 255).astype(np.uint8)), DEPTH_SIDE)


def _png_uri(picture: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
