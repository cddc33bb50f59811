"""WebDataset shards: tar files whose members are grouped by key, as written by img2dataset and others.

The key of a member is its folder plus the part of its name before the first dot; members with the same key are
consecutive (https://github.com/webdataset/webdataset, `tariterators.py`). A sample's first picture, `.txt` (the
caption), `.json` (the columns of imagefolder; from img2dataset also `url` and `status`), `mask.REGION.png`,
`pose.png` and `depth.png` are read. Rows refer to pictures by their spans in the tar, without reading them.
"""

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import PICTURE_SUFFIXES
from fairhuman.data.sources.rows import MAX_TEXT, STAGE, Row, in_unicode, printable, reading_table
from fairhuman.errors import DataError
from fairhuman.record import FileSpan, Finding
from fairhuman.regions.boxes import shorten
from fairhuman.utils.parse import parse_json

TARS = ("*.tar", "*.tar.gz", "*.tgz")
BLOCK = 512
MAX_HEADER = 2**20  # bytes of a long name or of extended headers, which `tarfile` reads at once
META = re.compile(r"__[^/]*__($|/)")  # ignored by default by the webdataset library
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
MASK = re.compile(r"mask\.([^.]+)\.png")
CONDITIONS = {"pose.png": "pose", "depth.png": "depth"}
DOWNLOAD_COLUMNS = ("url", "status")  # img2dataset's columns about the origin of a picture


def is_webdataset(path: Path) -> bool:
    """Whether a path is a tar, or a folder with one."""
    return bool(_tars(path))


def webdataset_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Samples of one tar, or of all of a folder in the order of their names.

    Raises:
        DataError: a file is a compressed tar or not a tar. Its number of samples is unknown.
    """
    return (row for tar in _tars(path) for row in _rows_of_tar(tar, report))


def _tars(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if any(path.match(pattern) for pattern in TARS) else []
    return sorted(tar for pattern in TARS for tar in path.glob(pattern))


@dataclass
class _Sample:
    """Members with the same key; `parts` is keyed by the part of the name after the first dot, in lower case."""

    key: str
    parts: dict[str, FileSpan] = field(default_factory=dict)


def _rows_of_tar(tar: Path, report: LoadReport) -> Iterator[Row]:
    ignored: Counter[str] = Counter()
    with reading_table(tar), tar.open("rb") as file:
        for sample in _samples(tar, report):
            location = printable(f"{tar.name}/{sample.key}")
            reader = _SampleReader(sample, location, file, report)
            values = reader.values(key=printable(f"{tar.stem}/{sample.key}"))
            ignored.update(kind for kind in sample.parts if kind not in reader.used)
            if values is not None:
                yield Row(location, values)
    if ignored:
        shown = ", ".join(f"{kind}: {number}" for kind, number in ignored.most_common())
        report.add(tar.name, STAGE, Finding("warned", "members of other kinds are ignored", printable(shorten(shown))))


def _samples(tar: Path, report: LoadReport) -> Iterator[_Sample]:
    """Group members by key; files that are hidden, have no suffix or are named `__like_this__` are ignored."""
    sample = _Sample("")
    for name, span in _members(tar, report):
        folder, slash, base = name.rpartition("/")
        stem, _, kind = base.partition(".")
        if not stem or not kind or META.match(name):
            continue
        key, kind = folder + slash + stem, kind.lower()
        if key != sample.key:
            if sample.parts:
                yield sample
            sample = _Sample(key)
        if kind in sample.parts:
            report.add(_place(tar, name), STAGE, Finding("dropped", "a second member of one name and ending"))
        else:
            sample.parts[kind] = span
    if sample.parts:
        yield sample


class _Headers(io.BufferedReader):
    """A tar of which only headers are read."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as an open file does.

        Raises:
            tarfile.ReadError: more than `MAX_HEADER` bytes are asked for.
        """
        size = -1 if size is None else size
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header must have at most {MAX_HEADER:,} bytes, found {size:,}")
        return super().read(size)


def _members(tar: Path, report: LoadReport) -> Iterator[tuple[str, FileSpan]]:
    """Name and span of each complete file, from the headers alone; truncated members and other kinds are noted."""
    length = tar.stat().st_size
    position = -1
    try:
        with _Headers(io.FileIO(tar)) as file, tarfile.open(fileobj=file, mode="r:") as members:
            while (member := members.next()) is not None:
                if members.offset <= position:  # a header can state a negative size
                    raise tarfile.ReadError("a header points back")
                position = members.offset
                members.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    report.add(_place(tar, member.name), STAGE, Finding("dropped", "member is a link or no plain file"))
                elif member.offset_data + member.size > length:
                    report.add(_place(tar, member.name), STAGE, Finding("dropped", "member is cut off"))
                else:
                    yield member.name, FileSpan(tar, member.offset_data, member.size)
            _check_end(tar, members.offset)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # the last: headers of headers
        if position < 0:
            raise DataError(f"{tar}: {_describe_file(tar)} ({error})") from error
        finding = Finding("warned", "tar is cut off or damaged: what follows is not read", shorten(str(error)))
        report.add(tar.name, STAGE, finding)


def _check_end(tar: Path, position: int) -> None:
    """Raise a TarError if `tarfile` stopped before the end marker, which it doesn't report itself."""
    with tar.open("rb") as file:
        file.seek(position)
        block = file.read(BLOCK)
    if block != bytes(BLOCK):
        raise tarfile.ReadError(f"no header and no end mark at byte {position}")


