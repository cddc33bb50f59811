"""Convert boxes to masks with exact areas, and masks to the latent grid."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fairhuman.regions.settings import MaskSettings

ELLIPSE_ROWS = 8  # scan lines per pixel row to compute the coverage of an ellipse


def boxes_to_mask(boxes_n4: Tensor, size: tuple[int, int], settings: MaskSettings | None = None) -> Tensor:
    """Draw the union of boxes.

    Args:
        boxes_n4: (x0, y0, x1, y1) in pixels of the target frame, float; parts outside the frame are ignored.
        size: (height, width) of the mask.
        settings: shape, padding and edge; the plain rectangle by default.

    Returns:
        float32 [height, width] in 0..1: the share of each pixel that the region covers; for one rectangle
        exactly clip(min(x1, j+1) - max(x0, j), 0, 1) · clip(min(y1, i+1) - max(y0, i), 0, 1). The union of
        boxes is their maximum, so an overlap counts once. With a soft edge, parts of boxes outside the frame
        blur into it; the blurred mask is never thresholded.
    """
    if boxes_n4.ndim != 2 or boxes_n4.shape[1] != 4:
        raise ValueError(f"boxes_n4 must have the shape [n, 4], not {list(boxes_n4.shape)}")
    settings = settings or MaskSettings()
    margin = math.ceil(3 * settings.soft_edge)
    height, width = size[0] + 2 * margin, size[1] + 2 * margin
    draw = _rectangle if settings.shape == "rectangle" else _ellipse
    mask_hw = torch.zeros(height, width)
    for x0, y0, x1, y1 in boxes_n4.double().tolist():
        outset = settings.padding * max(x1 - x0, y1 - y0)
        low, high = margin - outset, margin + outset
        _paint(mask_hw, draw, (x0 + low, y0 + low, x1 + high, y1 + high))
    return _soften(mask_hw, settings.soft_edge, margin) if margin else mask_hw


def union(masks: Sequence[Tensor]) -> Tensor:
    """Union of masks of one region, painted or drawn: their maximum, so an overlap counts once."""
    if not masks:
        raise ValueError("masks must hold at least one mask")
    return torch.stack(list(masks)).amax(dim=0)


def without(masks_rhw: Tensor, ignored_hw: Tensor) -> Tensor:
    """Masks [r, h, w] without what is ignored: m (1 - i), so a soft edge of one lowers the other."""
    return masks_rhw * (1.0 - ignored_hw)


def to_latent_grid(masks_brhw: Tensor, factor: int) -> Tensor:
    """Average-pool masks to the latent grid.

    A region keeps its area, Σ out · factor² = Σ in, however small it is. (The published code takes the
    nearest of every eight pixels and so can lose hands smaller than 8 px.)

    Args:
        masks_brhw: float in 0..1, [batch, regions, height, width], at image resolution.
        factor: downscaling factor of the VAE (image pixels per latent cell, each side); an integer ≥ 1.

    Returns:
        [batch, regions, height / factor, width / factor].

    Raises:
        ValueError: a side isn't a multiple of the factor.
    """
    if masks_brhw.ndim != 4:
        raise ValueError(f"masks_brhw must have four dimensions, not the shape {list(masks_brhw.shape)}")
    height, width = masks_brhw.shape[2:]
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"masks_brhw must have sides that are multiples of the VAE factor {factor}, not {height}x{width}"
        )
    return F.avg_pool2d(masks_brhw, factor) if masks_brhw.shape[1] else masks_brhw[:, :, ::factor, ::factor]


def _paint(mask_hw: Tensor, draw: Callable[..., Tensor], box: tuple[float, float, float, float]) -> None:
    """Draw one shape into a mask, touching only the pixels of its box."""
    height, width = mask_hw.shape
    left, right = (min(max(edge, 0), width) for edge in (math.floor(box[0]), math.ceil(box[2])))
    top, bottom = (min(max(edge, 0), height) for edge in (math.floor(box[1]), math.ceil(box[3])))
    if left < right and top < bottom:
        moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        window_hw = mask_hw[top:bottom, left:right]
        window_hw.copy_(union([window_hw, draw(*moved, bottom - top, right - left).float()]))


def _soften(mask_hw: Tensor, sigma: float, margin: int) -> Tensor:
    """Blur by a Gaussian truncated at three sigma (= the margin), then crop the margin."""
    weights = torch.exp(-0.5 * (torch.arange(-margin, margin + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    blurred = F.conv2d(F.conv2d(mask_hw[None, None], weights[None, None, :, None]), weights[None, None, None, :])
    return blurred[0, 0].clamp(0.0, 1.0)


def _covered(low: Tensor | float, high: Tensor | float, cells: int) -> Tensor:
    """Share of each unit cell 0..cells-1 that the interval [low, high] covers; float64 [..., cells]."""
    edges = torch.arange(cells, dtype=torch.float64)
    low, high = torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)
    return (torch.minimum(high[..., None], edges + 1) - torch.maximum(low[..., None], edges)).clamp(0.0, 1.0)


def _rectangle(x0: float, y0: float, x1: float, y1: float, height: int, width: int) -> Tensor:
    """Exact coverage of a rectangle, [height, width]."""
    return _covered(y0, y1, height)[:, None] * _covered(x0, x1, width)[None, :]


def _ellipse(x0: float, y0: float, x1: float, y1: float, height: int, width: int) -> Tensor:
    """Coverage of the ellipse inscribed in a box: exact along x, sampled at ELLIPSE_ROWS lines per pixel row."""
    rows = (torch.arange(height * ELLIPSE_ROWS, dtype=torch.float64) + 0.5) / ELLIPSE_ROWS
    unit = (rows - (y0 + y1) / 2) / max((y1 - y0) / 2, 1e-9)
    half = (1 - unit.square()).clamp(min=0.0).sqrt() * (x1 - x0) / 2
    middle = (x0 + x1) / 2
    return _covered(middle - half, middle + half, width).view(height, ELLIPSE_ROWS, width).mean(dim=1)
