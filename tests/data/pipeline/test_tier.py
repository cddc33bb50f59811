"""Tiers process exactly the rows without a result, after kills, changes of the source and changes of settings."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from fairhuman.data.pipeline import engine
from fairhuman.data.pipeline.engine import run_tasks
from fairhuman.data.pipeline.manifest import SCHEMA, Block, numbered_files, read_blocks
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow, TierTable, open_tier, rows_by_id
from fairhuman.errors import DataError, FairHumanError
from fairhuman.utils.files import write_atomically
from helpers.pool_tasks import broken, seeing_gpus, squares, waiting


@dataclass(frozen=True)
class Length:
    """Length of a key; keys that hold an x fail unless they are cured."""

    times: int = 1
    looked_at: list[str] = field(default_factory=list)
    cured: bool = False
    name: ClassVar[str] = "length"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar = (("length", pyarrow.int32()),)

    def findings(self, row):
        return ()

    @property
    def decisive(self):
        return {"times": self.times}

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        yield lambda items: [self.look(item) for item in items]

    def look(self, item: TierRow) -> TierResult:
        self.looked_at.append(item.row.key)
        if "x" in item.row.key and not self.cured:
            return TierResult({}, "failed", "an x", item.row.key)
        if "r" in item.row.key:
            return TierResult({}, "rejected", "an r", item.row.key)
        return TierResult({"length": self.times * len(item.row.key)})


@dataclass(frozen=True)
class Double(Length):
    """Twice the length."""

    name: ClassVar[str] = "double"
    needs: ClassVar[tuple[str, ...]] = ("length",)

    def look(self, item: TierRow) -> TierResult:
        self.looked_at.append(item.row.key)
        return TierResult({"length": 2 * item.earlier["length"]["length"]})


def write_manifest(folder, *blocks):
    """Blocks of keys; the identity of a row follows from its key."""
    for number, keys in enumerate(blocks):
        rows = [
            {"id": number * 100 + i, "key_id": 0, "key": key, "location": key, "values": "{}"}
            for i, key in enumerate(keys)
        ]
        table = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        name = Block(number, table.column("id").to_numpy()).name
        write_atomically(folder / name, lambda path, table=table: pyarrow.parquet.write_table(table, path))
    return read_blocks(folder)


def run(table, blocks, manifest):
    """Do what is left to do, here; the outcomes."""
    with open_tier(table.tier) as do:
        return [do(task) for task in table.tasks(blocks, manifest)]


def content(table):
    return {path.name: path.read_bytes() for path in table.folder.iterdir()}


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / "manifest"


def test_every_row_is_processed_once(tmp_path, manifest):
    blocks = write_manifest(manifest, ["a", "bb", "x"], ["r", "dddd"])
    tier = Length()
    table = TierTable.of(tier, tmp_path, {})
    outcomes = run(table, blocks, manifest)
    assert [(o.rows, o.processed, dict(o.counts)) for o in outcomes] == [
        (3, 3, {"ok": 2, "failed": 1}),
        (2, 2, {"rejected": 1, "ok": 1}),
    ]
    assert outcomes[0].reasons == ["x: an x (x)"]
    rows = [row for path in sorted(table.folder.iterdir()) for row in rows_by_id(path).values()]
    assert [(row["key"], row["status"], row["length"]) for row in rows] == [
        ("a", "ok", 1),
        ("bb", "ok", 2),
        ("x", "failed", None),
        ("r", "rejected", None),
        ("dddd", "ok", 4),
    ]
    assert [block.ids.tolist() for block in table.passed(blocks)] == [[0, 1], [101]]
    assert run(table, blocks, manifest) == []
    assert len(tier.looked_at) == 5


def test_a_killed_tier_is_resumed_with_the_same_bytes(tmp_path, manifest):
    blocks = write_manifest(manifest, ["a", "bb"], ["ccc"], ["dddd"])
    whole = TierTable.of(Length(), tmp_path / "whole", {})
    run(whole, blocks, manifest)
    tier = Length()
    table = TierTable.of(tier, tmp_path / "cut", {})
    run(table, blocks[:1], manifest)
    (table.folder / ".000001-0.parquet.partial").write_bytes(b"half")
    run(table, blocks, manifest)
    (table.folder / ".000001-0.parquet.partial").unlink(missing_ok=True)
    assert content(table) == content(whole)
    assert tier.looked_at == ["a", "bb", "ccc", "dddd"]


def test_only_new_rows_of_a_block_are_processed(tmp_path, manifest):
    """Another threshold keeps other rows; those that were done stay done, also for the way back."""
    (block,) = write_manifest(manifest, ["a", "bb", "ccc", "dddd"])
    some, others = Block(0, block.ids[[0, 1]]), Block(0, block.ids[[1, 3]])
    tier = Length()
    table = TierTable.of(tier, tmp_path, {})
    for wanted, looked_at in ((some, "a bb"), (others, "a bb dddd"), (some, "a bb dddd"), (block, "a bb dddd ccc")):
        run(table, [wanted], manifest)
        assert tier.looked_at == looked_at.split()
        (path,) = table.folder.iterdir()
        assert path.name == wanted.name
        assert table.passed([wanted])[0].ids.tolist() == wanted.ids.tolist()
    assert [row["key"] for row in rows_by_id(path).values()] == ["a", "bb", "ccc", "dddd"], "in the manifest's order"


def test_settings_and_earlier_tiers_have_tables_of_their_own(tmp_path, manifest):
    blocks = write_manifest(manifest, ["a", "bb"])
    one, two = TierTable.of(Length(), tmp_path, {}), TierTable.of(Length(times=2), tmp_path, {})
    assert one.folder != two.folder
    later = [TierTable.of(Double(), tmp_path, {"length": earlier, "unrelated": two}) for earlier in (one, two)]
    assert later[0].folder != later[1].folder
    for table in (one, two, *later):
        run(table, blocks, manifest)
    lengths = [[row["length"] for row in rows_by_id(*[*t.folder.iterdir()]).values()] for t in (one, two, *later)]
    assert lengths == [[1, 2], [2, 4], [2, 4], [4, 8]]


def test_a_tier_that_was_stopped_is_named_by_the_one_that_needs_it(tmp_path, manifest):
    """As after a Ctrl-C that a worker didn't pass on: blocks of the earlier tier are missing."""
    blocks = write_manifest(manifest, ["a", "bb"], ["ccc"])
    first = TierTable.of(Length(), tmp_path, {})
    second = TierTable.of(Double(), tmp_path, {"length": first})
    run(first, blocks[:1], manifest)
    with pytest.raises(DataError, match="double: the stage length was stopped; run the same command again to resume"):
        second.tasks(blocks, manifest)


