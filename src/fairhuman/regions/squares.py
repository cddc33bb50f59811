"""Square crops around boxes: close-ups of faces and hands."""

from typing import NamedTuple

from PIL import Image

from fairhuman.record import Box


class Square(NamedTuple):
    """Pixels of an upright picture: columns left .. left + side - 1, rows top .. top + side - 1."""

    left: int
    top: int
    side: int


def square_around(box: Box, width: int, height: int, growth: float) -> Square:
    """The square centred on a box, with `growth` times its longer side, in a picture of width x height pixels.

    A square that would leave the picture is moved inwards. It is never larger than the picture.
    """
    side = min(max(1, round(growth * longer_side(box))), width, height)
    left = round((box.x0 + box.x1 - side) / 2)
    top = round((box.y0 + box.y1 - side) / 2)
    return Square(min(max(left, 0), width - side), min(max(top, 0), height - side), side)


def crop_square(image: Image.Image, square: Square) -> Image.Image:
    """Crop a square from a picture.

    Raises:
        ValueError: the square isn't inside the picture.
    """
    left, top, side = square
    if left < 0 or top < 0 or left + side > image.width or top + side > image.height:
        raise ValueError(f"{square} must lie inside the picture of {image.width} x {image.height} pixels")
    return image.crop((left, top, left + side, top + side))


def longer_side(box: Box) -> float:
    """The longer side of a box in pixels."""
    return max(box.x1 - box.x0, box.y1 - box.y0)
