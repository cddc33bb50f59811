"""Square crops around faces and hands, on which region FID and KID are computed.

A crop is centred on its box, with a side of `GROWTH` times the box's longer side, which keeps the aspect ratio and some
context. It is moved inside the picture where necessary and is never larger than the picture, since networks would see
the edges of padding. A box whose longer side is below `MIN_SIDE` gives no crop: enlarged to the network's input, it is
a blur in both sets.

Limits. A face or hand without a box gives no crop, so a method whose worst hands aren't found looks better; report the
counts with every such distance. Boxes of both sets must come from the same detector with the same settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fairhuman.record import Box
from fairhuman.regions.squares import Square, longer_side, square_around

GROWTH = 1.5
MIN_SIDE = 32.0  # pixels


@dataclass(frozen=True, slots=True)
class CropPlan:
    """Crops of a set of pictures, and counts of what gives no crop.

    Attributes:
        crops: (index of the picture, square), in the order of pictures and boxes.
        pictures: number of pictures in the set.
        without_box: pictures without a box.
        too_small: number of boxes (not pictures) below the minimum size.
    """

    crops: tuple[tuple[int, Square], ...]
    pictures: int
    without_box: int
    too_small: int


def plan_crops(
    boxes: Sequence[Sequence[Box]], sizes: Sequence[tuple[int, int]], *, min_side: float = MIN_SIDE
) -> CropPlan:
    """Plan the crops of all boxes of one region, without opening any picture.

    Args:
        boxes: boxes of each picture, inside the picture.
        sizes: (width, height) of each upright picture in pixels.
        min_side: minimum length in pixels of a box's longer side.

    Raises:
        ValueError: the numbers of sizes and pictures differ, or `min_side` is below 1.
    """
    if len(boxes) != len(sizes):
        raise ValueError(f"sizes must have an entry for each of {len(boxes)} pictures, not {len(sizes)}")
    if min_side < 1:
        raise ValueError(f"min_side must be at least 1, not {min_side:g}")
    found = [(place, box) for place, known in enumerate(boxes) for box in known]
    large = [(place, box) for place, box in found if longer_side(box) >= min_side]
    return CropPlan(
        crops=tuple((place, square_around(box, *sizes[place], GROWTH)) for place, box in large),
        pictures=len(boxes),
        without_box=sum(not known for known in boxes),
        too_small=len(found) - len(large),
    )
