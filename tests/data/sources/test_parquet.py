"""The Parquet reader: pictures inside, one file or many, and what Hugging Face `datasets` writes."""

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import byte_length, picture_name, read_bytes
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError
from fairhuman.record import Box, TableCell
from helpers.tiny_pictures import encoded, picture


def row(i: int, **fields) -> dict:
    data = encoded(picture(40, 30, i))
    return {
        "key": f"k{i}",
        "image": {"bytes": data, "path": None},
        "width": 40,
        "height": 30,
        "caption": f"person {i}",
        "faces": [[1.0, 2.0, 11.0, 12.0]],
        "hands": None if i % 2 else [],
        **fields,
    }


def write(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def read(path, regions=("face", "hand")):
    report = LoadReport()
    return read_source(path, regions, SourceSettings(), report), report


def test_columns_of_the_design(tmp_path):
    mask = encoded(Image.new("L", (40, 30), 255))
    rows = [row(0, masks={"face": {"bytes": mask, "path": None}}, pose=[[1.0, 2.0, 0.5]], split="val"), row(1)]
    write(tmp_path / "part.parquet", rows)
    for path in (tmp_path, tmp_path / "part.parquet"):
        (first, second), report = read(path)
        assert report.notes == []
        assert (first.key, first.location, first.split) == ("k0", "part.parquet:1", "val")
        assert (first.width, first.height, first.caption) == (40, 30, "person 0")
        assert first.boxes == {"face": (Box(1, 2, 11, 12),), "hand": ()}
        assert {name: read_bytes(painted) for name, painted in first.masks.items()} == {"face": mask}
        assert first.pose == [[1.0, 2.0, 0.5]]
        assert (second.masks, second.boxes["hand"]) == ({}, None)


def test_a_split_is_that_of_a_table_s_name(tmp_path):
    """As Hugging Face names tables; a column `split` says more."""
    for n, name in enumerate(("train-00000-of-00001", "test-0", "validation-0", "training-0")):
        write(tmp_path / "data" / f"{name}.parquet", [row(n)])
    write(tmp_path / "data" / "train-1.parquet", [row(4, split="val"), row(5, split=None)])
    for n, name in enumerate(("validation_matched-0", "dev-0", "Eval-0", "test_2-0", "device-0"), 6):
        write(tmp_path / "data" / f"{name}.parquet", [row(n)])
    assert {record.key: record.split for record in read(tmp_path, ("face",))[0]} == {
        **{"k0": "train", "k1": "test", "k2": "validation", "k3": None},
        **{"k4": "val", "k5": "train"},
        **{"k6": "validation_matched", "k7": "dev", "k8": "Eval", "k9": "test_2", "k10": None},
    }


def test_many_files_and_the_subfolder_data(tmp_path):
    write(tmp_path / "data" / "b.parquet", [row(2)])
    write(tmp_path / "data" / "a.parquet", [row(0), row(1)])
    assert [record.key for record in read(tmp_path, ("face",))[0]] == ["k0", "k1", "k2"]


def test_paths_instead_of_bytes(tmp_path):
    (tmp_path / "p.png").write_bytes(encoded(picture(40, 30)))
    write(tmp_path / "t.parquet", [row(0, image={"bytes": None, "path": "p.png"}), row(1)])
    assert read(tmp_path)[0][0].image == tmp_path / "p.png"


def test_the_schema_of_hugging_face_datasets(tmp_path):
    import datasets

    boxes = datasets.List(datasets.List(datasets.Value("float32")))
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string"), "faces": boxes})
    image = {"bytes": encoded(picture(40, 30, 3)), "path": "a.png"}
    rows = [{"image": image, "caption": "hello", "faces": [[1, 2, 11, 12]]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, features.arrow_schema), tmp_path / "hub.parquet")
    (record,), report = read(tmp_path, ("face",))
    assert report.notes == []
    assert record.boxes["face"] == (Box(1, 2, 11, 12),)
    assert (record.key, read_bytes(record.image)) == ("a.png", image["bytes"])


def test_bad_rows_are_named(tmp_path):
    rows = [row(i) for i in range(10)]
    rows[3] = row(3, image={"bytes": b"", "path": None})
    rows[7] = row(7, faces=[[float("nan"), 2.0, 11.0, 12.0]])
    write(tmp_path / "t.parquet", rows)
    records, report = read(tmp_path)
    assert len(records) == 9
    assert [(entry.line, entry.action) for entry in report.notes] == [(4, "skipped"), (8, "dropped")]


def test_missing_column_and_broken_file(tmp_path):
    write(tmp_path / "t.parquet", [{"picture": b"1", "caption": "x"}])
    with pytest.raises(DataError, match="required column 'image'; found the columns caption, picture"):
        read(tmp_path)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"t\.parquet: not a readable Parquet file"):
        read(tmp_path)


def test_pictures_stay_in_the_table(tmp_path):
    """Every shape of a picture is the cell that holds it, in every row group, filled everywhere or in part."""
    mask = encoded(Image.new("L", (40, 30), 255))
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pictures = [encoded(picture(40, 30, i)) for i in range(7)]
    tables = {
        "filled": [{"bytes": data, "path": None} for data in pictures],
        "in part": [{"bytes": data, "path": "x.png"} if i != 5 else None for i, data in enumerate(pictures)],
        "plain": pictures,
    }
    for name, images in tables.items():
        table = pyarrow.table(
            {
                "image": pyarrow.array(images, pyarrow.binary() if name == "plain" else struct),
                "masks": pyarrow.array(
                    [[("face", {"bytes": mask, "path": None})]] * 7, pyarrow.map_(pyarrow.string(), struct)
                ),
                "key": [f"k{i}" for i in range(7)],
            }
        )
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path, row_group_size=3)
        records = read(path, ())[0]
        assert len(records) == (6 if name == "in part" else 7)
        for record in records:
            number = int(record.key[1:])
            assert record.image == TableCell(path, number, ("image",))
            assert read_bytes(record.image) == pictures[number]
            assert byte_length(record.image) == len(pictures[number])
        painted = read(path, ("face",))[0][-1].masks["face"]
        assert (picture_name(painted), read_bytes(painted)) == (f"masks.face of row 7 in {name}.parquet", mask)


LATE = pyarrow.array([2**60], pyarrow.timestamp("us"))
STRUCTS = pyarrow.map_(pyarrow.struct([("a", pyarrow.int32())]), pyarrow.int32())


@pytest.mark.parametrize("column", [LATE, pyarrow.array([[({"a": 1}, 2)]], STRUCTS)])
def test_values_that_python_lacks_are_one_line(tmp_path, column):
    image = [{"bytes": encoded(picture(40, 30)), "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"image": image, "other": column}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: rows from 1 hold a value that can't be read .*remove its column"):
        read(tmp_path, ())


def test_a_column_may_be_named_like_a_part_of_another(tmp_path):
    write(tmp_path / "t.parquet", [{**row(0), "caption.bytes": b"1"}])
    (record,), _ = read(tmp_path)
    assert (record.caption, record.image) == (row(0)["caption"], TableCell(tmp_path / "t.parquet", 0, ("image",)))
