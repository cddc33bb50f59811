"""Copies of pictures: the same bytes, made once, whole or not at all."""

import json
import multiprocessing
import os
import random
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch.utils.data import DataLoader

from fairhuman.data.pictures import stored
from fairhuman.data.pictures.arrow_copies import (
    DAMAGED_PIECE,
    EARLIER_PIECE,
    arrow_folder,
    copy_tables,
    index_of,
    with_arrow_copies,
)
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, byte_length, copy_digest, found_damaged, read_bytes
from fairhuman.data.samples.batch import collate
from fairhuman.data.samples.dataset import DAMAGED_COPY, PeopleDataset
from fairhuman.data.samples.sampler import StepBatches
from fairhuman.errors import FairHumanError
from fairhuman.record import FileSpan, HumanRecord, LabelMap, TableCell
from fairhuman.regions.transforms import JointTransform
from fairhuman.utils import tables
from fairhuman.utils.digest import content_digest, unsealed
from helpers.damage import flip, flip_in
from helpers.tiny_pictures import encoded, picture

COUNT = 12


def table(path: Path, seed: int = 0) -> list[HumanRecord]:
    """Write a table of pictures with a mask each, in row groups of 5; its records, pictures in cells."""
    pictures = [{"bytes": encoded(picture(40, 30, seed + i)), "path": None} for i in range(COUNT)]
    masks = [{"face": {"bytes": encoded(picture(40, 30, seed + 50 + i)), "path": None}} for i in range(COUNT)]
    columns = {"image": pictures, "masks": masks, "depth": pictures[::-1]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=5)
    return [
        HumanRecord(
            f"{path.stem}{i}",
            TableCell(path, i, ("image",)),
            40,
            30,
            "",
            masks={"face": TableCell(path, i, ("masks", "face"))},
            depth=TableCell(path, i, ("depth",)),
        )
        for i in range(COUNT)
    ]


@pytest.fixture
def records(tmp_path: Path) -> list[HumanRecord]:
    return table(tmp_path / "a.parquet") + table(tmp_path / "b.parquet", 100)


def arrow(records, folder: Path, **settings):
    return with_arrow_copies(records, folder, **{"small": 0, **settings})


