"""A build, from the source to the last file; the same call again goes on where it was stopped."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport, Note
from fairhuman.data.pipeline.caption import CaptionTier
from fairhuman.data.pipeline.check import CheckTier
from fairhuman.data.pipeline.condition import ConditionTier
from fairhuman.data.pipeline.detect import DetectTier
from fairhuman.data.pipeline.engine import run_tasks
from fairhuman.data.pipeline.manifest import Block, Listing, blocks_of, list_source
from fairhuman.data.pipeline.report import write_report
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.select import RejectedRow, Selection, select
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.pipeline.tier import Tier, TierTable, start
from fairhuman.data.pipeline.write import ShardWriter
from fairhuman.data.sources import SOURCES, source_kind
from fairhuman.errors import DataError, RecipeError
from fairhuman.utils.files import alone, write_json, writing

RUNNERS = ("native", "ray")
MANIFEST, TIERS, DATA = "manifest", "tiers", "data"
FIRST_FAILURES = 20  # rows: before that a share means nothing
AGAIN = "; the same command goes on"
ROUNDS = 3  # at a source whose pictures change meanwhile

Progress = Callable[[str, int, int | None], None]  # stage, rows done, rows of all


@dataclass(frozen=True)
class Workers:
    """Who does the work: processes here, or on a Ray cluster that sees the same files.

    Attributes:
        processes: at once; 0: all is done in this one.
        ray: address of the cluster, `local`, or None.

    """

    processes: int = 0
    ray: str | None = None

    @classmethod
    def choose(cls, processes: int | None, runner: str, address: str | None) -> "Workers":
        """As `fairhuman data build` names them; `processes` None: one a core.

        Raises:
            RecipeError: no such runner, or an address without Ray.

        """
        if runner not in RUNNERS:
            raise RecipeError(f"--runner must be one of {', '.join(RUNNERS)}, found {runner!r}")
        if address is not None and runner != "ray":
            raise RecipeError("--address is the address of a Ray cluster: give --runner ray with it")
        ray = (address or "local") if runner == "ray" else None
        return cls((os.cpu_count() or 1) if processes is None else processes, ray)


@dataclass(frozen=True)
class BuildOutcome:
    """What came of a build: what the look at the source found, and the content of `report.json`."""

    listing: Listing
    report: Mapping[str, Any]


def build_dataset(
    source: Path,
    out: Path,
    recipe: BuildRecipe,
    workers: Workers = Workers(),
    retry_failed: bool = False,
    progress: Progress = lambda _stage, _done, _all: None,
) -> BuildOutcome:
    """Build the data set `out` from `source`.

    Args:
        source: folder or file in one of the formats of `fairhuman.data.sources`.
        out: folder of the data set; holds `manifest/`, `tiers/` and, in the end, `data/`, `rejected/`, `report.json`.
        recipe: settings; with others than last time only what they change is done again.
        workers: who does it; the result doesn't depend on it.
        retry_failed: try rows again that a tier failed at.
        progress: told the stage, how many rows are done, and of how many where that is known.

    Raises:
        DataError: the source can't be read; `out` belongs to another source or another build works on it; too many rows
            fail, or none is kept.
        FairHumanError: `out` can't be written; a worker died.

    """
    build = _Build(source, out, recipe, workers, progress)
    with writing(out, AGAIN), alone(out / ".lock", f"{out}: another build is at work here"):
        return build.run(retry_failed)


class _Build:
    """The steps, in order, each on what the one before found."""

    def __init__(self, source: Path, out: Path, recipe: BuildRecipe, workers: Workers, progress: Progress) -> None:
        self.source, self.out, self.recipe, self.workers, self.progress = source, out, recipe, workers, progress
        self.kind = source_kind(source, recipe.source.format)
        self.manifest = out / MANIFEST
        root = source if source.is_dir() else source.parent
        self.reader = RowReader(root.resolve(), SOURCES[self.kind].picture, recipe.regions, recipe.source)
        self.tables: dict[str, TierTable] = {}
        self.changed: set[int] = set()

    def run(self, retry_failed: bool) -> BuildOutcome:
        """See `build_dataset`. Pictures that change meanwhile are looked at again from the start."""
        self._claim()
        for _ in range(ROUNDS):
            built = self._round(retry_failed)
            if not self.changed:
                return built
            for table in self.tables.values():
                table.forget(self.changed)
        raise DataError(f"{self.source}: {len(self.changed)} pictures change while the data set is built{AGAIN}")

    def _round(self, retry_failed: bool) -> BuildOutcome:
        self.changed.clear()
        notes = LoadReport()
        listing = list_source(
            self.manifest,
            SOURCES[self.kind],
            self.source,
            self.recipe.block_rows,
            notes,
            lambda rows: self.progress("list", rows, None),
        )
        blocks = blocks_of(self.manifest)
        recipe = self.recipe
        self._look(CheckTier(self.reader, recipe.duplicates == "near"), blocks, retry_failed)
        if recipe.detect is not None:
            self._look(DetectTier(self.reader, recipe.detect), self.tables["check"].passed(blocks), retry_failed)
        selection = select(
            blocks, self.tables["check"], self.tables.get("detect"), recipe, recipe.duplicates, recipe.near_bits
        )
        kept = selection.kept
        late: list[Tier] = [CaptionTier(self.reader, recipe.caption, recipe.detect is not None)]
        late += [ConditionTier(self.reader, recipe.condition)] if recipe.condition is not None else []
        for tier in late:
            self._look(tier, kept, retry_failed)
            kept = self._judged(tier.name, kept, selection)
        shards = self._write_shards(kept, selection.masks)
        selection.rejected[:0] = [_unread(note) for note in notes.skipped()]
        selection.findings.update((note.action, note.reason) for note in notes.notes if note.action != "skipped")
        report = write_report(self.out, self.kind, recipe, selection, listing.rows, shards)
        if not shards:
            raise DataError(f"{self.out}: no record is kept: {json.dumps(report['rejected'])}")
        return BuildOutcome(listing, report)

    def _claim(self) -> None:
        """Refuse a folder that was built from something else."""
        note = self.out / "source.json"
        mine = {"source": str(self.source.resolve()), "format": self.kind}
        if note.is_file():
            found = json.loads(note.read_text(encoding="utf-8"))
            if found != mine:
                raise DataError(
                    f"{self.out}: was built from {found['source']} ({found['format']}), not from {mine['source']} "
                    f"({mine['format']}); give another folder"
                )
        elif any(path.name != ".lock" for path in self.out.iterdir()):
            raise DataError(f"{self.out}: holds something else than a data set that was built here")
        else:
            write_json(note, mine)
        config.save(self.recipe, self.out / "recipe.yaml")

    def _look(self, tier: Tier, blocks: Sequence[Block], retry_failed: bool) -> None:
        """Bring a tier's table up to the rows of `blocks`."""
        table = self.tables[tier.name] = TierTable.of(tier, self.out / TIERS, self.tables)
        if retry_failed:
            table.reopen_failed()
        tasks = table.tasks(blocks, self.manifest)
        rows = sum(len(block.ids) for block in blocks)
        done = rows - sum(len(task.ids) for task in tasks)
        looked_at, failed, reasons = 0, 0, []
        self.progress(tier.name, done, rows)
        for outcome in run_tasks(partial(start, tier), tasks, self.workers.processes, self.workers.ray):
            done, looked_at = done + outcome.rows, looked_at + outcome.looked_at
            self.changed.update(outcome.changed)
            failed += outcome.counts["failed"]
            reasons += outcome.reasons if outcome.counts["failed"] else []
            self.progress(tier.name, done, rows)
            if failed > max(FIRST_FAILURES, self.recipe.max_failed_share * looked_at):
                first = "".join(f"\n  {reason}" for reason in reasons[:10])
                raise DataError(
                    f"{tier.name} failed at {failed} of {looked_at} rows, more than max_failed_share = "
                    f"{self.recipe.max_failed_share:.0%}. The first reasons:{first}"
                )

    def _judged(self, stage: str, blocks: Sequence[Block], selection: Selection) -> list[Block]:
        """The rows that a late tier could deal with; the others are rejected, and what it notes is counted."""
        table = self.tables[stage]
        read = table.reader()
        kept = table.passed(blocks)
        for before, after in zip(blocks, kept, strict=True):
            rows, good = read(before.number) if len(before.ids) else {}, set(after.ids.tolist())
            for identity in before.ids.tolist():
                row = rows[identity]
                if identity in good:
                    selection.findings.update(table.tier.findings(row))
                else:
                    selection.rejected.append(RejectedRow(row["key"], row["key"], stage, row["reason"], row["value"]))
        return kept

    def _write_shards(self, kept: Sequence[Block], masks: set[str]) -> list[str]:
        """Write the files that aren't there yet; the names of all."""
        writer = ShardWriter(self.reader, tuple(sorted({*self.recipe.regions, *masks})), self.source.name)
        folder = self.out / DATA
        shards = writer.plan(folder, kept, self.manifest, self.tables, self.recipe.shard_rows)
        missing = [shard for shard in shards if not shard.target.is_file()]
        rows = sum(shard.rows for shard in shards)
        done = rows - sum(shard.rows for shard in missing)
        self.progress("write", done, rows)
        for outcome in run_tasks(writer.open, missing, self.workers.processes, self.workers.ray):
            done += outcome.rows
            self.changed.update(outcome.changed)
            self.progress("write", done, rows)
        names = [shard.target.name for shard in shards]
        for path in folder.glob("*.parquet"):
            if path.name not in names:
                path.unlink()  # of an earlier recipe, or of the source as it was
        return names


def _unread(note: Note) -> RejectedRow:
    """A line of the source that gave no row."""
    place = note.file if note.line is None else f"{note.file}:{note.line}"
    return RejectedRow("", place, note.stage, note.reason, note.value)
