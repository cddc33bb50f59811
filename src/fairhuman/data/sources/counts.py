"""How many photos a data set has, with how many masks of whole photos, and how often an epoch contains them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairhuman.data.sources.columns import ONE_MASK
from fairhuman.record import IGNORE, SUBJECT, HumanRecord
from fairhuman.report.text import plural

ALIKE = 4  # pictures that share a caption, on average, from which on it is told


def alike_captions(captions: Sequence[str], whose: str = "") -> list[str]:
    """A line if few of the captions differ, such as `40 captions: 1 different text, 'a person'`; else nothing.

    Empty captions don't count. `whose` says who wrote them.
    """
    texts = [text for caption in captions if (text := caption.strip())]
    different = set(texts)
    if not texts or len(texts) < ALIKE * len(different):
        return []
    only = f", {texts[0]!r}" if len(different) == 1 else ""
    return [f"{plural(len(texts), 'caption')}{whose}: {plural(len(different), 'different text')}{only}"]


@dataclass
class PhotoCount:
    """Counts of photos.

    Attributes:
        photos: number of photos; repeats don't count.
        masks: number of photos with a mask `subject` or `ignore`, as other trainers have one a photo.
        samples: number of photos with their repeats, in an epoch.
        least, most: of all repeats.
    """

    photos: int = 0
    masks: int = 0
    samples: int = 0
    least: int = 1
    most: int = 1

    @classmethod
    def of(cls, records: Iterable[HumanRecord]) -> "PhotoCount":
        """Count records."""
        count = cls()
        for record in records:
            count.add_record(record)
        return count

    def add_record(self, record: HumanRecord) -> None:
        """Count a record."""
        self.add(IGNORE in record.masks or SUBJECT in record.masks, record.repeats)

    def add_row(self, values: Mapping[str, Any]) -> None:
        """Count a row of a source, whose values aren't checked."""
        repeats = values.get("repeats")
        self.add(values.get(ONE_MASK) is not None, repeats if isinstance(repeats, int) and repeats > 0 else 1)

    def add(self, masked: bool, repeats: int) -> None:
        """Count a photo."""
        self.least = min(self.least, repeats) if self.photos else repeats
        self.most = max(self.most, repeats)
        self.photos += 1
        self.masks += masked
        self.samples += repeats

    def lines(self) -> list[str]:
        """A line if there are masks or repeats, such as `12 photos with 12 masks; repeats 10: 120 with repeats`."""
        if not self.masks and self.most == 1:
            return []
        masks = f" with {plural(self.masks, 'mask')}" if self.masks else ""
        span = str(self.most) if self.least == self.most else f"{self.least} to {self.most}"
        repeats = f"; repeats {span}: {self.samples} with repeats" if self.most > 1 else ""
        return [f"{plural(self.photos, 'photo')}{masks}{repeats}"]