def pieces(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.arrow")}


@pytest.mark.parametrize("piece", [2**30, 3000, 1])
def test_the_copied_bytes_are_those_of_the_table(records, tmp_path, piece):
    copies = arrow(records, tmp_path / "copies", piece=piece)
    for record, copy in zip(records, copies, strict=True):
        for cell, span in ((record.image, copy.image), (record.masks["face"], copy.masks["face"])):
            assert isinstance(span, FileSpan)
            assert read_bytes(span) == read_bytes(cell)
        assert copy.depth == record.depth  # wasn't asked for
    assert (len(pieces(tmp_path / "copies")) == 2) == (piece == 2**30)


def test_it_is_an_arrow_file_that_says_what_it_holds(records, tmp_path):
    arrow(records, tmp_path / "copies")
    for path in pieces(tmp_path / "copies"):
        held = pyarrow.ipc.open_file(path).read_all()
        assert held.column_names == ["row", "field", "bytes"]
        assert len(held) == 2 * COUNT
        source = Path(json.loads((path.parent / "table.json").read_text())["path"])
        for row, field, content in zip(*held.to_pydict().values(), strict=True):
            assert read_bytes(TableCell(source, row, tuple(json.loads(field)))) == content
        index = pyarrow.ipc.open_stream(unsealed(index_of(path))).read_all().to_pydict()
        assert (index["row"], index["field"]) == (held["row"].to_pylist(), held["field"].to_pylist())
        whole = path.read_bytes()
        for row, field, offset, length, found in zip(*index.values(), strict=True):
            cell, content = TableCell(source, row, tuple(json.loads(field))), whole[offset : offset + length]
            assert found == copy_digest(path, cell, content)
            assert found != copy_digest(path, TableCell(source, row + 1, cell.field), content)
            assert found != copy_digest(path, TableCell(source, row, ("depth",)), content)
            assert found != copy_digest(path.parent / "other" / path.name, cell, content)


def test_existing_copies_are_reused(records, tmp_path):
    first = arrow(records, tmp_path / "copies")
    before = pieces(tmp_path / "copies")
    assert arrow(records, tmp_path / "copies") == first
    assert pieces(tmp_path / "copies") == before
    assert arrow(records[:3], tmp_path / "copies") == first[:3]
    assert pieces(tmp_path / "copies") == before


def test_another_column_goes_into_further_pieces(records, tmp_path):
    arrow(records, tmp_path / "copies")
    before = pieces(tmp_path / "copies")
    more = arrow(records, tmp_path / "copies", conditions=("depth",))
    assert [read_bytes(copy.depth) for copy in more] == [read_bytes(record.depth) for record in records]
    after = pieces(tmp_path / "copies")
    assert before.items() <= after.items()
    assert len(after) == 4


def test_an_interrupted_copy_is_resumed(records, tmp_path):
    """As after kill -9: complete pieces are kept, a half one under its temporary name is not taken for one."""
    whole = arrow(records, tmp_path / "copies", piece=3000)
    before = pieces(tmp_path / "copies")
    gone = sorted(before)[-3:]
    for path in gone:
        path.with_name(f".{path.name}.partial").write_bytes(path.read_bytes()[:100])
        path.unlink()
    again = arrow(records, tmp_path / "copies", piece=3000)
    assert [read_bytes(copy.image) for copy in again] == [read_bytes(copy.image) for copy in whole]
    after = pieces(tmp_path / "copies")
    assert {path: before[path] for path in before if path not in gone}.items() <= after.items()
    assert after.keys() == before.keys()


def test_a_table_that_changed_is_copied_anew(records, tmp_path):
    old = arrow(records, tmp_path / "copies")
    changed = table(tmp_path / "a.parquet", 200)
    new = arrow(changed, tmp_path / "copies")
    assert [read_bytes(copy.image) for copy in new] == [read_bytes(record.image) for record in fresh(changed)]
    assert read_bytes(new[0].image) != read_bytes(old[0].image)  # which a run that still goes on may read


def fresh(records):
    """The same records at a path that nobody has read before: readers keep what they read of a table."""
    other = records[0].image.path.with_name("fresh.parquet")
    shutil.copy(records[0].image.path, other)
    return [HumanRecord("", TableCell(other, i, ("image",)), 40, 30, "") for i in range(COUNT)]


def test_small_tables_stay_in_memory(records, tmp_path):
    kept = with_arrow_copies(records, tmp_path / "copies")
    assert [copy.image for copy in kept] == [read_bytes(record.image) for record in records]
    assert [copy.masks["face"] for copy in kept] == [read_bytes(record.masks["face"]) for record in records]
    assert not (tmp_path / "copies").exists()
    limit = sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    assert isinstance(with_arrow_copies(records, tmp_path / "copies", small=limit)[0].image, bytes)
    assert isinstance(with_arrow_copies(records, tmp_path / "copies", small=limit - 1)[0].image, FileSpan)


def test_pictures_outside_tables_are_unchanged(tmp_path):
    others = [
        HumanRecord("a", tmp_path / "a.png", 1, 1, ""),
        HumanRecord("b", b"123", 1, 1, "", pose=[[1, 2, 3]]),
        HumanRecord("c", FileSpan(tmp_path / "c.tar", 3, 4), 1, 1, ""),
    ]
    assert arrow(others, tmp_path / "copies", conditions=("pose", "depth")) == others
    assert not (tmp_path / "copies").exists()


def test_the_picture_of_a_label_map_is_copied(records, tmp_path):
    cell = records[0].masks["face"]
    (copy,) = arrow([HumanRecord("a", b"1", 40, 30, "", masks={"face": LabelMap(cell, (3, 4))})], tmp_path / "copies")
    mask = copy.masks["face"]
    assert isinstance(mask, LabelMap)
    assert mask.labels == (3, 4)
    assert isinstance(mask.stored, FileSpan)
    assert read_bytes(mask.stored) == read_bytes(cell)


@pytest.mark.parametrize("small", [0, 2**26])
def test_a_cell_that_cannot_be_read_stays_one_and_is_tried_once(records, tmp_path, small):
    path = tmp_path / "a.parquet"
    bad = [HumanRecord(f"bad{i}", cell, 1, 1, "") for i, cell in enumerate(bad_cells(path))]
    copies = with_arrow_copies([*bad, records[0]], tmp_path / "copies", small=small)
    assert [copy.image for copy in copies[:-1]] == [record.image for record in bad]
    assert read_bytes(copies[-1].image) == read_bytes(records[0].image)
    for copy in copies[:-1]:
        with pytest.raises(PictureError):
            read_bytes(copy.image)
    before = pieces(tmp_path / "copies")
    with_arrow_copies([*bad, records[0]], tmp_path / "copies", small=small)
    assert pieces(tmp_path / "copies") == before


def bad_cells(path: Path) -> list[TableCell]:
    return [
        TableCell(path, 99, ("image",)),
        TableCell(path, 0, ("nothing",)),
        TableCell(path, 0, ("image", "more")),
        TableCell(path.with_name("gone.parquet"), 0, ("image",)),
    ]


def test_concurrent_processes_copy_once(records, tmp_path):
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)

    def copy() -> None:
        together.wait(60)
        arrow(records, tmp_path / "copies", piece=3000)

    workers = [context.Process(target=copy) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    found = pieces(tmp_path / "copies")
    assert sum(len(pyarrow.ipc.open_file(path).read_all()) for path in found) == 2 * len(records)
    assert [read_bytes(copy.image) for copy in arrow(records, tmp_path / "copies")] == [
        read_bytes(record.image) for record in records
    ]
    assert pieces(tmp_path / "copies") == found


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_loader_read_copies(records, tmp_path, method):
    data = PeopleDataset(arrow(records, tmp_path / "copies"), ("face",), JointTransform((16, 24)))
    expected = [collate([data[position] for position in batch]) for batch in StepBatches(5, 2)]
    loader = DataLoader(
        data, batch_sampler=StepBatches(5, 2), collate_fn=collate, num_workers=1, multiprocessing_context=method
    )
    for found, reference in zip(loader, expected, strict=True):
        assert torch.equal(found.pictures_bchw, reference.pictures_bchw)
        assert torch.equal(found.masks_brhw, reference.masks_brhw)
        assert found.keys == reference.keys


@pytest.mark.parametrize("cut", [0, 200, -1])
def test_a_cut_piece_is_made_again_and_counted(records, tmp_path, cut):
    arrow(records, tmp_path / "copies")
    path = min(pieces(tmp_path / "copies"))
    last = max(arrow(records, tmp_path / "copies")[:COUNT], key=lambda record: record.image.offset)
    os.truncate(path, cut if cut >= 0 else last.image.offset + last.image.length - 1)
    report = LoadReport()
    copies = arrow(records, tmp_path / "copies", report=report)
    assert [read_bytes(copy.image) for copy in copies] == [read_bytes(record.image) for record in records]
    assert [(note.file, note.reason) for note in report.notes] == [(str(path), DAMAGED_PIECE.reason)]


def test_a_piece_that_is_cut_under_a_running_process_is_noticed(records, tmp_path):
    copies = arrow(records, tmp_path / "copies")
    for path in pieces(tmp_path / "copies"):
        os.truncate(path, 500)
    assert [read_bytes(copy.image) for copy in copies] == [read_bytes(record.image) for record in records]
    assert found_damaged(copies[-1].image)
    report = LoadReport()
    arrow(records, tmp_path / "copies", report=report)
    assert report.counts() == {"warned": {DAMAGED_PIECE.reason: 2}}


def test_swapped_pieces_and_indexes_give_no_other_picture(records, tmp_path):
    """Two tables of equal sizes whose files were exchanged, as when a backup is restored to the wrong folder."""
    copies = arrow(records, tmp_path / "copies")
    one, two = {copy.image.path for copy in copies}
    for first, second in ((one, two), (index_of(one), index_of(two))):
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    again = arrow(records, tmp_path / "copies")
    assert [read_bytes(copy.image) for copy in again] == [read_bytes(record.image) for record in records]


def damage(folder: Path, draw: random.Random) -> None:
    """Flip a bit of a file in the folder, or cut it off."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.suffix in (".arrow", ".index", ".json")))
    size = path.stat().st_size
    if draw.random() < 0.3:
        os.truncate(path, draw.randrange(size))
    else:
        flip(path, draw.randrange(size), draw.randrange(8))


@pytest.mark.parametrize("trials", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_damage_gives_another_picture_or_an_error(tmp_path, monkeypatch, trials):
    """Each is noticed before a run or in it, and the copies are made again; or it is where no run reads."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    records, folder, draw = table(tmp_path / "a.parquet"), tmp_path / "copies", random.Random(0)
    whole = {record.key: [read_bytes(record.image), read_bytes(record.masks["face"])] for record in records}
    noticed = 0
    running = arrow(records, folder, piece=6000)
    for _ in range(trials):
        damage(folder, draw)
        report = LoadReport()
        for copies in (running, arrow(records, folder, piece=6000, report=report)):
            found = {copy.key: [read_bytes(copy.image), read_bytes(copy.masks["face"])] for copy in copies}
            assert found == whole
        noticed += bool(report.notes) or bool(list(folder.rglob("*.damaged")))
        running = arrow(records, folder, piece=6000)
        assert not list(folder.rglob("*.damaged"))
    assert noticed > trials / 2


def test_a_damaged_state_of_a_table_makes_its_folder_stale(records, tmp_path):
    folder = tmp_path / "copies"
    copy_tables(records[:COUNT], folder, small=0)
    (state,) = folder.glob("*/table.json")
    for content in (b"\xff", b"[1]", b"7", b'{"path": "a\\u0000"}', b'{"path": 7}'):
        state.write_bytes(content)
        assert copy_tables(records[:COUNT], folder, small=0).removed == 1, content
        assert len(pieces(folder)) == 1


def test_a_folder_that_cannot_be_written_says_what_to_set(records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FairHumanError, match=r"can't be written: Not a directory; set source\.cache=FOLDER"):
        arrow(records, tmp_path / "file" / "copies")


def test_too_little_space_is_reported_before_writing(records, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(FairHumanError, match=r"need about 0 MiB, but 0 MiB are free; set source\.cache=FOLDER"):
        arrow(records, tmp_path / "copies")
    assert not pieces(tmp_path / "copies")


def test_copying_ahead_removes_what_is_stale(records, tmp_path):
    folder = tmp_path / "copies"
    done = copy_tables(records, folder, small=0)
    assert (done.tables, done.in_memory, done.removed) == (2, False, 0)
    assert len(pieces(folder)) == 2
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    (tmp_path / "b.parquet").unlink()
    done = copy_tables(records[:COUNT], folder, small=0)
    assert (done.tables, done.removed) == (1, 2)
    assert len(pieces(folder)) == 1
    assert copy_tables(records[:COUNT], tmp_path / "others").in_memory


def test_the_default_folder_moves_with_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path))
    assert arrow_folder() == tmp_path / "arrow"


