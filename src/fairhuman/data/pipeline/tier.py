"""A tier is one costly look at every row: check, detect, caption, condition. Each has a table of its own.

The table of a tier is a folder of files, one for each block of the manifest, named after the rows that it covers: what
is left to do is what has no file of that name. A file that covers other rows of its block (the source has changed, or
another threshold keeps other rows) gives what it has, row by row; only what is missing is done.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow
import pyarrow.compute

from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.manifest import Block, Ids, ManifestRow, numbered_files, read_block
from fairhuman.data.pipeline.rows import CHANGED
from fairhuman.data.pipeline.tables import read_table, write_table

Status = Literal["ok", "rejected", "failed"]

COMMON = [
    ("id", pyarrow.uint64()),
    ("key", pyarrow.string()),
    ("status", pyarrow.string()),
    ("reason", pyarrow.string()),
    ("value", pyarrow.string()),
]
SHOWN = 5  # reasons of one block that are handed up


@dataclass(frozen=True)
class TierRow:
    """One row to look at, with what earlier tiers found about it (tier to columns)."""

    row: ManifestRow
    earlier: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TierResult:
    """What a tier found out about one row.

    `rejected` is a judgement that holds as long as the picture does; `failed` is an accident (a crash, a server that
    didn't answer), which is tried again with `retry_failed`. Both have a reason out of few fixed texts, and a value.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "ok"
    reason: str = ""
    value: str = ""

    @classmethod
    def failure(cls, error: PictureError) -> "TierResult":
        """That of a row whose picture can't be had."""
        return cls({}, "failed", error.finding.reason, error.finding.value)


Look = Callable[[Sequence[TierRow]], list[TierResult]]


class Tier(Protocol):
    """One kind of look at rows; picklable, as it goes to the workers.

    Attributes:
        name: of its table.
        version: is raised when the same settings give other results.

    """

    name: ClassVar[str]
    version: ClassVar[int]

    @property
    def needs(self) -> tuple[str, ...]:
        """Tiers whose columns it reads; a change in one of them makes it run again."""
        ...

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Of its table, beside the common ones."""
        ...

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that its results depend on, ready for JSON."""
        ...

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """What a row of its table says was changed or is odd: action and reason, for the counts of the report."""
        ...

    def open(self) -> AbstractContextManager[Look]:
        """Load what is needed, in a worker; gives the function that looks at some rows at once, in their order."""
        ...


@dataclass(frozen=True)
class Task:
    """A file that is to be written: `target` with one row for each of `ids`, and those that `old` has besides."""

    manifest: Path
    earlier: Mapping[str, Path]
    target: Path
    old: Path | None
    ids: Ids


@dataclass(frozen=True)
class TaskOutcome:
    """What became of the rows of a task: how many by status, some reasons, and those whose picture has changed."""

    rows: int
    looked_at: int
    counts: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class TierTable:
    """Where a tier's results are."""

    tier: Tier
    folder: Path
    fingerprint: str
    needs: Mapping[str, "TierTable"]

    @classmethod
    def of(cls, tier: Tier, folder: Path, earlier: Mapping[str, "TierTable"]) -> "TierTable":
        """The table of a tier with these settings, on top of those of earlier tiers."""
        needs = {name: earlier[name] for name in tier.needs}
        parts = [tier.name, tier.version, tier.decisive]
        parts += [table.fingerprint for table in needs.values()]
        fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        return cls(tier, folder / f"{tier.name}-{fingerprint}", fingerprint, needs)

    def tasks(self, blocks: Sequence[Block], manifest: Path) -> list[Task]:
        """What is left to do so that every row of `blocks` is in the table."""
        self._remove_replaced({block.name for block in blocks})
        manifest_files, own = numbered_files(manifest), numbered_files(self.folder)
        earlier = {name: numbered_files(table.folder) for name, table in self.needs.items()}
        return [
            Task(
                manifest_files[block.number],
                {name: files[block.number] for name, files in earlier.items()},
                self.folder / block.name,
                own.get(block.number),
                block.ids,
            )
            for block in blocks
            if len(block.ids) and own.get(block.number) != self.folder / block.name
        ]

    def _remove_replaced(self, wanted: Container[str]) -> None:
        """Of two files of one block, which a kill leaves, the one that isn't wanted goes."""
        best: dict[str, Path] = {}
        for path in sorted(self.folder.glob("[0-9]*.parquet"), key=lambda path: path.name in wanted):
            other = best.pop(path.name.partition("-")[0], None)
            if other is not None:
                other.unlink()
            best[path.name.partition("-")[0]] = path

    def reader(self) -> Callable[[int], dict[int, dict[str, Any]]]:
        """A function from the number of a block to its rows by identity."""
        files = numbered_files(self.folder)
        return lambda number: rows_by_id(files[number]) if number in files else {}

    def passed(self, blocks: Sequence[Block]) -> list[Block]:
        """The rows of `blocks` whose status is ok."""
        files = numbered_files(self.folder)
        kept = []
        for block in blocks:
            good = np.zeros(len(block.ids), dtype=bool)
            if len(block.ids):
                table = read_table(files[block.number], columns=["id", "status"])
                ok = pyarrow.compute.equal(table.column("status"), "ok").to_numpy()
                good = np.isin(block.ids, table.column("id").to_numpy()[ok])
            kept.append(Block(block.number, block.ids[good]))
        return kept

    def reopen_failed(self) -> None:
        """Take the rows that failed out of the table, so that they are done again."""
        self._keep(lambda table: pyarrow.compute.not_equal(table.column("status"), "failed"))

    def forget(self, ids: Collection[int]) -> None:
        """Take rows out of the table, so that they are done again."""
        gone = pyarrow.array(sorted(ids), pyarrow.uint64())
        self._keep(lambda table: pyarrow.compute.invert(pyarrow.compute.is_in(table.column("id"), gone)))

    def _keep(self, good: Callable[[pyarrow.Table], Any]) -> None:
        for number, path in numbered_files(self.folder).items():
            table = read_table(path)
            kept = table.filter(good(table))
            if len(kept) < len(table):
                write_table(kept, self.folder / Block(number, kept.column("id").to_numpy()).name)
                path.unlink()


def start(tier: Tier) -> AbstractContextManager[Callable[[Task], TaskOutcome]]:
    """What a worker does with tasks, once the tier is open in it."""
    return _started(tier)


@contextmanager
def _started(tier: Tier) -> Iterator[Callable[[Task], TaskOutcome]]:
    with tier.open() as look:
        yield partial(_do, tier, look)


def _do(tier: Tier, look: Look, task: Task) -> TaskOutcome:
    """Look at the rows of a task that have no result yet, and write its file."""
    rows = read_block(task.manifest)
    old = {} if task.old is None else {row["id"]: row for row in read_table(task.old).to_pylist()}
    wanted = set(task.ids.tolist())
    todo = [row for row in rows if row.id in wanted and row.id not in old]
    earlier = {name: rows_by_id(path) for name, path in task.earlier.items()}
    items = [TierRow(row, {name: found[row.id] for name, found in earlier.items()}) for row in todo]
    results = look(items) if items else []
    done = dict(old)
    for item, result in zip(items, results, strict=True):
        common = {"id": item.row.id, "key": item.row.key, "status": result.status}
        done[item.row.id] = {**result.columns, **common, "reason": result.reason, "value": result.value}
    schema = pyarrow.schema([*COMMON, *tier.columns])
    table = pyarrow.Table.from_pylist([done[row.id] for row in rows if row.id in done], schema=schema)
    write_table(table, task.target)
    if task.old is not None:
        task.old.unlink()
    reasons = [
        f"{item.row.location}: {result.reason}" + (f" ({result.value})" if result.value else "")
        for item, result in zip(items, results, strict=True)
        if result.status != "ok"
    ]
    counts: Counter[str] = Counter(result.status for result in results)
    changed = [item.row.id for item, result in zip(items, results, strict=True) if result.reason == CHANGED]
    return TaskOutcome(len(task.ids), len(items), counts, reasons[:SHOWN], changed)


def rows_by_id(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of one file of a table by identity."""
    return {row["id"]: row for row in read_table(path).to_pylist()}