def test_failed_rows_are_done_again_when_asked_for(tmp_path, manifest):
    blocks = write_manifest(manifest, ["a", "x"], ["b"])
    run(TierTable.of(Length(), tmp_path, {}), blocks, manifest)
    healthy = Length(cured=True)
    table = TierTable.of(healthy, tmp_path, {})
    assert run(table, blocks, manifest) == []
    table.reopen_failed()
    run(table, blocks, manifest)
    assert healthy.looked_at == ["x"]
    assert [block.ids.tolist() for block in table.passed(blocks)] == [[0, 1], [100]]


def test_of_two_files_of_a_block_the_wanted_one_stays(tmp_path, manifest):
    """A kill between the writing of a file and the removal of the one that it replaces."""
    (block,) = write_manifest(manifest, ["a", "bb", "ccc"])
    some = Block(0, block.ids[:1])
    for first, second in ((some, block), (block, some)):
        tier = Length()
        table = TierTable.of(tier, tmp_path / first.name, {})
        run(table, [first], manifest)
        (old,) = table.folder.iterdir()
        kept = old.read_bytes()
        run(table, [second], manifest)
        old.write_bytes(kept)
        looked_at = list(tier.looked_at)
        assert table.tasks([second], manifest) == []
        assert tier.looked_at == looked_at
        assert [path.name for path in table.folder.iterdir()] == [second.name]


def test_empty_blocks_need_no_file(tmp_path, manifest):
    blocks = write_manifest(manifest, ["a"], ["b"])
    blocks[1] = Block(1, np.zeros(0, np.uint64))
    table = TierTable.of(Length(), tmp_path, {})
    run(table, blocks, manifest)
    assert list(numbered_files(table.folder)) == [0]
    assert [block.ids.tolist() for block in table.passed(blocks)] == [[0], []]


def test_every_task_has_its_outcome():
    assert sorted(run_tasks(squares, range(50), workers=2)) == [i * i for i in range(50)]
    assert list(run_tasks(squares, [], workers=2)) == []


def test_outcomes_come_as_they_end(tmp_path):
    signal = tmp_path / "an outcome came"
    outcomes = run_tasks(waiting, [signal, None, None, None], workers=2)
    assert next(outcomes) is None
    signal.touch()
    assert Counter(outcomes) == {signal: 1, None: 2}


@pytest.mark.parametrize(("shown", "expected"), [(None, {"0", "1"}), ("5,3", {"5", "3"})])
def test_a_process_on_a_gpu_has_one_of_its_own(shown, expected, monkeypatch):
    """CUDA shows it no other; with more processes than GPUs, each would load its models beside another's."""
    monkeypatch.setattr(engine, "_gpus", lambda *_: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    seen = set(run_tasks(seeing_gpus, range(40), workers=4, gpu="cuda"))
    assert len(seen) == 2
    assert {gpu for _, gpu in seen} == expected


def test_where_there_is_one_gpu_or_one_is_named_there_is_one_process(monkeypatch):
    monkeypatch.setattr("fairhuman.utils.torch_device.without_gpu", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert (engine._gpus("cuda", None), engine._gpus("cuda:2", None)) == (4, 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (seen,) = set(run_tasks(seeing_gpus, range(20), workers=3, gpu="cuda:2"))
    assert seen[1] is None
    monkeypatch.setattr("fairhuman.utils.torch_device.without_gpu", lambda: True)
    assert engine._gpus("cuda", None) == 0
    assert len({pid for pid, _ in run_tasks(seeing_gpus, range(40), workers=2, gpu="cuda")}) == 2


def test_an_error_of_a_task_ends_the_run_with_its_text():
    with pytest.raises(FairHumanError, match=r"^ValueError: task must be at least 0, not -1$"):
        list(run_tasks(squares, [1, -1, 2], workers=2))
    with pytest.raises(FairHumanError, match=r"^weights.bin: no such file$"):
        list(run_tasks(broken, [1], workers=1))