def test_a_damaged_copy_is_read_from_the_table_and_made_again_by_the_next_run(records, tmp_path):
    folder = tmp_path / "copies"
    first = arrow(records, folder)
    content = read_bytes(records[2].image)
    flip_in(first[2].image.path, content)
    assert read_bytes(first[2].image) == content
    assert [found_damaged(record.image) for record in first[:4]] == [False, False, True, False]
    people = PeopleDataset(first[2:3], ("face",), JointTransform((32, 32)))
    assert [(note.reason, note.action) for note in people[0].notes] == [(DAMAGED_COPY.reason, "warned")]
    before = pieces(folder)
    again = arrow(records, folder)
    after = pieces(folder)
    assert len(after) == len(before) == 2
    assert before.keys() - after.keys() == {first[2].image.path}
    assert again[2].image.path not in before, "a process with the old index finds no new piece by the old name"
    assert read_bytes(first[2].image) == content
    assert (
        read_bytes(again[2].image)
        == content
        == again[2].image.path.read_bytes()[again[2].image.offset :][: len(content)]
    )
    assert not list(folder.rglob("*.damaged"))
    again[2].image.path.unlink()  # another run that found damage removes the piece
    assert read_bytes(again[2].image) == content
    assert byte_length(again[2].image) == len(content)


