"""A tier is one expensive processing step over rows: check, detect, regions, caption, condition.

Each has its own table: a folder with a file for each block of the manifest, named after the rows it covers; a block
without a file of its name is still to do. If a file covers other rows of its block (the source has changed, or
another threshold keeps other rows), its results are reused row by row and only missing rows are processed.
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
from fairhuman.errors import DataError
from fairhuman.utils.tables import read_table, write_table

Status = Literal["ok", "rejected", "failed"]

COMMON = [
    ("id", pyarrow.uint64()),
    ("key", pyarrow.string()),
    ("status", pyarrow.string()),
    ("reason", pyarrow.string()),
    ("value", pyarrow.string()),
]
MAX_REASONS = 5  # reasons reported per block


@dataclass(frozen=True)
class TierRow:
    """One row to process, with the results of earlier tiers (tier to columns)."""

    row: ManifestRow
    earlier: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TierResult:
    """The result of a tier for one row.

    `rejected` is final for this picture; `failed` is a transient problem (a crash, a server that didn't answer), which
    `retry_failed` retries. Both have a reason, one of a small set of fixed texts, and a value.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "ok"
    reason: str = ""
    value: str = ""

    @classmethod
    def failure(cls, error: PictureError) -> "TierResult":
        """The result for a row whose picture can't be read."""
        return cls({}, "failed", error.finding.reason, error.finding.value)


ProcessRows = Callable[[Sequence[TierRow]], list[TierResult]]


class Tier(Protocol):
    """A processing step; picklable, because it is sent to the workers.

    Attributes:
        name: name of the table.
        version: to be increased when the same settings give different results.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @property
    def needs(self) -> tuple[str, ...]:
        """Tiers whose columns this tier reads; when one of them changes, this tier runs again."""
        ...

    @property
    def gpu(self) -> str | None:
        """The CUDA device of the settings, `cuda` if any will do; None: it needs none. See `cuda_device`."""
        ...

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Columns of the table in addition to the common ones."""
        ...

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that determine the results, JSON-serializable."""
        ...

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Conversions and oddities that a row of the table notes: (action, reason), counted in the report."""
        ...

    def open(self) -> AbstractContextManager[ProcessRows]:
        """Load models in a worker; yield the function that processes some rows at once, in their order."""
        ...


def cuda_device(name: str | None) -> str | None:
    """Return the CUDA device that a setting names, None if it names another; null and `auto` are any CUDA device."""
    name = "cuda" if name in (None, "auto") else name
    return name if name is not None and name.startswith("cuda") else None


@dataclass(frozen=True)
class Task:
    """A file to write: `target` with one row for each of `ids`, plus the other rows of `old`."""

    manifest: Path
    earlier: Mapping[str, Path]
    target: Path
    old: Path | None
    ids: Ids


@dataclass(frozen=True)
class TaskOutcome:
    """Outcome of a task: number of rows, processed rows, counts by status, some reasons, rows with changed pictures."""

    rows: int
    processed: int
    counts: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class TierTable:
    """The table with the results of a tier."""

    tier: Tier
    folder: Path
    fingerprint: str
    needs: Mapping[str, "TierTable"]

    @classmethod
    def of(cls, tier: Tier, folder: Path, earlier: Mapping[str, "TierTable"]) -> "TierTable":
        """The table of a tier with its settings, given the tables of earlier tiers."""
        needs = {name: earlier[name] for name in tier.needs}
        parts = [tier.name, tier.version, tier.decisive]
        parts += [table.fingerprint for table in needs.values()]
        fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        return cls(tier, folder / f"{tier.name}-{fingerprint}", fingerprint, needs)

    def tasks(self, blocks: Sequence[Block], manifest: Path) -> list[Task]:
        """The tasks left until every row of `blocks` is in the table.

        Raises:
            DataError: an earlier stage isn't complete.
        """
        self._remove_replaced({block.name for block in blocks})
        manifest_files, own = numbered_files(manifest), numbered_files(self.folder)
        earlier = {name: numbered_files(table.folder) for name, table in self.needs.items()}
        left = [block for block in blocks if len(block.ids) and own.get(block.number) != self.folder / block.name]
        for name, files in earlier.items():
            if any(block.number not in files for block in left):
                raise DataError(f"{self.tier.name}: the stage {name} was stopped; run the same command again to resume")
        return [
            Task(
                manifest_files[block.number],
                {name: files[block.number] for name, files in earlier.items()},
                self.folder / block.name,
                own.get(block.number),
                block.ids,
            )
            for block in left
        ]

    def _remove_replaced(self, wanted: Container[str]) -> None:
        """Remove replaced files that a killed run has left; of two files of one block, the wanted one stays."""
        best: dict[str, Path] = {}
        for path in sorted(self.folder.glob("[0-9]*.parquet"), key=lambda path: path.name in wanted):
            replaced = best.pop(path.name.partition("-")[0], None)
            if replaced is not None:
                replaced.unlink()
            best[path.name.partition("-")[0]] = path

    def reader(self) -> Callable[[int], dict[int, dict[str, Any]]]:
        """Return a function from the number of a block to its rows by identity."""
        files = numbered_files(self.folder)
        return lambda number: rows_by_id(files[number]) if number in files else {}

    def passed(self, blocks: Sequence[Block]) -> list[Block]:
        """The rows of `blocks` with the status ok."""
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
        """Remove failed rows from the table, so that they are processed again."""
        self._filter(lambda table: pyarrow.compute.not_equal(table.column("status"), "failed"))

    def forget(self, ids: Collection[int]) -> None:
        """Remove rows from the table, so that they are processed again."""
        removed = pyarrow.array(sorted(ids), pyarrow.uint64())
        self._filter(lambda table: pyarrow.compute.invert(pyarrow.compute.is_in(table.column("id"), removed)))

    def _filter(self, keep: Callable[[pyarrow.Table], Any]) -> None:
        for number, path in numbered_files(self.folder).items():
            table = read_table(path)
            kept = table.filter(keep(table))
            if len(kept) < len(table):
                write_table(kept, self.folder / Block(number, kept.column("id").to_numpy()).name)
                path.unlink()


@contextmanager
def open_tier(tier: Tier) -> Iterator[Callable[[Task], TaskOutcome]]:
    """Open a tier in a worker; yield the function that runs a task."""
    with tier.open() as process:
        yield partial(_run_task, tier, process)


def _run_task(tier: Tier, process: ProcessRows, task: Task) -> TaskOutcome:
    """Process the rows of a task that have no result yet, and write its file."""
    rows = read_block(task.manifest)
    old = {} if task.old is None else {row["id"]: row for row in read_table(task.old).to_pylist()}
    wanted = set(task.ids.tolist())
    todo = [row for row in rows if row.id in wanted and row.id not in old]
    earlier = {name: rows_by_id(path) for name, path in task.earlier.items()}
    items = [TierRow(row, {name: found[row.id] for name, found in earlier.items()}) for row in todo]
    results = process(items) if items else []
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
    return TaskOutcome(len(task.ids), len(items), counts, reasons[:MAX_REASONS], changed)


def rows_by_id(path: Path) -> dict[int, dict[str, Any]]:
    """Read the rows of one file of a table, by identity."""
    return {row["id"]: row for row in read_table(path).to_pylist()}
