"""Convert rows of any format to records: the rules shared by all sources."""

import csv
import os
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO, Any, AnyStr, Literal, NamedTuple, get_args

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.pictures.decode import TRANSPARENT, PictureFacts, PictureLimits, inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, picture_name
from fairhuman.data.sources.columns import ONE_MASK, box_columns, unused_columns
from fairhuman.data.sources.counts import PhotoCount
from fairhuman.errors import DataError
from fairhuman.record import (
    CLOSEUP_OF,
    IGNORE,
    REGION_COLUMNS,
    SUBJECT,
    Box,
    DepthKind,
    DerivedMask,
    FileSpan,
    Finding,
    HumanRecord,
    LabelMap,
    MaskSource,
    Stored,
    TableCell,
    mask_picture,
    region_column,
)
from fairhuman.regions.boxes import parse_boxes, shorten
from fairhuman.utils.parse import parse_json

STAGE = "read"
EMPTY_CAPTION = Finding("warned", "caption is empty")
MASK_SIZE = "mask has not the size of its picture"
NO_UNICODE = "column holds characters that are no Unicode"
MAX_REPEATS = 10_000  # an epoch's order is in memory, with a number for each time that a record comes
SAME_SHAPE = 1.02  # ratio of aspects up to which a mask of another trainer, which resizes it, is one of its picture
MAX_TEXT = 2**24  # bytes of a caption, of a line of a table, or of the JSON of one record
MAX_TABLE = 2**31  # bytes of a JSON of all records
_HOLE = bytes(4096)  # what a sparse file holds where nothing was written
CAPTION, TEXT = "caption", "text"  # columns of the caption: ours, and that of many Hugging Face data sets


class SourceSettings(Settings):
    """How to read a source."""

    format: str | None = Field(default=None, description="name of the format; null: detected")
    empty_means: Literal["none", "unknown"] = Field(
        default="none", description="meaning of an empty list of boxes: none in the picture, or not annotated"
    )
    mask: Literal["subject", "ignore"] | None = Field(
        default=None,
        description="meaning of the one mask of other trainers: subject: its white is the region 'subject'; ignore: "
        "what is not white counts for no objective; null: as that trainer has it, which is ignore for all read here",
    )
    alpha: Literal["background", "mask"] = Field(
        default="background",
        description="transparent pixels: laid on white; or mask: that too, and the opacity is the picture's one mask",
    )
    max_reject_share: float = Field(default=0.2, ge=0.0, le=1.0, description="share of records that may be skipped")
    limits: PictureLimits = PictureLimits()


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """Convert errors while a table of records is read: of the operating system, of its encoding, of CSV.

    Raises:
        DataError: the file can't be read, isn't a regular one (reading a pipe would block), or isn't text in its
            encoding or CSV where it must be. Its number of records is unknown, so it can't count as some bad records.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path}: can't be read: not a regular file")
        yield
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        shown = error.object[max(0, error.start - 20) : error.end]
        raise DataError(f"{path}: must be {error.encoding.upper()}, but isn't at {shown!r}") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV table: {error}") from error
    except MemoryError as error:
        raise DataError(f"{path}: takes more memory than there is; split it") from error


def read_limited(path: Path, most: int = MAX_TABLE) -> bytes:
    """All bytes of a table of records.

    Raises:
        DataError: it has more than `most`, a large one has a hole, as no text has, or as `reading_table`.
    """
    with reading_table(path):
        size = path.stat().st_size
        if size > most:
            raise DataError(f"{path}: must have at most {most:,} bytes, found {size:,}")
        if size > MAX_TEXT:
            with path.open("rb") as file:
                if any(_HOLE in part for part in iter(lambda: file.read(MAX_TEXT), b"")):
                    raise DataError(
                        f"{path}: holds {len(_HOLE):,} zero bytes in a row, so it is no text; copy it again"
                    )
        return path.read_bytes()


def read_json(path: Path, most: int = MAX_TABLE, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON of records; arguments as of `read_limited` and `parse_json`.

    Raises:
        DataError: it isn't JSON, or as `read_limited`.
    """
    try:
        return parse_json(read_limited(path, most), object_hook)
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file ({shorten(str(error))})") from error


