"""Parquet tables that take far more memory than their files suggest."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairhuman.data.pictures.stored import read_bytes
from fairhuman.data.sources import parquet
from fairhuman.data.sources.own_regions import own_regions_of_tables
from fairhuman.data.sources.parquet import read_rows
from fairhuman.errors import DataError
from fairhuman.record import TableCell
from fairhuman.utils import table_pages, tables
from fairhuman.utils.tables import open_table


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"compression": "zstd", "data_page_version": "2.0"}]
)
def test_sizes_come_from_the_headers_of_the_pages(tmp_path, options):
    rows = [{"caption": "x" * (900 + n), "faces": [[0.0, 1.0, 2.0, float(n)]] * (n % 3), "n": n} for n in range(300)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows), path, row_group_size=100, data_page_size=4096, write_batch_size=2, **options
    )
    with open_table(path) as table, path.open("rb") as file:
        for group, leaf in itertools.product(range(3), range(3)):
            chunk = table.metadata.row_group(group).column(leaf)
            pages = list(table_pages._pages(file, chunk))
            assert sum(page.values for page in pages if page.kind != 2) == chunk.num_values
            first = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            assert pages[-1].start + pages[-1].length == first + chunk.total_compressed_size
    assert [row.values for row in read_rows(path)] == rows


def varint(number):
    """A positive number of three bytes as Thrift writes it."""
    return bytes([number << 1 & 127 | 128, number >> 6 & 127 | 128, number >> 13])


def write_texts(path, dictionary):
    """A table of a few kilobytes with texts of 64 MB; that of a dictionary has a footer that says 100 bytes."""
    how = {"dictionary_pagesize_limit": 2**30, "write_statistics": False}
    if not dictionary:
        how = {"use_dictionary": False, "data_page_size": 1024, "write_batch_size": 1}
    pq.write_table(pa.table({"caption": ["a" * 1_000_000] * 64}), path, compression="zstd", **how)
    if dictionary:
        content = path.read_bytes()
        size = varint(pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size)
        assert size in content
        path.write_bytes(content.replace(size, varint(100)))
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 100
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("dictionary", [False, True])
def test_few_rows_of_large_texts_are_read_at_once(tmp_path, monkeypatch, dictionary):
    path = tmp_path / "a.parquet"
    write_texts(path, dictionary)
    monkeypatch.setattr(tables, "BATCH_BYTES", 4_100_000)
    with open_table(path) as table:
        assert tables.batch_rows(path, table, 0, ["caption"], 256) == 4


def test_a_long_list_in_a_small_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    numbers = pa.ListArray.from_arrays([0, 2_000_000], np.zeros(2_000_000))
    pq.write_table(pa.table({"mine": pa.ListArray.from_arrays([0, 1], numbers)}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(table_pages, "MAX_DECODED", 2**24)
    for read in (read_rows, read_bytes_of_column, own_regions_of_tables):
        before = pa.total_allocated_bytes()
        with pytest.raises((DataError, pa.ArrowInvalid), match=r"mine.* may take 30 MiB in memory, 16 MiB are allowed"):
            list(read(path))
        assert pa.total_allocated_bytes() - before < 2**20


def read_bytes_of_column(path):
    return read_bytes(TableCell(path, 0, ("mine",)))


def test_texts_of_a_table_have_the_limits_of_other_texts(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    rows = [{"image": {"bytes": bytes(5000), "path": None}, "caption": "x" * n} for n in (10, 900, 1000)]
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "image": None}]), path)
    monkeypatch.setattr(parquet, "MAX_TEXT", 1020)
    assert len(list(read_rows(path))) == 4
    monkeypatch.setattr(parquet, "MAX_TEXT", 950)
    with pytest.raises(DataError, match=r"a.parquet: row 3 must have at most 950 bytes besides pictures, found 1,0"):
        list(read_rows(path))
    monkeypatch.setattr(parquet, "MAX_TEXT", 2000)
    monkeypatch.setattr(parquet, "most_decoded", lambda _: 1500)
    with pytest.raises(DataError, match=r"a.parquet: must have at most 1,500 bytes besides pictures"):
        list(read_rows(path))


def test_columns_nested_too_deeply_are_named(tmp_path):
    deep = 1
    for _ in range(120):
        deep = {"a": deep}
    pq.write_table(pa.Table.from_pylist([{"caption": "x", "deep": deep}]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: column deep must be nested less than 100 levels deep"):
        list(read_rows(tmp_path / "a.parquet"))