def test_a_piece_is_not_overwritten_when_an_earlier_one_was_removed(records, tmp_path):
    folder = tmp_path / "copies"
    copied = arrow(records[:COUNT], folder, piece=3000)
    assert len(pieces(folder)) > 2
    flip_in(copied[0].image.path, read_bytes(records[0].image))
    contents = [read_bytes(record.image) for record in copied]
    assert [read_bytes(record.image) for record in arrow(records[:COUNT], folder, piece=3000)] == contents


@pytest.mark.parametrize("digests", [True, False])
def test_copies_of_an_earlier_version_are_made_again_with_one_note_each(records, tmp_path, digests):
    folder = tmp_path / "copies"
    arrow(records[:COUNT], folder)
    (path,) = pieces(folder)
    table = pyarrow.ipc.open_file(path.read_bytes()).read_all()
    if digests:
        table = table.append_column("digest", [list(map(content_digest, table["bytes"].to_pylist()))])
    with pyarrow.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    index_of(path).unlink()
    report = LoadReport()
    copied = arrow(records[:COUNT], folder, report=report)
    assert [read_bytes(copy.image) for copy in copied] == [read_bytes(record.image) for record in records[:COUNT]]
    assert [(note.file, note.reason) for note in report.notes] == [(str(path), EARLIER_PIECE.reason)]
    assert len(pieces(folder)) == 1
    report = LoadReport()
    assert arrow(records[:COUNT], folder, report=report) == copied
    assert not report.notes