def limited_lines(path: Path, file: IO[AnyStr]) -> Iterator[AnyStr]:
    """Lines of an open table; a file without ends of lines is never read at once.

    Raises:
        DataError: a line has more than `MAX_TEXT` bytes or characters.
    """
    for number in count(1):
        line = file.readline(MAX_TEXT + 1)
        if len(line) > MAX_TEXT:
            raise DataError(f"{path}: line {number} must have at most {MAX_TEXT:,} bytes, found more")
        if not line:
            return
        yield line


def printable(name: str) -> str:
    """A file name, which may hold bytes that aren't UTF-8, as text that can be written to any file."""
    return name.encode("utf-8", errors="backslashreplace").decode("utf-8")


# Paths may name files that aren't UTF-8; for captions and keys there are rules of their own.
_AS_GIVEN = frozenset({"file_name", "image", "key", CAPTION, TEXT, "pose", "pose_picture", "depth", ONE_MASK})


def in_unicode(values: Mapping[str, Any], location: str, report: LoadReport) -> dict[str, Any]:
    """Columns from JSON, which can encode half a surrogate pair, with `?` for those; no file can hold them.

    Paths, captions and keys stay as they are. What is replaced is noted.
    """
    found = {
        _in_unicode(name): value
        if name in _AS_GIVEN
        else {_in_unicode(region): mask for region, mask in value.items()}
        if name == "masks" and isinstance(value, dict)
        else _in_unicode(value)
        for name, value in values.items()
    }
    if found != values:
        names = ", ".join(name for name, value in found.items() if name not in values or values[name] != value)
        report.add(location, STAGE, Finding("converted", NO_UNICODE, shorten(names)))
    return found


