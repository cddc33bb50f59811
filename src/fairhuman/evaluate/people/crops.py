"""Square crops around faces and hands: what a distance of regions (region FID) is measured on.

A crop has its box in the middle and `GROWTH` times its longer side, so that some of what is around is seen and the
aspect of the part is kept. Where it would leave the picture it is moved inwards, and it is never larger than the
picture: no padding, whose edges a network would see. A box whose longer side has fewer pixels than `MIN_SIDE` gives no
crop: enlarged to the network's input it is a blur in both sets.

What it can't see. A face or hand without a box is left out, so a method whose worst hands aren't found looks better:
the counts belong beside every such distance. Boxes of both sets must come from one detector with the same settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fairhuman.record import Box
from fairhuman.regions.squares import Square, longer_side, square_around

GROWTH = 1.5
MIN_SIDE = 32.0  # pixels


@dataclass(frozen=True, slots=True)
class CropPlan:
    """What is cut out of a set of pictures, and what isn't.

    Attributes:
        crops: (place of the picture in the set, square), in the order of pictures and boxes.
        pictures: how many there are in the set.
        unknown: pictures whose boxes aren't known.
        without_box: pictures known to have none.
        too_small: boxes, not pictures, that are under the least size.

    """

    crops: tuple[tuple[int, Square], ...]
    pictures: int
    unknown: int
    without_box: int
    too_small: int


def plan_crops(
    boxes: Sequence[Sequence[Box] | None],
    sizes: Sequence[tuple[int, int]],
    *,
    growth: float = GROWTH,
    min_side: float = MIN_SIDE,
) -> CropPlan:
    """Squares of all boxes of one region; no picture is opened.

    Args:
        boxes: of each picture, inside of it; None = unknown.
        sizes: (width, height) of each upright picture in pixels.
        growth: side of the square through the longer side of the box.
        min_side: pixels that the longer side of a box has at least.

    Raises:
        ValueError: not as many sizes as pictures; `growth` is below 1 or `min_side` below 1.

    """
    if len(boxes) != len(sizes):
        raise ValueError(f"sizes must have an entry for each of {len(boxes)} pictures, not {len(sizes)}")
    if growth < 1 or min_side < 1:
        raise ValueError(f"growth and min_side must be at least 1, not {growth:g} and {min_side:g}")
    found = [(place, box) for place, known in enumerate(boxes) for box in known or ()]
    large = [(place, box) for place, box in found if longer_side(box) >= min_side]
    return CropPlan(
        crops=tuple((place, square_around(box, *sizes[place], growth)) for place, box in large),
        pictures=len(boxes),
        unknown=sum(known is None for known in boxes),
        without_box=sum(known is not None and not known for known in boxes),
        too_small=len(found) - len(large),
    )