def _describe_file(tar: Path) -> str:
    with tar.open("rb") as file:
        start = file.read(4)
    if start.startswith(COMPRESSED):
        return "is compressed; decompress it first, since pictures are read in place"
    return "not a readable tar file"


def _place(tar: Path, name: str) -> str:
    return printable(f"{tar.name}/{name}")


class _SampleReader:
    """Reads the small members of a sample; `used` holds the suffixes of members that were read or located."""

    def __init__(self, sample: _Sample, location: str, file: BinaryIO, report: LoadReport) -> None:
        self.sample, self.location, self.file, self.report = sample, location, file, report
        self.used: set[str] = set()

    def values(self, key: str) -> dict[str, Any] | None:
        """Columns of the row, or None if there is no picture."""
        pictures = [kind for kind in self.sample.parts if f".{kind}" in PICTURE_SUFFIXES]
        texts = [kind for kind in ("json", "txt") if kind in self.sample.parts]
        self.used.update(pictures, texts)
        if not pictures:
            if texts:
                self._note(Finding("skipped", "sample has no picture", ", ".join(self.sample.parts)))
            return None
        if len(pictures) > 1:
            self._note(Finding("warned", "sample has several pictures, the first is used", ", ".join(pictures)))
        values = {"key": key, **self._fields()}
        if (caption := self._text("txt")) is not None:
            values["caption"] = caption.strip()
        masks = {match[1]: span for kind, span in self.sample.parts.items() if (match := MASK.fullmatch(kind))}
        conditions = {kind: span for kind, span in self.sample.parts.items() if kind in CONDITIONS}
        self.used.update(conditions, (f"mask.{name}.png" for name in masks))
        values |= {CONDITIONS[kind]: span for kind, span in conditions.items()}
        values |= {"masks": masks} if masks else {}
        return {**values, "image": self.sample.parts[pictures[0]]}

    def _fields(self) -> dict[str, Any]:
        """Columns from the JSON; the picture's origin is kept among its attributes."""
        text = self._text("json")
        if text is None:
            return {}
        try:
            values = parse_json(text)
        except ValueError as error:
            self._note(Finding("dropped", "JSON of a sample can't be read", shorten(str(error))))
            return {}
        if not isinstance(values, dict):
            self._note(Finding("dropped", "JSON of a sample is not an object", shorten(values)))
            return {}
        if "\\u" in text:
            return self._with_origin(in_unicode(values, self.location, self.report))
        return self._with_origin(values)

    def _with_origin(self, values: dict[str, Any]) -> dict[str, Any]:
        """The columns with those about the picture's origin among its attributes."""
        origin = {name: values.pop(name) for name in DOWNLOAD_COLUMNS if name in values}
        attributes = values.get("attributes")
        if origin and isinstance(attributes, str):
            with suppress(ValueError):  # is told where the row is read
                parsed = {"attributes": parse_json(attributes)}
                attributes = in_unicode(parsed, self.location, self.report)["attributes"]
        if origin and isinstance(attributes, dict | None):
            values["attributes"] = {**origin, **(attributes or {})}
        return values

    def _text(self, kind: str) -> str | None:
        span = self.sample.parts.get(kind)
        if span is None:
            return None
        if span.length > MAX_TEXT:
            self._note(Finding("dropped", "text of a sample is too long", f".{kind} has {span.length} bytes"))
            return None
        self.file.seek(span.offset)
        try:
            return self.file.read(span.length).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._note(Finding("dropped", "text of a sample is not UTF-8", f".{kind}, byte {error.start + 1}"))
            return None

    def _note(self, finding: Finding) -> None:
        self.report.add(self.location, STAGE, finding)
