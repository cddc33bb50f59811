"""Joint resize, crop and flip of a picture with its masks, boxes and conditions: one random draw for all.

The order is: resize so that the picture covers the target, crop to the target, flip. Picture, painted
masks, boxes and conditions all go through `JointTransform.apply` with the same `ViewDraw`, so they stay aligned.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as T

from fairhuman.record import Box

LEAST_ZOOM = 1.25  # of a close-up, relative to the whole view
_ROUNDING = 1e-6  # pixels by which products of floats may miss a whole number


@dataclass(frozen=True, slots=True)
class ViewDraw:
    """The result of one draw: resize to `resized_hw`, crop at (`top`, `left`), mirror if `flip`."""

    resized_hw: tuple[int, int]
    top: int
    left: int
    flip: bool


@dataclass(frozen=True)
class JointTransform:
    """Resize, crop and flip to a fixed resolution.

    Attributes:
        resolution: (height, width) of the result.
        crop: `random` (uniform) or `center`.
        flip_probability: probability of mirroring left and right.
        keep_region: probability that the crop keeps boxes whole in view: the largest first, then every other one
            that still fits (a box larger than the target fills it). A centre crop is moved only as far as this
            requires, and is the same every time if this is 0 or 1.
        zoom: range of an extra enlargement before the crop, drawn uniformly; (1, 1) shows as much of the
            picture as possible.
    """

    resolution: tuple[int, int]
    crop: Literal["random", "center"] = "random"
    flip_probability: float = 0.5
    keep_region: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.resolution) < 1:
            raise ValueError(f"resolution must be positive, not {self.resolution}")
        if self.crop not in ("random", "center"):
            raise ValueError(f"crop must be 'random' or 'center', not {self.crop!r}")
        for name in ("flip_probability", "keep_region"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in 0..1, not {getattr(self, name)}")
        if not 1.0 <= self.zoom[0] <= self.zoom[1] < math.inf:
            raise ValueError(f"zoom must be (low, high) with 1 <= low <= high, not {self.zoom}")

    def draw(self, generator: torch.Generator, size: tuple[int, int], boxes: Sequence[Box] = ()) -> ViewDraw:
        """Draw resize, crop and flip of one sample.

        Args:
            generator: always advanced by six numbers.
            size: (height, width) of the upright picture.
            boxes: candidates for `keep_region`, in pixels of the upright picture.
        """
        draws = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        height, width = size
        target_h, target_w = self.resolution
        low, high = self.zoom
        scale = max(target_h / height, target_w / width) * (low + (high - low) * draws[0])
        resized_hw = (max(target_h, round(height * scale)), max(target_w, round(width * scale)))
        kept = self._by_size(boxes, draws[1]) if draws[2] < self.keep_region else []
        rows, columns = resized_hw[0] / height, resized_hw[1] / width
        spans_y = [(box.y0 * rows, box.y1 * rows) for box in kept]
        spans_x = [(box.x0 * columns, box.x1 * columns) for box in kept]
        return ViewDraw(
            resized_hw,
            top=self._start(resized_hw[0], target_h, spans_y, draws[3]),
            left=self._start(resized_hw[1], target_w, spans_x, draws[4]),
            flip=draws[5] < self.flip_probability,
        )

    def close_up(
        self, whole: ViewDraw, size: tuple[int, int], box: Box, share: float, place: tuple[float, float]
    ) -> ViewDraw | None:
        """Return the view that shows a box large, at a random place, mirrored as the whole view is.

        The box takes `share` of the view's height or width, whichever it fills first. A picture isn't enlarged beyond
        its own pixels; None if the close-up would then show the box less than `LEAST_ZOOM` times larger than `whole`.

        Args:
            whole: the sample's ordinary view.
            size: (height, width) of the upright picture.
            box: in pixels of the upright picture.
            share: in (0, 1].
            place: two uniform numbers in [0, 1), of the crop's top and left.
        """
        (height, width), (target_h, target_w) = size, self.resolution
        wanted = share * min(target_h / max(box.y1 - box.y0, 1.0), target_w / max(box.x1 - box.x0, 1.0))
        scale = min(wanted, 1.0)
        if scale * height < LEAST_ZOOM * whole.resized_hw[0] or scale * width < LEAST_ZOOM * whole.resized_hw[1]:
            return None
        resized_hw = (round(height * scale), round(width * scale))
        rows, columns = resized_hw[0] / height, resized_hw[1] / width
        top = _random_start(resized_hw[0], target_h, (box.y0 * rows, box.y1 * rows), place[0])
        left = _random_start(resized_hw[1], target_w, (box.x0 * columns, box.x1 * columns), place[1])
        return ViewDraw(resized_hw, top, left, whole.flip)

    def apply(self, draw: ViewDraw, items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Apply one draw to everything that belongs to one picture.

        Args:
            draw: from `draw`, for this picture.
            items: any of `tv_tensors.Image` (bicubic, antialiased: picture and image conditions),
                `tv_tensors.Mask` (float, bilinear, antialiased: painted masks, depth; never rounded to 0 or
                1) and `tv_tensors.BoundingBoxes` (see `as_bounding_boxes`; not clamped to the crop, so
                padding and ellipses keep their shape).

        Returns:
            The same names and types, [..., target_h, target_w]; boxes [n, 4] in the frame of the target.

        Raises:
            TypeError: an item is a plain tensor, whose kind of resizing is unknown.
        """
        target_h, target_w = self.resolution
        moved: dict[str, Tensor] = {}
        for name, item in items.items():
            resized = _resize(name, item, draw.resized_hw)
            cropped = T.crop(resized, draw.top, draw.left, target_h, target_w)
            moved[name] = T.horizontal_flip(cropped) if draw.flip else cropped
        return moved

    def time_ids(self, draw: ViewDraw, original_hw: tuple[int, int]) -> tuple[int, int, int, int, int, int]:
        """SDXL's (original_h, original_w, crop_top, crop_left, target_h, target_w) of this draw.

        SDXL counts crops from the left of the picture *as shown*. Here the flip comes after the crop, so a
        flipped crop is mirrored: left' = resized_w - target_w - left, as if the picture had been flipped first.
        """
        target_h, target_w = self.resolution
        left = draw.resized_hw[1] - target_w - draw.left if draw.flip else draw.left
        return (*original_hw, draw.top, left, target_h, target_w)

    def _by_size(self, boxes: Sequence[Box], uniform: float) -> list[Box]:
        """The boxes, the largest first; random crops take boxes of one size in turn, from a uniform number on."""
        first = int(uniform * len(boxes)) if self.crop == "random" else 0
        return sorted([*boxes[first:], *boxes[:first]], key=lambda box: -box.area)

    def _start(self, length: int, target: int, spans: Sequence[tuple[float, float]], uniform: float) -> int:
        """First row (or column) of the crop, from a uniform number in [0, 1).

        It keeps each of `spans` in view that is compatible with those before it.
        """
        low, high = 0, length - target
        for span in spans:
            first, final = _starts(length, target, span)
            if max(low, first) <= min(high, final):
                low, high = max(low, first), min(high, final)
        if self.crop == "center":
            return min(max((length - target) // 2, low), high)
        return low + int(uniform * (high - low + 1))


def _starts(length: int, target: int, span: tuple[float, float]) -> tuple[int, int]:
    """First and last start of a crop that shows a span whole, or that a larger span fills."""
    bounds = (math.ceil(span[1] - _ROUNDING) - target, math.floor(span[0] + _ROUNDING))
    first, last = (min(max(bound, 0), length - target) for bound in sorted(bounds))
    return first, last


def _random_start(length: int, target: int, span: tuple[float, float], uniform: float) -> int:
    first, last = _starts(length, target, span)
    return first + int(uniform * (last - first + 1))


def as_bounding_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Convert boxes of a picture of `size` (height, width) to the input of `JointTransform.apply`, [n, 4] float32."""
    corners_n4 = torch.tensor([[box.x0, box.y0, box.x1, box.y1] for box in boxes], dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(corners_n4, format="XYXY", canvas_size=size, clamping_mode=None)


def in_frame(boxes: Sequence[Box], draw: ViewDraw, size: tuple[int, int]) -> Tensor:
    """Boxes [n, 4] of a picture of `size` (height, width) in the frame of an unmirrored view, not clipped to it."""
    corners_n4 = torch.tensor([[box.x0, box.y0, box.x1, box.y1] for box in boxes], dtype=torch.float64).reshape(-1, 4)
    scale = (draw.resized_hw[1] / size[1], draw.resized_hw[0] / size[0])
    return corners_n4 * corners_n4.new_tensor(scale * 2) - corners_n4.new_tensor((draw.left, draw.top) * 2)


def _resize(name: str, item: Tensor, size: tuple[int, int]) -> Tensor:
    if isinstance(item, tv_tensors.Mask):
        # torchvision treats masks as label maps and takes the nearest neighbour; ours hold coverage or depth.
        values_chw = item.as_subclass(Tensor).reshape(-1, *item.shape[-2:])
        resized = T.resize_image(values_chw, list(size), InterpolationMode.BILINEAR, antialias=True)
        return tv_tensors.wrap(resized.reshape(*item.shape[:-2], *size), like=item)  # type: ignore[no-any-return]
    if isinstance(item, tv_tensors.Image | tv_tensors.BoundingBoxes):
        return T.resize(item, list(size), InterpolationMode.BICUBIC, antialias=True)  # type: ignore[no-any-return]
    raise TypeError(f"{name} must be a tv_tensors Image, Mask or BoundingBoxes, not {type(item).__name__}")
