"""Build a data set from a source; the same call resumes an interrupted build."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.thresholds import Harm
from fairhuman.data.pipeline.caption import CaptionTier
from fairhuman.data.pipeline.check import CheckTier
from fairhuman.data.pipeline.condition import ConditionTier
from fairhuman.data.pipeline.detect import DetectTier
from fairhuman.data.pipeline.early import look_at_source
from fairhuman.data.pipeline.engine import run_tasks
from fairhuman.data.pipeline.manifest import Block, Listing, list_source, read_blocks
from fairhuman.data.pipeline.regions import RegionTier, of_bodies
from fairhuman.data.pipeline.report import kept_before, rejections, write_report
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.select import RejectedRow, Selection, select
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.pipeline.tier import Tier, TierTable, open_tier
from fairhuman.data.pipeline.write import ShardWriter
from fairhuman.data.sources import source_format, source_kind
from fairhuman.errors import DataError, RecipeError
from fairhuman.report.text import percent, plural
from fairhuman.utils.files import alone, reading_own, write_json, writing
from fairhuman.utils.parse import parse_json

RUNNERS = ("native", "ray")
MARKER, MANIFEST, TIERS, DATA = "source.json", "manifest", "tiers", "data"
FIRST_FAILURES = 20  # failed rows that are always tolerated, because a share of few rows is unreliable
RESUME = "; run the same command again to resume"
ROUNDS = 3  # attempts at a source whose pictures change during the build

Progress = Callable[[str, int, int | None], None]  # stage, rows done, total rows


@dataclass(frozen=True)
class Workers:
    """Where the work is done: in processes here, or on a Ray cluster with access to the same files.

    Attributes:
        processes: number of parallel processes, of tiers that compute on GPUs at most one a GPU; 0: do everything in
            this one.
        ray: address of the cluster, `local`, or None.
    """

    processes: int = 0
    ray: str | None = None

    @classmethod
    def choose(cls, processes: int | None, runner: str, address: str | None) -> "Workers":
        """Choose workers from the options of `fairhuman data build`; `processes` None: one per core.

        Raises:
            RecipeError: the runner is unknown, or an address is given without Ray.
        """
        if runner not in RUNNERS:
            raise RecipeError(f"--runner must be one of {', '.join(RUNNERS)}, found {runner!r}")
        if address is not None and runner != "ray":
            raise RecipeError("--address is that of a Ray cluster and needs --runner ray")
        ray = (address or "local") if runner == "ray" else None
        return cls((os.cpu_count() or 1) if processes is None else processes, ray)


@dataclass(frozen=True)
class BuildOutcome:
    """Result of a build.

    Attributes:
        listing: listing of the source.
        report: content of `report.json`.
        before: number of pictures that an earlier build left in the folder; None: there was none.
    """

    listing: Listing
    report: Mapping[str, Any]
    before: int | None = None


def build_dataset(
    source: Path,
    out: Path,
    recipe: BuildRecipe,
    workers: Workers = Workers(),
    retry_failed: bool = False,
    progress: Progress = lambda _stage, _done, _all: None,
    say: Callable[[str], None] = lambda _: None,
) -> BuildOutcome:
    """Build the data set `out` from `source`.

    Filters of size are tried on the pictures' headers before anything is written.

    Args:
        source: folder or file in one of the formats of `fairhuman.data.sources`.
        out: folder of the data set; holds `manifest/`, `tiers/` and, at the end, `data/`, `rejected/`, `report.json`.
        recipe: settings; if they changed since the last call, only the affected work is redone.
        workers: where the work is done; the result doesn't depend on it.
        retry_failed: retry rows on which a tier failed.
        progress: called with the stage, the number of rows done, and the total if known.
        say: called with a line for each filter that leaves out more than 90 % of the records, as soon as it is known,
            and for conditions of the source that aren't kept.

    Raises:
        DataError: the source can't be read, or is `out`; `out` belongs to another source, or another build is running
            in it; too many rows fail, or none is kept.
        FairHumanError: `out` can't be written; a worker died.
    """
    build = _Build(source, out, recipe, workers, progress, say)
    with writing(out):
        build.check_place()
    if not build.manifest.is_dir():
        facts = look_at_source(source, build.kind, recipe.source)
        build.say_harms(facts.harms(recipe))
        for line in facts.unused_conditions(recipe.condition is not None):
            say(f"{source}: {line}")
    with writing(out, RESUME), alone(out / ".lock", f"{out}: another build is running in this folder"):
        return build.run(retry_failed)


def plan_build(source: Path, out: Path, recipe: BuildRecipe) -> list[str]:
    """What `build_dataset` would do, in lines; writes nothing and decodes no picture.

    Raises:
        DataError: the source can't be read; `out` can't be used; filters of size leave no picture.
    """
    build = _Build(source, out, recipe, Workers(), lambda *_: None, lambda _: None)
    with writing(out):
        build.check_place()
    facts = look_at_source(source, build.kind, recipe.source)
    lines = [
        f"{source}: {facts.photos.photos} rows, format {facts.kind}; {len(facts.report.skipped())} lines can't be read"
    ]
    lines += facts.photos.lines()
    if facts.own_regions:
        lines.append(f"own regions: {', '.join(facts.own_regions)}")
    lines += [*facts.unused_conditions(recipe.condition is not None), *(harm.line for harm in facts.harms(recipe))]
    steps = ["check and filter the pictures"]
    if recipe.detect is not None:
        found = [*recipe.detect.kinds.items(), *recipe.detect.regions.items()]
        steps.append("find " + ", ".join(f"{region} ({by})" for region, by in found))
    steps.append(f"write captions ({recipe.caption.kind})")
    if recipe.condition is not None:
        steps.append("estimate conditions")
    where = f"resume the build in {out}" if build.manifest.is_dir() else f"write the data set to {out}"
    return [*lines, f"would {', '.join(steps)} and {where}"]


class _Build:
    """The steps of a build, each based on the results of the previous ones."""

    def __init__(
        self,
        source: Path,
        out: Path,
        recipe: BuildRecipe,
        workers: Workers,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.source, self.out, self.recipe, self.workers = source, out, recipe, workers
        self.progress, self.say = progress, say
        self.said: set[str] = set()  # reasons of filters that were named
        self.kind = source_kind(source, recipe.source.format)
        self.manifest = out / MANIFEST
        self.reader: RowReader
        self.tables: dict[str, TierTable] = {}
        self.changed: set[int] = set()

    def run(self, retry_failed: bool) -> BuildOutcome:
        """See `build_dataset`. Pictures that change during the build are processed again from the start."""
        self._claim()
        before = kept_before(self.out)
        for _ in range(ROUNDS):
            built = self._round(retry_failed)
            if not self.changed:
                return replace(built, before=before)
            for table in self.tables.values():
                table.forget(self.changed)
        raise DataError(f"{self.source}: {plural(len(self.changed), 'picture')} changed during the build{RESUME}")

    def _round(self, retry_failed: bool) -> BuildOutcome:
        self.changed.clear()
        self.tables.clear()
        notes = LoadReport()
        listing = list_source(
            self.manifest,
            source_format(self.kind),
            self.source,
            self.recipe.block_rows,
            notes,
            lambda rows: self.progress("list", rows, None),
        )
        blocks = read_blocks(self.manifest)
        recipe = self.recipe
        self.reader = self._reader(listing)
        self._run_tier(CheckTier(self.reader, recipe.duplicates == "near"), blocks, retry_failed)
        selection = self._select(blocks)
        if recipe.detect is not None and recipe.detect.kinds and any(len(block.ids) for block in selection.kept):
            self._run_tier(DetectTier(self.reader, recipe.detect, recipe.detect_masked), selection.sized, retry_failed)
            selection = self._select(blocks)
        kept = selection.kept
        late_tiers: list[Tier] = []
        if recipe.detect is not None and recipe.detect.regions:
            late_tiers.append(RegionTier(self.reader, recipe.detect))
        late_tiers.append(CaptionTier(self.reader, recipe.caption, "detect" in self.tables))
        late_tiers += [ConditionTier(self.reader, recipe.condition)] if recipe.condition is not None else []
        for tier in late_tiers:
            self._run_tier(tier, kept, retry_failed)
            kept = self._keep_passed(tier.name, kept, selection)
        shards = self._write_shards(kept, selection.masks)
        unread = [RejectedRow("", note.place, note.stage, note.reason, note.value) for note in notes.skipped()]
        selection.rejected[:0] = unread
        selection.findings.update((note.action, note.reason) for note in notes.notes if note.action != "skipped")
        regions = (*self.reader.regions, *self._further)
        report = write_report(self.out, self.kind, recipe, regions, selection, listing.rows, shards)
        if not shards:
            raise DataError(f"{self.out}: every record was rejected: {rejections(selection) or 'the source has none'}")
        return BuildOutcome(listing, report)

    @property
    def _further(self) -> tuple[str, ...]:
        """The regions of `detect.regions` of which the source has no boxes."""
        named = self.recipe.detect.regions if self.recipe.detect is not None else {}
        return tuple(name for name in named if name not in self.reader.regions)

    def check_place(self) -> None:
        """Check, without writing, that the data set may be built in this folder.

        Raises:
            DataError: it is the source, a file, was built from another source, has other files, or a damaged marker.
        """
        out, source = self.out, self.source
        if out.resolve() == source.resolve():
            raise DataError(f"{out}: source and output are the same folder; give a new folder for the data set")
        if out.exists() and not out.is_dir():
            raise DataError(f"{out}: is a file; give a new folder for the data set")
        marker = out / MARKER
        if marker.is_file():
            mine = self._marker()
            with reading_own(marker, "give another folder, or delete this one to build it anew"):
                stored = parse_json(marker.read_text(encoding="utf-8"))
                found = {name: stored[name] for name in mine}
            if found != mine:
                raise DataError(
                    f"{out}: was built from {found['source']} ({found['format']}), not from {mine['source']} "
                    f"({mine['format']}); give another folder"
                    + (f", or source.format={found['format']}" if found["source"] == mine["source"] else "")
                )
        elif out.is_dir() and any(path.name != ".lock" for path in out.iterdir()):
            raise DataError(f"{out}: must be a new or empty folder, or one of an earlier build; it has other files")

    def say_harms(self, found: Sequence[Harm]) -> None:
        """Name filters that leave out nearly everything, each once."""
        for harm in found:
            if harm.reason not in self.said:
                self.said.add(harm.reason)
                self.say(f"{self.source}: {harm.line}")

    def _select(self, blocks: Sequence[Block]) -> Selection:
        """Select rows by what the tables of this round have."""
        recipe, tables = self.recipe, self.tables
        complete = recipe.detect is None or not recipe.detect.kinds or "detect" in tables
        selection = select(
            blocks, tables["check"], tables.get("detect"), recipe, recipe.duplicates, recipe.near_bits, complete
        )
        self.say_harms([harm for harm in selection.harms if harm.harsh and any(len(b.ids) for b in selection.kept)])
        return selection

    def _reader(self, listing: Listing) -> RowReader:
        """The reader of the source's rows, with the regions of the recipe and those that only the source has."""
        root = self.source if self.source.is_dir() else self.source.parent
        regions = tuple(dict.fromkeys([*self.recipe.regions, *listing.own_regions]))
        return RowReader(root.resolve(), source_format(self.kind).picture, regions, self.recipe.source)

    def _marker(self) -> dict[str, str]:
        return {"source": str(self.source.resolve()), "format": self.kind}

    def _claim(self) -> None:
        """Mark the folder as that of a build from this source."""
        self.check_place()
        if not (self.out / MARKER).is_file():
            write_json(self.out / MARKER, self._marker())
        config.save(self.recipe, self.out / "recipe.yaml")

    def _run_tier(self, tier: Tier, blocks: Sequence[Block], retry_failed: bool) -> None:
        """Complete a tier's table for the rows of `blocks`."""
        table = self.tables[tier.name] = TierTable.of(tier, self.out / TIERS, self.tables)
        if retry_failed:
            table.reopen_failed()
        tasks = table.tasks(blocks, self.manifest)
        rows = sum(len(block.ids) for block in blocks)
        done = rows - sum(len(task.ids) for task in tasks)
        processed, failed, reasons = 0, 0, []
        self.progress(tier.name, done, rows)
        for outcome in run_tasks(partial(open_tier, tier), tasks, self.workers.processes, self.workers.ray, tier.gpu):
            done, processed = done + outcome.rows, processed + outcome.processed
            self.changed.update(outcome.changed)
            failed += outcome.counts["failed"]
            reasons += outcome.reasons if outcome.counts["failed"] else []
            self.progress(tier.name, done, rows)
            if failed > max(FIRST_FAILURES, self.recipe.max_failed_share * processed):
                first = "".join(f"\n  {reason}" for reason in reasons[:10])
                raise DataError(
                    f"{tier.name} failed on {failed} of {processed} rows, more than max_failed_share = "
                    f"{percent(self.recipe.max_failed_share)}. The first reasons:{first}"
                )
        # Daft ends without an error where a signal reached it that this process ignores.
        if any(not task.target.is_file() for task in tasks):
            raise DataError(f"{self.out}: the stage {tier.name} was stopped{RESUME}")

    def _keep_passed(self, stage: str, blocks: Sequence[Block], selection: Selection) -> list[Block]:
        """The rows that passed a late tier; the others are rejected, and the findings are counted."""
        table = self.tables[stage]
        read = table.reader()
        kept = table.passed(blocks)
        for before, after in zip(blocks, kept, strict=True):
            rows, passed = read(before.number) if len(before.ids) else {}, set(after.ids.tolist())
            for identity in before.ids.tolist():
                row = rows[identity]
                if identity in passed:
                    selection.findings.update(table.tier.findings(row))
                else:
                    selection.rejected.append(RejectedRow(row["key"], row["key"], stage, row["reason"], row["value"]))
        return kept

    def _write_shards(self, kept: Sequence[Block], masks: set[str]) -> list[str]:
        """Write the missing files; return the names of all."""
        named = tuple(sorted({*self.reader.regions, *self._further, *masks}))
        of_persons = () if self.recipe.detect is None else of_bodies(self.recipe.detect)
        writer = ShardWriter(self.reader, named, self.source.name, self._further, of_persons)
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
                path.unlink()  # from an earlier recipe or an earlier state of the source
        return names
