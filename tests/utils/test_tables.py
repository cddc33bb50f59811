"""Parquet files: a flipped bit is told, and files without checksums are read."""

import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.sources.parquet import parquet_rows
from fairhuman.errors import DataError
from fairhuman.record import TableCell
from fairhuman.utils.tables import open_writer, read_table, write_table
from helpers.damage import flip_in

PICTURES = [bytes([65 + number]) * 1000 for number in range(4)]
TABLE = pyarrow.table({"image": PICTURES, "caption": ["one caption", "two", "three", "four"]})


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    with open_writer(path, TABLE.schema) as file:
        file.write_table(TABLE, row_group_size=2)
    return path


def test_what_is_written_is_read_with_checksums_and_without(shard: Path, tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "b.parquet")
    pyarrow.parquet.write_table(TABLE, tmp_path / "c.parquet")
    for path in (shard, tmp_path / "b.parquet", tmp_path / "c.parquet"):
        assert read_table(path).equals(TABLE)
        assert read_bytes(TableCell(path, 3, ("image",))) == PICTURES[3]
        target = io.BytesIO(path.read_bytes())
        assert pyarrow.parquet.read_table(target).equals(TABLE)  # others read the file


def test_a_damaged_picture_is_refused_and_others_are_read(shard: Path) -> None:
    flip_in(shard, PICTURES[2])
    assert read_bytes(TableCell(shard, 1, ("image",))) == PICTURES[1]
    with pytest.raises(PictureError, match=r"is damaged: differs from its checksum \(image of row 3 in a.parquet\)"):
        read_bytes(TableCell(shard, 2, ("image",)))


def test_a_damaged_column_is_named_before_its_rows_are_used(shard: Path) -> None:
    flip_in(shard, b"one caption")
    with pytest.raises(DataError, match=rf"^{shard}: is damaged: differs from its checksums; copy it again, or"):
        list(parquet_rows(shard, LoadReport()))
    with pytest.raises(DataError, match=rf"^{shard}: is damaged .*CRC.*delete it and run the same command again"):
        read_table(shard)


def test_a_file_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "gone.parquet")
