"""Where a part is cut out, what of it is redrawn, and how that is laid back without a seam.

weight w = 1 within the box and its margin, falling smoothly to 0 over the feather, 0 beyond and outside of the crop
result   = round(w new + (1 - w) old) where w > 0, old, bit for bit, where w = 0
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.detect.detection import Picture
from fairhuman.record import Box
from fairhuman.regions.squares import Square, square_around

Weights = NDArray[np.float32]

MOST_ENLARGED = 2  # a crop is redrawn at its own side up to so many times the least side; a larger one is reduced


@dataclass(frozen=True, slots=True, eq=False)
class RefineCrop:
    """One part of a picture, to be redrawn.

    Attributes:
        square: its pixels.
        worked: side at which it is redrawn, a multiple of the grid.
        weight_hw: of the new pixels, float32 in 0..1, of the square's size.

    """

    square: Square
    worked: int
    weight_hw: Weights

    def cut(self, picture: Picture) -> Image.Image:
        """The square of a picture [H, W, 3] at the side at which it is redrawn."""
        left, top, side = self.square
        return self.resized(Image.fromarray(picture[top : top + side, left : left + side]), self.worked)

    def mask(self) -> Image.Image:
        """What may be redrawn: white wherever the weight isn't 0, mode L, at the side at which it is redrawn."""
        white = Image.fromarray(((self.weight_hw > 0) * 255).astype(np.uint8))
        return white.resize((self.worked, self.worked), Image.Resampling.NEAREST)

    def lay(self, pixels: NDArray[np.generic], redrawn: Image.Image) -> NDArray[np.generic]:
        """A copy of a picture's pixels [H, W, C] or [H, W], uint8 or uint16, with the redrawn square in it.

        Grey pixels get the redrawn square's luminance; of four channels the last, or of two, alpha, stays.
        """
        left, top, side = self.square
        new_hwc = _as(self.resized(redrawn, side), pixels)
        result = pixels.copy()
        region = result[top : top + side, left : left + side]
        colours = region if region.ndim == 2 else region[..., : new_hwc.shape[2]]
        weight = self.weight_hw if region.ndim == 2 else self.weight_hw[..., None]
        mixed = np.rint(colours + weight.astype(np.float64) * (new_hwc - colours.astype(np.float64)))
        colours[...] = np.where(weight > 0, mixed, colours).astype(pixels.dtype)
        return result

    @staticmethod
    def resized(picture: Image.Image, side: int) -> Image.Image:
        """A square picture at another side, by Lanczos; itself where that is its own."""
        return picture if picture.width == side else picture.resize((side, side), Image.Resampling.LANCZOS)


def plan_crop(
    box: Box, size: tuple[int, int], *, context: float, margin: float, feather: float, least: int, grid: int
) -> RefineCrop:
    """The crop of a box in a picture of (width, height).

    Args:
        box: inside of the picture.
        size: width and height of the upright picture.
        context: side of the square through the box's longer side; margin and feather always fit in.
        margin: redrawn beyond the box, as a share of its longer side.
        feather: soft edge beyond that, likewise.
        least: side at which it is redrawn at least, a multiple of `grid`.
        grid: what the side at which it is redrawn is a multiple of.

    """
    longer = max(box.x1 - box.x0, box.y1 - box.y0)
    square = square_around(box, *size, max(context, 1 + 2 * (margin + feather)))
    worked = min(max(least, -(-square.side // grid) * grid), MOST_ENLARGED * least)
    if least <= square.side < MOST_ENLARGED * least and worked <= min(size):
        square = _grown(square, worked, size)  # nothing is resampled then
    return RefineCrop(square, worked, _weights(box, square, size, margin * longer, max(feather * longer, 1.0)))


def _grown(square: Square, side: int, size: tuple[int, int]) -> Square:
    left, top = (
        min(max(start - (side - square.side) // 2, 0), whole - side)
        for start, whole in zip(square[:2], size, strict=True)
    )
    return Square(left, top, side)


def _weights(box: Box, square: Square, size: tuple[int, int], margin: float, feather: float) -> Weights:
    left, top, side = square
    x, y = left + np.arange(side) + 0.5, top + np.arange(side) + 0.5
    beyond_x = np.maximum(np.maximum(box.x0 - x, x - box.x1), 0)
    beyond_y = np.maximum(np.maximum(box.y0 - y, y - box.y1), 0)
    share_hw = 1 - (np.hypot(beyond_x[None, :], beyond_y[:, None]) - margin) / feather
    # A square that is cut off inside of the picture must end softly too; the picture's own edge needs no feather.
    for start, inside, along in ((left, size[0], 1), (top, size[1], 0)):
        steps = np.arange(side) + 0.5
        edge = np.full(side, np.inf)
        if start > 0:
            edge = np.minimum(edge, steps / feather)
        if start + side < inside:
            edge = np.minimum(edge, (side - steps) / feather)
        share_hw = np.minimum(share_hw, edge[None, :] if along else edge[:, None])
    share_hw = share_hw.clip(0, 1)
    return (share_hw**2 * (3 - 2 * share_hw)).astype(np.float32)


def _as(picture: Image.Image, pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """A redrawn RGB picture in the channels and the depth of other pixels, without alpha."""
    grey = pixels.ndim == 2 or pixels.shape[2] == 2
    values = np.asarray(picture.convert("L") if grey else picture).astype(np.float64)
    if pixels.dtype == np.uint16:
        values *= 257
    return values[..., None] if grey and pixels.ndim == 3 else values
