"""How much memory the columns of a Parquet file can take, from the headers of their pages.

What the footer says of sizes isn't used by a reader, so a false one costs nothing. The headers of the pages are used:
https://parquet.apache.org/docs/file-format/data-pages/; they are structs of Thrift's compact protocol,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow

MAX_DECODED = 2**29  # bytes that a small file may take in memory at once
MAX_FACTOR = 16  # these bytes by those that a larger file has on the disk
_HEADER, _MAX_HEADER = 2**10, 2**24  # bytes of a header that are read first, and at most
_VALUE = 16  # bytes of a number in Arrow with its levels and offsets
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # types of pages
_DELTA_BYTE_ARRAY = 7  # an encoding: each value may begin as the one before does
_I32, _BINARY, _STRUCT = 5, 8, 12  # types of Thrift


class _Page(NamedTuple):
    kind: int
    values: int
    encoding: int
    size: int  # bytes, decompressed
    start: int  # place of its content in the file
    length: int  # bytes there


class _Decoded(NamedTuple):
    """Bytes that a leaf can take in memory: in any row, and in all rows of the row group if it is in a list."""

    row: int
    lists: int


def most_decoded(path: Path) -> int:
    """Bytes that a row of a file, the lists of a row group, or the texts of all rows may take in memory."""
    found = path.stat()
    return max(MAX_DECODED, MAX_FACTOR * min(found.st_size, found.st_blocks * 512))


def rows_within(path: Path, table: Any, group: int, leaves: Sequence[int], most: int, batch: int) -> int:
    """Number of rows, from 1 to `most`, of which any that follow each other take about `batch` bytes at most in memory.

    Args:
        path: the file.
        table: the same as `pyarrow.parquet.ParquetFile`.
        group: number of the row group.
        leaves: numbers of the columns to read.
        most: largest number of rows.
        batch: bytes.

    Raises:
        pyarrow.ArrowInvalid: a row, or the lists of all rows, may take more than `most_decoded`; or a header can't be
            read.
    """
    limit = most_decoded(path)
    rows = max(1, int(table.metadata.row_group(group).num_rows))
    row = lists = 0
    with path.open("rb") as file:
        for number in leaves:
            decoded = _decoded(file, table, group, number)
            row, lists = row + decoded.row, lists + decoded.lists
            if row + lists > limit:
                raise pyarrow.ArrowInvalid(
                    f"{table.schema.column(number).path} in row group {group + 1} may take {(row + lists) >> 20} MiB "
                    f"in memory, {limit >> 20} MiB are allowed; remove the column, or write smaller row groups"
                )
    return max(1, min(most, batch // max(1, row + lists // rows)))


def _decoded(file: BinaryIO, table: Any, group: int, number: int) -> _Decoded:
    leaf, chunk = table.schema.column(number), table.metadata.row_group(group).column(number)
    text = leaf.physical_type == "BYTE_ARRAY"
    width = max(_VALUE, leaf.length) if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else _VALUE
    listed = leaf.max_repetition_level > 0
    largest = total = values = repeated = 0
    chained = False
    for page in _pages(file, chunk):
        largest, total = max(largest, page.size), total + page.size
        if page.kind == _DICTIONARY:
            repeated = _longest(file, page, chunk.compression) if text and listed else page.size
        else:
            values += page.values
            chained |= page.encoding == _DELTA_BYTE_ARRAY
    if chained:
        repeated = total
    if listed:
        return _Decoded(0, total + values * (width + (repeated if text else 0)))
    return _Decoded(max(largest, repeated) + width, 0)


def _longest(file: BinaryIO, page: _Page, codec: str) -> int:
    """Bytes of the longest value of a dictionary of texts; of all of them where it is itself large."""
    if max(page.size, page.length) > 2**24:
        return page.size
    file.seek(page.start)
    content = file.read(page.length)
    if codec != "UNCOMPRESSED":
        content = pyarrow.Codec(codec.lower()).decompress(content, page.size, asbytes=True)
    at = longest = 0
    while at + 4 <= len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return longest


def _pages(file: BinaryIO, chunk: Any) -> Iterator[_Page]:
    """The pages of a column of a row group, up to the last that Arrow reads."""
    at, seen = chunk.data_page_offset, 0
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    while seen < chunk.num_values:
        page = _page(file, at)
        yield page
        at = page.start + page.length
        seen += page.values if page.kind != _DICTIONARY else 0


def _page(file: BinaryIO, at: int) -> _Page:
    """Read the header of the page at a place.

    Raises:
        pyarrow.ArrowInvalid: there is none.
    """
    size = _HEADER
    while True:
        file.seek(at)
        content = file.read(size)
        try:
            fields, end = _struct(content, 0)
            kind, decompressed, length = (fields[number, _I32] for number in (1, 2, 3))
            inner = {} if kind not in _INNER else fields[_INNER[kind][0], _STRUCT]
            values, encoding = (inner.get((number, _I32), 0) for number in (1, _INNER.get(kind, (0, 0))[1]))
            if min(decompressed, length, values) < 0:
                raise ValueError("a negative number")
            return _Page(kind, values, encoding, decompressed, at + end, length)
        except IndexError:  # the header goes on
            if len(content) == size < _MAX_HEADER:
                size *= 16
                continue
            raise pyarrow.ArrowInvalid(f"a page ends early, at byte {at}") from None
        except (KeyError, ValueError) as error:
            raise pyarrow.ArrowInvalid(f"the header of the page at byte {at} can't be read: {error!r}") from None


_INNER = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_2: (8, 4)}  # field with the header of a type; there, its encoding


def _struct(content: bytes, at: int, depth: int = 0) -> tuple[dict[tuple[int, int], Any], int]:
    """The numbers and structs of a struct by field and type, and where it ends.

    Raises:
        IndexError: the content ends before.
        ValueError: it holds what no header does.
    """
    fields: dict[tuple[int, int], Any] = {}
    number = 0
    while byte := content[at]:
        at, kind = at + 1, byte & 15
        if byte >> 4:
            number += byte >> 4
        else:
            number, at = _integer(content, at)
        number = (number + 2**15) % 2**16 - 2**15  # as Thrift does
        value: Any = None
        if kind == _STRUCT and depth < 4:
            value, at = _struct(content, at, depth + 1)
        elif kind == _BINARY:
            length, at = _varint(content, at)
            at += length
        elif 3 < kind <= 6:
            value, at = _integer(content, at)
        elif kind in (3, 7):
            at += 1 if kind == 3 else 8
        elif kind > 2:
            raise ValueError(f"a field of type {kind}")
        fields[number, kind] = value
    return fields, at + 1


def _integer(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return value >> 1 ^ -(value & 1), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
