"""What a view leaves of the regions of a picture: masks, boxes, and whether it shows them whole."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairhuman.regions.masks import boxes_to_mask
from fairhuman.regions.settings import MaskSettings

_EDGE = 0.5  # pixels by which a box may exceed the view and still count as whole: crops start at whole pixels
_SIDES = {"left": "right", "right": "left"}


class RegionsInView(NamedTuple):
    """The regions of a sample.

    masks_rhw: float32 in 0..1.
    known_r: bool, whether the region is annotated and enough of it is in view.
    boxes: by region, (x0, y0, x1, y1) in pixels of the view, clipped to it.
    whole_r2: int64, the boxes of the picture, and those that are whole in view.
    """

    masks_rhw: Tensor
    known_r: Tensor
    boxes: dict[str, list[tuple[float, ...]]]
    whole_r2: Tensor

    def mirrored(self, names: Sequence[str]) -> "RegionsInView":
        """The regions of a mirrored view: of `left_hand` and `right_hand`, each is the other, if both are named."""
        order = [names.index(other) if (other := other_side(name)) in names else r for r, name in enumerate(names)]
        boxes = {name: self.boxes[names[r]] for name, r in zip(names, order, strict=True)}
        return RegionsInView(self.masks_rhw[order], self.known_r[order], boxes, self.whole_r2[order])


def other_side(region: str) -> str:
    """`right_hand` for `left_hand`, and the other way round; a region of no side is its own."""
    side, _, part = region.partition("_")
    return f"{_SIDES[side]}_{part}" if side in _SIDES and part else region


def regions_in_view(
    names: Sequence[str],
    annotated: Mapping[str, bool],
    boxes: Mapping[str, Tensor],
    painted: Mapping[str, tuple[Tensor, float]],
    view: tuple[int, int],
    masks: MaskSettings,
    min_in_view: float = 0.0,
) -> RegionsInView:
    """Return what is in a view of (height, width).

    A region of which less than `min_in_view` (0..1, by area) is left is treated as not annotated: half a face would
    teach the model that faces end there.

    Args:
        names: the regions, in the order of r.
        annotated: whether a region is annotated in the picture.
        boxes: [n, 4] of each region in the frame of the view, not clipped.
        painted: mask [H, W] in the view of each painted region, and the pixels that it would cover uncropped.
        view: height and width.
        masks: how boxes are drawn.
        min_in_view: see above.
    """
    masks_rhw = torch.zeros(len(names), *view)
    known_r = torch.tensor([annotated[name] for name in names], dtype=torch.bool)
    whole_r2 = torch.zeros(len(names), 2, dtype=torch.int64)
    seen: dict[str, list[tuple[float, ...]]] = {}
    for r, name in enumerate(names):
        boxes_n4 = boxes[name]
        whole_r2[r] = torch.tensor([len(boxes_n4), int(whole_in_view(boxes_n4, view).sum())])
        if name in painted:
            mask_hw, full = painted[name]
            masks_rhw[r] = mask_hw.clamp(0, 1)  # interpolation may exceed 0..1 by rounding
            left = float(masks_rhw[r].sum()) / full if full > 0 else 1.0
        else:
            masks_rhw[r] = boxes_to_mask(boxes_n4, view, masks)
            left = share_in_view(boxes_n4, view)
        seen[name] = [tuple(box) for box in _clipped(boxes_n4, view) if box[2] > box[0] and box[3] > box[1]]
        if left < min_in_view:
            masks_rhw[r], known_r[r], seen[name] = 0.0, False, []
    return RegionsInView(masks_rhw, known_r, seen, whole_r2)


def whole_in_view(boxes_n4: Tensor, view: tuple[int, int]) -> Tensor:
    """Bool [n]: which boxes, in the frame of the view, are whole in it, up to half a pixel."""
    height, width = view
    low_n2, high_n2 = boxes_n4[:, :2], boxes_n4[:, 2:] - boxes_n4.new_tensor([width, height])
    return (low_n2 >= -_EDGE).all(dim=1) & (high_n2 <= _EDGE).all(dim=1)


def any_in_view(boxes_n4: Tensor, view: tuple[int, int]) -> Tensor:
    """Bool [n]: which boxes are at least partly in the view."""
    height, width = view
    return (boxes_n4[:, 2:] > 0).all(dim=1) & (boxes_n4[:, :2] < boxes_n4.new_tensor([width, height])).all(dim=1)


def share_in_view(boxes_n4: Tensor, view: tuple[int, int]) -> float:
    """Share of the boxes' total area, 0..1, that is in view; 1 without boxes."""
    full = float(_areas(boxes_n4).sum())
    height, width = view
    edges_4 = boxes_n4.new_tensor([width, height, width, height])
    return float(_areas(boxes_n4.clamp(min=0.0).minimum(edges_4)).sum()) / full if full > 0 else 1.0


def _areas(boxes_n4: Tensor) -> Tensor:
    return (boxes_n4[:, 2] - boxes_n4[:, 0]).clamp(min=0) * (boxes_n4[:, 3] - boxes_n4[:, 1]).clamp(min=0)


def _clipped(boxes_n4: Tensor, view: tuple[int, int]) -> list[list[float]]:
    height, width = view
    found: list[list[float]] = (
        boxes_n4.clamp(min=0.0).minimum(boxes_n4.new_tensor([width, height, width, height])).tolist()
    )
    return found
