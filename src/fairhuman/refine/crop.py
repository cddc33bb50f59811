"""The crop of a part, the mask of what is redrawn, and seamless blending.

weight w = 1 within the box and its margin, falls smoothly to 0 over the feather, and is 0 beyond
result   = round(w new + (1 - w) old) where w > 0; old, bit for bit, where w = 0
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.detect.detection import Picture
from fairhuman.record import Box
from fairhuman.regions.squares import Square, square_around

Weights = NDArray[np.float32]

MAX_WORKED_RATIO = 2  # a crop is redrawn at its own size up to this multiple of the least side; larger ones are reduced


@dataclass(frozen=True, slots=True, eq=False)
class RefineCrop:
    """The crop around one part that is redrawn.

    Attributes:
        square: position of the crop in pixels.
        worked: working size: side in pixels at which it is redrawn, a multiple of the grid.
        weight_hw: blending weight of the new pixels, float32 in 0..1, at the square's size.
    """

    square: Square
    worked: int
    weight_hw: Weights

    def cut(self, picture: Picture) -> Image.Image:
        """Cut the square from a picture [H, W, 3], at working size."""
        left, top, side = self.square
        return self.resized(Image.fromarray(picture[top : top + side, left : left + side]), self.worked)

    def mask(self) -> Image.Image:
        """Inpainting mask at working size, mode L: white wherever the weight isn't 0."""
        white = Image.fromarray(((self.weight_hw > 0) * 255).astype(np.uint8))
        return white.resize((self.worked, self.worked), Image.Resampling.NEAREST)

    def paste(self, pixels: NDArray[np.generic], redrawn: Image.Image) -> NDArray[np.generic]:
        """A copy of a picture's pixels [H, W, C] or [H, W], uint8 or uint16, with the redrawn square blended in.

        Grey pixels take the luminance of the redrawn square; an alpha channel (the last of two or four) stays
        unchanged.
        """
        left, top, side = self.square
        new_hwc = _as(self.resized(redrawn, side), pixels)
        result = pixels.copy()
        region = result[top : top + side, left : left + side]
        colours = region if region.ndim == 2 else region[..., : new_hwc.shape[2]]
        weight = self.weight_hw if region.ndim == 2 else self.weight_hw[..., None]
        below = colours.astype(np.float64)
        mixed = np.rint(below + weight.astype(np.float64) * (new_hwc - below))
        colours[...] = np.where(weight > 0, mixed, colours).astype(pixels.dtype)
        return result

    @staticmethod
    def resized(picture: Image.Image, side: int) -> Image.Image:
        """A square picture resized with Lanczos; returned as it is if it has that side."""
        return picture if picture.width == side else picture.resize((side, side), Image.Resampling.LANCZOS)


def plan_crop(
    box: Box,
    size: tuple[int, int],
    *,
    context: float,
    margin: float,
    feather: float,
    least: int,
    grid: int,
    mask_hw: NDArray[np.bool_] | None = None,
) -> RefineCrop:
    """Plan the crop of a box.

    Args:
        box: box inside the picture.
        size: width and height of the upright picture.
        context: side of the square divided by the box's longer side; enlarged if margin and feather need more.
        margin: fully redrawn margin around the box, as a fraction of its longer side.
        feather: width of the soft edge around the margin, as a fraction of the box's longer side.
        least: minimum working size, a multiple of `grid`.
        grid: working sizes are multiples of this.
        mask_hw: pixels of the whole picture to redraw instead of all of the box.
    """
    longer = max(box.x1 - box.x0, box.y1 - box.y0)
    square = square_around(box, *size, max(context, 1 + 2 * (margin + feather)))
    worked = min(max(least, -(-square.side // grid) * grid), MAX_WORKED_RATIO * least)
    if least <= square.side < MAX_WORKED_RATIO * least and worked <= min(size):
        square = _grown(square, worked, size)  # avoids resampling
    left, top, side = square
    beyond_hw = _beyond(box, square) if mask_hw is None else _beyond_mask(mask_hw[top : top + side, left : left + side])
    weight_hw = _weights(beyond_hw, square, size, margin * longer, max(feather * longer, 1.0))
    return RefineCrop(square, worked, weight_hw)


def _grown(square: Square, side: int, size: tuple[int, int]) -> Square:
    left, top = (
        min(max(start - (side - square.side) // 2, 0), whole - side)
        for start, whole in zip(square[:2], size, strict=True)
    )
    return Square(left, top, side)


def _beyond(box: Box, square: Square) -> NDArray[np.float64]:
    """Distance of each pixel of the square from the box, 0 inside."""
    left, top, side = square
    x, y = left + np.arange(side) + 0.5, top + np.arange(side) + 0.5
    beyond_x = np.maximum(np.maximum(box.x0 - x, x - box.x1), 0)
    beyond_y = np.maximum(np.maximum(box.y0 - y, y - box.y1), 0)
    return np.asarray(np.hypot(beyond_x[None, :], beyond_y[:, None]))


def _beyond_mask(mask_hw: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of each pixel from the mask, 0 inside."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask_hw), dtype=np.float64)


def _weights(
    beyond_hw: NDArray[np.float64], square: Square, size: tuple[int, int], margin: float, feather: float
) -> Weights:
    left, top, side = square
    share_hw = 1 - (beyond_hw - margin) / feather
    # The square's edges inside the picture need a feather too; edges that coincide with the picture's don't.
    for start, inside, along in ((left, size[0], 1), (top, size[1], 0)):
        steps = np.arange(side) + 0.5
        edge = np.full(side, np.inf)
        if start > 0:
            edge = np.minimum(edge, steps / feather)
        if start + side < inside:
            edge = np.minimum(edge, (side - steps) / feather)
        share_hw = np.minimum(share_hw, edge[None, :] if along else edge[:, None])
    share_hw = share_hw.clip(0, 1)
    return np.asarray(share_hw**2 * (3 - 2 * share_hw), dtype=np.float32)


def _as(picture: Image.Image, pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """A redrawn RGB picture converted to the channels (without alpha) and bit depth of `pixels`."""
    grey = pixels.ndim == 2 or pixels.shape[2] == 2
    values = np.asarray(picture.convert("L") if grey else picture).astype(np.float64)
    if pixels.dtype == np.uint16:
        values *= 257
    return values[..., None] if grey and pixels.ndim == 3 else values
