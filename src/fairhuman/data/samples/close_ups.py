"""Close-ups among the training samples: a share of them shows one box of a region large, and counts for it alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from fairhuman.record import Box
from fairhuman.regions.transforms import JointTransform, ViewDraw


class CloseUp(NamedTuple):
    """The view of a close-up, its region, and the number of its box among the region's."""

    draw: ViewDraw
    region: str
    number: int


@dataclass(frozen=True)
class CloseUps:
    """Which samples are close-ups.

    Attributes:
        shares: region to the share of samples that are close-ups of it; they sum to less than 1.
        size: range of the share of the view's side that the box takes, drawn uniformly.
    """

    shares: Mapping[str, float]
    size: tuple[float, float]

    def draw(
        self,
        generator: torch.Generator,
        transform: JointTransform,
        whole: ViewDraw,
        size: tuple[int, int],
        boxes: Mapping[str, Sequence[Box]],
    ) -> CloseUp | None:
        """Draw one sample's close-up; None: it shows its whole view.

        That is so for the rest of the samples, and where the picture has no box of the region, or too few pixels of it.

        Args:
            generator: always advanced by five numbers.
            transform: of the sample.
            whole: the sample's ordinary view.
            size: (height, width) of the upright picture.
            boxes: by region, in pixels of the upright picture.
        """
        chosen, number, share, *place = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        region = self._region(chosen)
        own = boxes.get(region, ()) if region is not None else ()
        if region is None or not own:
            return None
        index = int(number * len(own))
        low, high = self.size
        draw = transform.close_up(whole, size, own[index], low + (high - low) * share, (place[0], place[1]))
        return None if draw is None else CloseUp(draw, region, index)

    def possible(
        self, transform: JointTransform, whole: ViewDraw, size: tuple[int, int], boxes: Mapping[str, Sequence[Box]]
    ) -> dict[str, tuple[int, int]]:
        """Return for each region its number of boxes, and of those that a close-up can show."""
        most = self.size[1]
        return {
            region: (
                len(own := boxes.get(region, ())),
                sum(transform.close_up(whole, size, box, most, (0.0, 0.0)) is not None for box in own),
            )
            for region in self.shares
        }

    def _region(self, uniform: float) -> str | None:
        end = 0.0
        for region, share in self.shares.items():
            end += share
            if uniform < end:
                return region
        return None