def _in_unicode(value: Any) -> Any:
    """A value of JSON with `?` for each half of a surrogate pair in its texts."""
    if isinstance(value, dict):
        return {_in_unicode(name): _in_unicode(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_unicode(inner) for inner in value]
    return value.encode("utf-8", errors="replace").decode("utf-8") if isinstance(value, str) else value


def with_caption(values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns with `text` renamed to `caption`, unless there is a `caption` that isn't null."""
    if TEXT not in values or values.get(CAPTION) is not None:
        return dict(values)
    return {CAPTION if name == TEXT else name: value for name, value in values.items() if name != CAPTION}


class Row(NamedTuple):
    """The columns of one row of a source, and its location (`file:line`)."""

    location: str
    values: Mapping[str, Any]


def row_key(row: Row, picture_column: str) -> str:
    """A row's key, else the path of its picture, else its location."""
    picture = row.values.get(picture_column)
    path = picture.get("path") if isinstance(picture, Mapping) else picture
    return printable(str(row.values.get("key") or (path if isinstance(path, str | Path) else None) or row.location))


def keyed_rows(rows: Iterable[Row], picture_column: str) -> Iterator[tuple[str, Row]]:
    """Rows with their keys, which are unique: the n-th row with the same key, readable or not, has the suffix #n.

    A suffix that would give the key of an earlier row is left out.
    """
    given: dict[int, int] = {}  # hash of a key to how often it was asked for; keys would take much memory
    for row in rows:
        key = name = row_key(row, picture_column)
        while hash(name) in given:
            given[hash(key)] += 1
            name = f"{key}#{given[hash(key)]}"
        given[hash(name)] = 1
        yield name, row


def records_from_rows(
    rows: Iterable[Row],
    root: Path,
    picture_column: str,
    regions: Sequence[str],
    settings: SourceSettings,
    report: LoadReport,
    also: Sequence[str] = (),
) -> list[HumanRecord]:
    """Convert rows to records; unusable ones are noted in the report and left out, as are columns that nothing uses.

    Paths of pictures and masks are relative to `root`. The picture's column holds a path or {bytes, path}. Regions of
    `also` are read where rows have them.

    Raises:
        DataError: no row has the column of the picture or of a region.
    """
    rows = list(rows)
    columns = sorted({column for row in rows for column in row.values})
    if rows:
        _require_columns(rows, columns, picture_column, regions, settings, root)
    report.unused += unused_columns((row.values for row in rows), picture_column, (*regions, *also))
    records = list(iterate_records(rows, root, picture_column, regions, settings, report, also=also))
    if rows:
        note_whole_source(report, str(root), columns, settings, PhotoCount.of(records))
    return records


def note_whole_source(
    report: LoadReport, place: str, columns: Collection[str], settings: SourceSettings, photos: PhotoCount
) -> None:
    """Note what can be told of all records of a source alone; the report has the notes on each.

    Without a column of captions one note takes the place of those on each record. A setting of the mask of each
    picture needs masks: its own, or those that a build made of it.
    """
    if CAPTION not in columns:
        report.forget(STAGE, EMPTY_CAPTION)
        found = f"columns: {', '.join(sorted(columns))}"
        report.add(place, STAGE, Finding("warned", "no record has a caption", found))
    if settings.mask is not None and not photos.masks:
        found = f"source.mask={settings.mask}"
        report.add(place, STAGE, Finding("warned", "source.mask has no effect, no picture has a mask", found))


def iterate_records(
    rows: Iterable[Row],
    root: Path,
    picture_column: str,
    regions: Sequence[str],
    settings: SourceSettings,
    report: LoadReport,
    captioned: bool = True,
    also: Sequence[str] = (),
) -> Iterator[HumanRecord]:
    """Convert rows to records one by one, like `records_from_rows` but without checks over all rows.

    Args:
        rows, root, picture_column, regions, settings, report, also: as for `records_from_rows`.
        captioned: whether to read captions, and note rows without one.
    """
    for key, row in keyed_rows(rows, picture_column):
        record = RecordReader(row, root, regions, settings, report, also).read(key, picture_column, captioned)
        if record is not None:
            yield record


def _require_columns(
    rows: Sequence[Row],
    columns: list[str],
    picture_column: str,
    regions: Sequence[str],
    settings: SourceSettings,
    root: Path,
) -> None:
    found = f"found the columns {', '.join(columns) or '(none)'}"
    if picture_column not in columns:
        raise DataError(f"{root}: no record has the required column '{picture_column}'; {found}")
    painted = {name for row in rows for name in masks_of(row)}
    one_mask = ONE_MASK in columns or settings.alpha == "mask"
    painted |= {SUBJECT} if one_mask and settings.mask == SUBJECT else set()
    for region in regions:
        column = region_column(region)
        if column not in columns and region not in painted:
            known = {name for name, own in REGION_COLUMNS.items() if own in columns} | painted
            known |= {name for row in rows for name in box_columns(row.values)}
            found = f"its regions are {', '.join(sorted(known))}" if known else found
            raise DataError(
                f"{root}: no record has the region '{region}': neither a column '{column}' of boxes nor "
                f"a mask '{region}' in the column 'masks'; {found}"
                + ("; source.mask=subject makes it of the mask of each picture" if one_mask else "")
                + (
                    ""
                    if region in (SUBJECT, *REGION_COLUMNS)
                    else "; detect.regions of a build finds it by name or by words"
                )
            )


def masks_of(row: Row) -> dict[str, Any]:
    """Painted masks of a row by region name."""
    value = row.values.get("masks")
    return {name: mask for name, mask in value.items() if mask is not None} if isinstance(value, dict) else {}


def one_mask_region(settings: SourceSettings) -> str:
    """Region of a picture's one mask: `subject` if asked for, else `ignore`, inverted, as every trainer that is read
    leaves out what the mask doesn't cover.
    """
    return SUBJECT if settings.mask == SUBJECT else IGNORE


class RecordReader:
    """Converts one row to a record; arguments as of `iterate_records`. Findings are at the row's location."""

    def __init__(
        self,
        row: Row,
        root: Path,
        regions: Sequence[str],
        settings: SourceSettings,
        report: LoadReport,
        also: Sequence[str] = (),
    ) -> None:
        self.row, self.root, self.regions, self.settings, self.report = row, root, regions, settings, report
        self.also = [IGNORE, *also]  # read where the row has them

    def read(self, key: str, picture_column: str, captioned: bool = True) -> HumanRecord | None:
        """The record of this key, or None if the row is skipped."""
        values = self.row.values
        try:
            if values.get(picture_column) is None:
                raise PictureError(f"no {picture_column}", f"has {', '.join(values) or 'nothing'}")
            image = locate(values[picture_column], self.root)
            facts = inspect(image, self.settings.limits)
        except PictureError as error:
            self._note(error.finding)
            return None
        whole = self._one_mask(image, facts)
        self._compare_size(image, facts)
        split, attributes = values.get("split"), self._attributes()
        origin = attributes.get(CLOSEUP_OF)
        return HumanRecord(
            key=key,
            image=image,
            width=facts.width,
            height=facts.height,
            caption=self._caption() if captioned else "",
            boxes={region: self._boxes(region, facts) for region in self._regions_with_boxes()},
            masks=self._masks(facts, whole),
            pose=self._condition("pose" if values.get("pose") is not None else "pose_picture"),
            depth=self._condition("depth"),
            depth_kind=self._depth_kind(),
            source=printable(self.root.name),
            split=None if split is None else str(split),
            attributes=attributes,
            location=self.row.location,
            repeats=self._repeats(),
            origin=origin if isinstance(origin, str) else None,
        )

    def _note(self, finding: Finding) -> None:
        self.report.add(self.row.location, STAGE, finding)

    def _caption(self) -> str:
        value = self.row.values.get(CAPTION)
        if value is not None and not isinstance(value, str):
            self._note(Finding("dropped", "caption is not text", shorten(value)))
            return ""
        if not value or not value.strip():
            self._note(EMPTY_CAPTION)
            return ""
        # JSON can encode half a surrogate pair, which no tokenizer accepts.
        text: str = _in_unicode(value)
        if text != value:
            self._note(Finding("converted", "caption holds characters that are no Unicode", shorten(text)))
        return text

    def _repeats(self) -> int:
        value = self.row.values.get("repeats")
        if value is None:
            return 1
        number = int(value) if isinstance(value, str) and len(value) < 10 and value.strip().isdecimal() else value
        if type(number) is int and 1 <= number <= MAX_REPEATS:
            return number
        large = type(number) is int and number > MAX_REPEATS
        reason = f"repeats is more than {MAX_REPEATS}" if large else "repeats is not a whole number of at least 1"
        self._note(Finding("dropped", reason, shorten(value)))
        return 1

    def _compare_size(self, image: Stored, facts: PictureFacts) -> None:
        stated = (self.row.values.get("width"), self.row.values.get("height"))
        if stated != (None, None) and stated != (facts.width, facts.height):
            shown = f"{picture_name(image)}: {stated[0]}x{stated[1]} stated, {facts.width}x{facts.height} real"
            self._note(Finding("converted", "size was wrong, the picture's own is used", shown))

    def _regions_with_boxes(self) -> list[str]:
        there = [name for name in self.also if self.row.values.get(region_column(name)) is not None]
        return list(dict.fromkeys([*self.regions, *there]))

    def _boxes(self, region: str, facts: PictureFacts) -> tuple[Box, ...] | None:
        value = self.row.values.get(region_column(region))
        boxes, findings = parse_boxes(value, facts.width, facts.height, self.settings.empty_means)
        for finding in findings:
            self._note(finding._replace(value=f"{region_column(region)}: {finding.value}"))
        return boxes

    def _attributes(self) -> dict[str, Any]:
        value = self.row.values.get("attributes")
        if isinstance(value, str):
            try:
                parsed = parse_json(value)
            except ValueError as error:
                self._note(Finding("dropped", "attributes are not JSON", shorten(str(error))))
                return {}
            value = in_unicode({"attributes": parsed}, self.row.location, self.report)["attributes"]
        if value is not None and not isinstance(value, dict):
            self._note(Finding("dropped", "attributes are not a table of names", shorten(value)))
            return {}
        return value or {}

    def _masks(self, facts: PictureFacts, whole: MaskSource | None) -> dict[str, MaskSource]:
        """Painted masks by region; `whole` is that of another trainer."""
        if self.row.values.get("masks") is not None and not isinstance(self.row.values["masks"], dict):
            self._note(
                Finding("dropped", "masks is not a table of name and picture", shorten(self.row.values["masks"]))
            )
        masks: dict[str, MaskSource] = {}
        for region, value in masks_of(self.row).items():
            if region not in self.regions and region not in self.also:
                continue
            mask = self._mask(region, value, facts)
            if mask is not None:
                masks[region] = mask
        region = one_mask_region(self.settings)
        if whole is not None and region in masks:
            self._note(Finding("dropped", "a second mask of one region", region))
        elif whole is not None:
            masks[region] = whole
        return masks

    def _mask(self, region: str, value: Any, facts: PictureFacts, resized: bool = False) -> MaskSource | None:
        """A painted mask, which must have the picture's size or, if it may be `resized`, its shape; None: neither."""
        try:
            mask = locate_mask(value, self.root)
            painted = inspect(mask_picture(mask), self.settings.limits)
            if (painted.width, painted.height) != (facts.width, facts.height):
                shown = f"{painted.width}x{painted.height}, the picture is {facts.width}x{facts.height}"
                stretched = painted.width * facts.height / (painted.height * facts.width)
                if not resized or not 1 / SAME_SHAPE <= stretched <= SAME_SHAPE:
                    raise PictureError(MASK_SIZE, shown)
                self._note(Finding("converted", "mask resized to its picture", shown))
                how = mask if isinstance(mask, DerivedMask) else DerivedMask(mask_picture(mask))
                return replace(how, size=(facts.width, facts.height))
        except PictureError as error:
            self._note(error.finding._replace(action="dropped", value=f"mask of {region}: {error.finding.value}"))
            return None
        return mask

    def _one_mask(self, image: Stored, facts: PictureFacts) -> MaskSource | None:
        """The one mask of another trainer, else the picture's opacity if asked for; notes the picture's conversions."""
        value = self.row.values.get(ONE_MASK)
        given = None if value is None else self._mask("the picture", value, facts, resized=True)
        transparent = any(finding.reason == TRANSPARENT for finding in facts.conversions)
        if given is None and transparent and self.settings.alpha == "mask":
            given = DerivedMask(image, alpha=True)
        kept = isinstance(given, DerivedMask) and given.alpha
        for finding in facts.conversions:
            as_mask = finding._replace(reason="opacity kept as the picture's mask")
            self._note(as_mask if kept and finding.reason == TRANSPARENT else finding)
        if given is None or one_mask_region(self.settings) == SUBJECT:
            return given
        if isinstance(given, DerivedMask):
            return replace(given, inverted=not given.inverted)
        return DerivedMask(mask_picture(given), inverted=True)

    def _depth_kind(self) -> DepthKind:
        value: DepthKind | None = self.row.values.get("depth_kind")
        if value is not None and value not in get_args(DepthKind):
            self._note(Finding("converted", f"depth_kind is none of {', '.join(get_args(DepthKind))}", shorten(value)))
            return "relative"
        return value or "relative"

    def _condition(self, column: str) -> Stored | list[Any] | None:
        """A list (of key points) or a picture, unchanged."""
        value = self.row.values.get(column)
        if value is None or isinstance(value, list):
            return value
        try:
            return locate(value, self.root)
        except PictureError as error:
            self._note(error.finding._replace(action="dropped", value=f"{column}: {error.finding.value}"))
            return None


def locate_mask(value: Any, root: Path) -> MaskSource:
    """Locate a painted mask from a source's value: a picture (see `locate`), or {bytes, path, labels} or, for a
    `DerivedMask`, {bytes, path, alpha, inverted}.

    Raises:
        PictureError: as `locate`; or the labels aren't integers.
    """
    labels = value.get("labels") if isinstance(value, dict) else None
    if labels is None:
        alpha, inverted = (isinstance(value, dict) and value.get(name) is True for name in ("alpha", "inverted"))
        return DerivedMask(locate(value, root), alpha, inverted) if alpha or inverted else locate(value, root)
    if not isinstance(labels, list | tuple) or not all(type(label) is int for label in labels):
        raise PictureError("labels of a mask are not a list of whole numbers", shorten(labels))
    return LabelMap(locate(value, root), tuple(labels))


def locate(value: Any, root: Path) -> Stored:
    """Locate a picture from a source's value: a path relative to `root`, {bytes, path}, bytes, or a span or cell.

    A `Path` is one that the source itself found; unlike a text of the data set's, it may be anywhere. A path may have
    another Unicode form than on disk, as macOS and other systems write é differently.

    Raises:
        PictureError: the value is none of these, or a path (resolved through links) leaves the folder.
    """
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes | FileSpan | TableCell):
        return value
    if isinstance(value, Path):
        return root / value
    if not isinstance(value, str) or not value:
        raise PictureError("neither a path nor a picture", shorten(value))
    try:
        named = root / _form_on_disk(value, root)
        inside = named.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        # a name too long; a loop of links (a RuntimeError before Python 3.13); a null byte, half a surrogate pair
        raise PictureError("not a path", shorten(f"{value!r}: {error}")) from error
    if not inside:
        raise PictureError("path leaves the folder of the data set", shorten(value))
    return named


def _form_on_disk(value: str, root: Path) -> str:
    """The Unicode form of a path that exists, NFC or NFD; the path itself if none does."""
    if value.isascii() or os.path.lexists(root / value):
        return value
    forms = (unicodedata.normalize(form, value) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.lexists(root / form)), value)
