"""How much of the pictures' area counts for no objective, and the regions that lie in it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.pictures.decode import DEFAULT_LIMITS, PictureLimits, decode_mask
from fairhuman.data.pictures.stored import PictureError
from fairhuman.record import IGNORE, Box, HumanRecord, region_column
from fairhuman.report.text import percent, whole_percent

MOST = 200  # pictures of a data set whose masks are decoded for this
MOSTLY = 0.5  # share of a box, of a region's boxes, and of the area by masks, above which there is advice
_WAY_OUT = "source.mask=subject counts the whole picture and makes the masks an objective beside it"


class IgnoredArea:
    """The mean share of a picture's area that is ignored, and how many boxes of each region are mostly ignored.

    Args:
        ignored: the regions that count for no objective.
        regions: whose boxes are looked at; None: those of each record.
        limits: of the pictures of masks.
    """

    def __init__(
        self,
        ignored: Sequence[str] = (IGNORE,),
        regions: Sequence[str] | None = None,
        limits: PictureLimits = DEFAULT_LIMITS,
    ) -> None:
        self._ignored, self._regions, self._limits = ignored, regions, limits
        self._pictures, self._masks, self._area = 0, 0.0, 0.0  # the area by masks, and by masks and boxes
        self._boxes: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()

    @classmethod
    def of(
        cls, records: Sequence[HumanRecord], ignored: Sequence[str], regions: Sequence[str], limits: PictureLimits
    ) -> "IgnoredArea":
        """Look at the records, of many at `MOST` at equal distances; see the class."""
        area = cls(ignored, regions, limits)
        if any(record.has(name) for record in records for name in ignored):
            for record in records[:: -(-len(records) // MOST)]:
                area.add(record)
        return area

    def add(self, record: HumanRecord) -> None:
        """Look at a record, after `move_ignored`; a mask that can't be used counts as none."""
        self._pictures += 1
        painted = [record.masks[name] for name in self._ignored if name in record.masks]
        boxes = [box for name in self._ignored for box in record.boxes.get(name) or ()]
        names = [name for name in (self._regions or record.boxes) if name not in self._ignored]
        self._boxes.update({name: len(record.boxes.get(name) or ()) for name in names})
        if not painted and not boxes:
            return
        ignored_hw = np.zeros((record.height, record.width), np.float32)
        for mask in painted:
            try:
                mask_hw = np.asarray(decode_mask(mask, self._limits), np.float32) / 255.0
            except PictureError:
                continue
            ignored_hw = np.maximum(ignored_hw, mask_hw) if mask_hw.shape == ignored_hw.shape else ignored_hw
        self._masks += float(ignored_hw.mean())
        for box in boxes:
            _part(ignored_hw, box)[:] = 1.0
        self._area += float(ignored_hw.mean())
        for name in names:
            parts = [_part(ignored_hw, box) for box in record.boxes.get(name) or ()]
            self._inside[name] += sum(part.size > 0 and float(part.mean()) > MOSTLY for part in parts)

    def lines(self) -> list[str]:
        """The mean share, and a warning for each region of which more than half of the boxes are mostly ignored.

        Where masks ignore more than half of the area, there is always the way out.
        """
        if not self._area:
            return []
        line = f"ignore: {percent(self._area / self._pictures)} of the area counts for no objective"
        advice = f"; {_WAY_OUT}" if self._masks else ""
        warnings = [
            f"warning: {whole_percent(share)} of {region_column(name)} lie mostly in what is ignored{advice}"
            for name, boxes in self._boxes.items()
            if boxes and (share := self._inside[name] / boxes) > MOSTLY
        ]
        return [line + (advice if not warnings and self._masks > MOSTLY * self._pictures else ""), *warnings]


def _part(values_hw: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """The values inside a box, rounded to pixels."""
    return values_hw[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)]