def repeating(path: Path, size: int, rows: int) -> list[HumanRecord]:
    """Records of a small table whose rows repeat one large value, which a dictionary holds once."""
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [os.urandom(size)])
    pyarrow.parquet.write_table(
        pyarrow.table({"image": values}), path, dictionary_pagesize_limit=2**28, store_schema=False
    )
    assert path.stat().st_size < 2 * size
    return [HumanRecord(str(i), TableCell(path, i, ("image",)), 1, 1, "") for i in range(rows)]


def test_a_small_table_of_large_cells_is_copied_to_disk(tmp_path):
    records = repeating(tmp_path / "a.parquet", 10_000, 50)
    copies = with_arrow_copies(records, tmp_path / "copies", small=100_000)
    assert all(isinstance(copy.image, FileSpan) for copy in copies)
    assert read_bytes(copies[-1].image) == read_bytes(records[0].image)
    assert not copy_tables(records, tmp_path / "copies", small=100_000).in_memory


def test_a_row_group_that_takes_far_more_than_its_file_is_refused(tmp_path, monkeypatch):
    records = repeating(tmp_path / "a.parquet", 10_000, 50)
    monkeypatch.setattr(stored, "MAX_GROUP", 100_000)
    with pytest.raises(PictureError, match=r"row group takes over .* smaller row groups"):
        read_bytes(records[0].image)


def test_few_rows_of_a_large_dictionary_are_read_at_once(tmp_path, monkeypatch):
    repeating(tmp_path / "a.parquet", 10_000, 50)
    monkeypatch.setattr(tables, "BATCH_BYTES", 50_000)
    with tables.open_table(tmp_path / "a.parquet") as table:
        assert tables.batch_rows(tmp_path / "a.parquet", table, 0, ["image"], 256) in (3, 4)
        assert tables.batch_rows(tmp_path / "a.parquet", table, 0, ["other"], 256) == 256
