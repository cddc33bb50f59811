"""Sizes of a source's pictures from their headers, to see what filters of size would leave out before any work."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairhuman.data.pictures.decode import inspect
from fairhuman.data.pictures.filters import FilterSettings, Measures, active_filters
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pictures.thresholds import Harm, harms
from fairhuman.data.sources import SourceSettings, source_format
from fairhuman.data.sources.columns import CONDITION_COLUMNS, box_columns
from fairhuman.data.sources.counts import PhotoCount
from fairhuman.data.sources.rows import Row, locate
from fairhuman.errors import DataError
from fairhuman.record import FileSpan
from fairhuman.report.text import plural

HEADERS = 2000  # headers that are read, of rows that are evenly spaced


@dataclass(frozen=True)
class SourceFacts:
    """What a source holds, without decoding a picture.

    Attributes:
        path, kind: the source and its format.
        photos: counts of rows, with their masks and repeats; `report` has findings about lines that give no row.
        own_regions: columns with boxes of the source's own regions.
        conditions: number of rows with a pose or a depth map.
        sizes: of up to 2,000 pictures.
        certain: whether these are all pictures that can be read, and the sizes come from their headers.
    """

    path: Path
    kind: str
    photos: PhotoCount
    report: LoadReport
    own_regions: tuple[str, ...]
    conditions: int
    sizes: tuple[Measures, ...]
    certain: bool

    def harms(self, filters: FilterSettings) -> list[Harm]:
        """Filters of size that would leave out more than 90 % of the pictures looked at.

        Raises:
            DataError: it is certain that no picture would be left.
        """
        rules = active_filters(filters, ())
        found = harms(rules, self.sizes)
        left = any(all(rule.judge(size) is None for rule in rules) for size in self.sizes)
        if self.sizes and self.certain and not left:
            lines = "; ".join(harm.line for harm in found)
            raise DataError(f"{self.path}: every record would be rejected: {lines}")
        return [harm for harm in found if harm.harsh]

    def unused_conditions(self, estimated: bool) -> list[str]:
        """A line where poses or depth maps don't come along, as they do where conditions are `estimated`."""
        if estimated or not self.conditions:
            return []
        rows = plural(self.conditions, "row")
        return [f"{rows} with a pose or depth map, which isn't kept; to keep it, add condition.pose=none"]


def look_at_source(path: Path, kind: str, settings: SourceSettings) -> SourceFacts:
    """List a source and read headers of its pictures.

    Raises:
        DataError: the source can't be read.
    """
    source, report, own = source_format(kind), LoadReport(), set[str]()
    root = path if path.is_dir() else path.parent
    chosen: list[Row] = []
    photos, conditions, step = PhotoCount(), 0, 1
    for number, row in enumerate(source.read(path, report), start=1):
        photos.add_row(row.values)
        own.update(box_columns(row.values))
        conditions += any(row.values.get(name) is not None for name in CONDITION_COLUMNS)
        if (number - 1) % step == 0:
            chosen.append(row)
        if len(chosen) > HEADERS:  # keep every second one, so that they stay evenly spaced
            chosen, step = chosen[::2], 2 * step
    sizes, certain = _sizes(chosen, root, source.picture, settings)
    return SourceFacts(path, kind, photos, report, tuple(sorted(own)), conditions, tuple(sizes), certain and step == 1)


def _sizes(rows: Iterable[Row], root: Path, picture: str, settings: SourceSettings) -> tuple[list[Measures], bool]:
    """Sizes of pictures, and whether all come from headers; pictures that can't be read are left out."""
    sizes, certain = [], True
    for row in rows:
        try:
            stored = locate(row.values.get(picture), root)
            if isinstance(stored, Path | FileSpan):
                facts = inspect(stored, settings.limits)
                sizes.append(Measures(facts.width, facts.height))
                continue
        except PictureError:
            continue
        certain = False  # a header in a table means to read many pictures
        width, height = row.values.get("width"), row.values.get("height")
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            sizes.append(Measures(width, height))
    return sizes, certain
