"""The data of a run: records are read, checked, split and ordered."""

import hashlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from fairhuman.data.pictures.arrow_copies import arrow_folder, with_arrow_copies
from fairhuman.data.pictures.colours import CONVERTED, UNUSABLE
from fairhuman.data.pictures.decode import BYTES_PER_PIXEL, TRANSPARENT, PictureLimits
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.buckets import cropped_share
from fairhuman.data.samples.close_ups import CloseUps
from fairhuman.data.samples.coverage import ViewCoverage, view_coverage
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.encodings import Encodings
from fairhuman.data.samples.ignored import IgnoredArea
from fairhuman.data.samples.order import SourceShare
from fairhuman.data.samples.regions_in_view import other_side
from fairhuman.data.samples.sampler import SampleOrder, SizedOrder, StepBatches
from fairhuman.data.sources import read_source
from fairhuman.data.sources.check import EMPTY_MASK, check_records
from fairhuman.data.sources.counts import PhotoCount, alike_captions
from fairhuman.data.sources.imagefolder import HELD_OUT_SPLITS
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord
from fairhuman.regions.boxes import shorten
from fairhuman.regions.ignore import IgnoredCount, move_ignored
from fairhuman.regions.settings import RegionSettings
from fairhuman.regions.transforms import JointTransform
from fairhuman.report.text import listed, plural
from fairhuman.train.conditions import check_conditions
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import DataSource
from fairhuman.train.views import (
    NAMED,
    check_close_ups,
    held_out_resolutions,
    note_enlarged,
    training_order,
    training_transform,
)
from fairhuman.utils.memory import available_bytes
from fairhuman.utils.torch_device import pins_batches

_HELD_OUT = re.compile(rf"({'|'.join(HELD_OUT_SPLITS)})(?![a-z])", re.IGNORECASE)  # such as `Test`, `validation_2`


@dataclass(frozen=True)
class RunData:
    """Training and held-out samples.

    `held_out` is None if validation is off, or if none can be held out: the share is less than a picture, or all are of
    one photo; `unmeasured` says so then. `steering` is what a steered run measures, `held_out` itself unless
    `steer.data` is given.
    """

    train: PeopleDataset
    held_out: PeopleDataset | None
    report: LoadReport
    sources: Sequence[DataSource]
    ignored: IgnoredCount = field(default_factory=IgnoredCount)
    ignored_area: IgnoredArea = field(default_factory=IgnoredArea)
    unmeasured: str | None = None
    steering: PeopleDataset | None = None

    @property
    def datasets(self) -> list[PeopleDataset]:
        """The training samples, and all that losses are measured on."""
        found = [self.train, *(one for one in (self.held_out, self.steering) if one is not None)]
        return found[:-1] if self.steering is self.held_out is not None else found

    def reading(self, latents: Encodings | None) -> "RunData":
        """Return the same samples, reading latents from a cache; see `PeopleDataset.reading`."""
        place = json.dumps([str(source.path.absolute()) for source in self.sources])
        held_out = self.held_out.reading(latents, place) if self.held_out is not None else None
        steering = held_out
        if self.steering is not self.held_out:
            steering = self.steering.reading(latents, place) if self.steering is not None else None
        return replace(self, train=self.train.reading(latents, place), held_out=held_out, steering=steering)

    def lines(self) -> list[str]:
        """What the data has besides pictures and regions: masks, repeats, what is ignored, columns that aren't used."""
        records = self.train.records
        lines = [*PhotoCount.of(records).lines(), *alike_captions([record.caption for record in records])]
        lines += [*self.report.unused_lines(), *filter(None, [self._empty()]), *self._one_sided()]
        lines += self._other_splits()
        lines += [*self.ignored_area.lines(), *self.ignored.lines(), *filter(None, [self.unmeasured])]
        transparent = self.report.counts().get("converted", {}).get(TRANSPARENT, 0)
        if transparent:
            lines.append(f"{transparent} x {TRANSPARENT}; source.alpha=mask keeps the opacity as a mask")
        lines += [
            f"{number} x {reason}"
            for action, reason in (("converted", CONVERTED), ("dropped", UNUSABLE))
            if (number := self.report.counts().get(action, {}).get(reason))
        ]
        return lines

    def _empty(self) -> str | None:
        """A line that names the pictures whose mask is empty, the first of them if they are many."""
        places = [note.place for note in self.report.notes if note.reason == EMPTY_MASK]
        if not places:
            return None
        named = [*places[:NAMED], *([f"{len(places) - NAMED} more"] if len(places) > NAMED else [])]
        return f"{plural(len(places), 'mask')} {'is' if len(places) == 1 else 'are'} empty: {listed(named)}"

    def _one_sided(self) -> list[str]:
        """A warning for each region whose other side isn't named, though pictures are mirrored."""
        names = self.train.regions if self.train.transform.flip_probability else ()
        return [
            f"warning: a mirrored picture shows a {other_side(name)} as {name}: name both in regions.names, or set "
            "view.flip_probability=0"
            for name in names
            if other_side(name) not in names
        ]

    def _other_splits(self) -> list[str]:
        """A warning for each split that is trained on and may be meant to be held out, at most `NAMED`."""
        splits = Counter(record.split or "train" for record in self.train.records)
        others = [(name, number) for name, number in splits.most_common() if not name.lower().startswith("train")]
        return [
            f"warning: split {shorten(name)} ({plural(number, 'picture')}) is trained on, as only "
            f"{listed(HELD_OUT_SPLITS)} are held out; rename it if it should be"
            for name, number in others[:NAMED]
        ]

    @cached_property
    def largest_bytes(self) -> int:
        """Bytes that a process holds at most while it decodes the largest picture."""
        return BYTES_PER_PIXEL * max(one.width * one.height for part in self.datasets for one in part.records)

    @cached_property
    def cropped_share(self) -> float:
        """Share of a training picture's area that is cropped away on average, without zoom."""
        sizes = [(record.height, record.width) for record in self.train.records]
        return cropped_share(sizes, self.train.resolutions_of_records())

    @cached_property
    def coverage(self) -> ViewCoverage:
        """What training sees of the regions."""
        data = self.train
        shown = data.resolutions_of_records()
        return view_coverage(data.records, data.regions, data.transform, shown, data.seed, limits=data.limits)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the keys of the records trained and measured on, in order, and of the sources' settings."""
        parts = [self.train.records, self.held_out.records if self.held_out is not None else ()]
        if self.steering is not None and self.steering is not self.held_out:
            parts.append(self.steering.records)
        keys: list[Any] = [[record.key for record in records] for records in parts]
        said: list[Any] = [[source.repeats or 1, source.weight, source.regions] for source in self.sources]
        repeats = [record.repeats for record in self.train.records]
        said = [*said, repeats] if set(repeats) != {1} else said
        text = json.dumps(keys if said == [[1, None, None]] else [*keys, said])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def contents(self) -> dict[str, str]:
        """Hashes of what the training, held-out and steering records say, by these names; see `_digest_of`."""
        parts = {"training": self.train, "held-out": self.held_out}
        parts |= {"steering": self.steering} if self.steering is not self.held_out else {}
        return {name: _digest_of(part.records) for name, part in parts.items() if part is not None}


def _digest_of(records: Sequence[HumanRecord]) -> str:
    """Hash of what records say of their pictures: size, caption, boxes, and which regions have masks."""
    digest = hashlib.sha256()
    for one in records:
        boxes = {
            name: [(box.x0, box.y0, box.x1, box.y1) for box in known]
            for name, known in one.boxes.items()
            if known is not None
        }
        said = [one.key, one.width, one.height, one.caption, boxes, sorted(one.masks)]
        digest.update(json.dumps(said, sort_keys=True).encode())
    return digest.hexdigest()


def load_data(recipe: TrainRecipe, report: LoadReport) -> RunData:
    """Read, check and split the records of a recipe. Notes are added to `report` even if this raises."""
    records, source_of = _read_sources(recipe, report)
    train, held_out = split(records, recipe)
    if recipe.validation.data is not None and recipe.validation.every:
        # the same ones whatever the run's seed, so that runs of several seeds can be compared
        held_out = _others(recipe, recipe.validation.data, "validation", recipe.validation.count, report, seed=0)
    rules = recipe.regions.ignore
    ignored = IgnoredCount(rules, train)
    train, held_out = ([move_ignored(record, rules) for record in part] for part in (train, held_out))
    area = IgnoredArea.of(train, recipe.regions.ignored, recipe.regions.names, recipe.source.limits)
    shares = _shares(recipe, [source_of[record.key] for record in train], train)
    conditions = recipe.control.conditions if recipe.control is not None else ()
    check_conditions(recipe, train, held_out)
    dataset = PeopleDataset(
        _cached(train, recipe, conditions, report),
        recipe.regions.names,
        training_transform(recipe),
        recipe.regions.mask,
        recipe.view.caption_dropout,
        recipe.seed,
        recipe.source.limits,
        training_order(recipe, shares, train),
        conditions,
        recipe.control.condition_dropout if recipe.control is not None else 0.0,
        variants=recipe.cache.variants if recipe.cache.variants > 1 else 0,
        ignored=recipe.regions.ignored,
        min_in_view=recipe.view.min_in_view,
        close_ups=CloseUps(recipe.view.close_up, recipe.view.close_up_size) if recipe.view.close_up else None,
    )
    check_close_ups(recipe, dataset)
    note_enlarged(dataset, report)
    fixed = _measured(recipe, dataset, held_out, report) if held_out and recipe.validation.every else None
    steering = _steering(recipe, dataset, fixed, report)
    unmeasured = none_held_out(recipe, len(train)) if fixed is None else None
    return RunData(dataset, fixed, report, recipe.sources, ignored, area, unmeasured, steering)


def _steering(
    recipe: TrainRecipe, train: PeopleDataset, held_out: PeopleDataset | None, report: LoadReport
) -> PeopleDataset | None:
    """Return what a steered run measures; None if it isn't steered.

    Raises:
        DataError: nothing is held out.
    """
    steer = recipe.steer
    if steer.at_most is None:
        return None
    if steer.data is not None:
        records = _others(recipe, steer.data, "steering", steer.count, report, recipe.seed)
        records = [move_ignored(record, recipe.regions.ignore) for record in records]
        check_conditions(recipe, (), records)
        return _measured(recipe, train, records, report)
    if held_out is None:
        raise DataError(
            f"{recipe.data_name}: steer.at_most needs held-out pictures, and none is held out of {len(train)}; "
            "a larger validation.share holds some out, or set steer.data to another data set"
        )
    return held_out


def _others(
    recipe: TrainRecipe, data: Path, prefix: str, most: int, report: LoadReport, seed: int
) -> list[HumanRecord]:
    """Return up to `most` records of another data set; the prefix distinguishes equal keys of two sets."""
    found = _read(data, recipe.regions.names, recipe, report)
    return _draw([replace(record, key=f"{prefix}/{record.key}") for record in found], most, seed)


def _measured(
    recipe: TrainRecipe, train: PeopleDataset, records: Sequence[HumanRecord], report: LoadReport
) -> PeopleDataset:
    """Return records as samples that losses are measured on, in the resolutions of training."""
    regions = recipe.regions.model_copy(update={"mask": recipe.validation.mask})
    shown = held_out_resolutions(recipe, train, records)
    records, limits = _cached(records, recipe, train.conditions, report), recipe.source.limits
    return fixed_dataset(records, recipe.size, regions, recipe.seed, limits, train.conditions, shown)


def fixed_dataset(
    records: Sequence[HumanRecord],
    size: tuple[int, int],
    regions: RegionSettings,
    seed: int,
    limits: PictureLimits,
    conditions: Sequence[str] = (),
    resolutions: Sequence[tuple[int, int]] | None = None,
) -> PeopleDataset:
    """Return samples for evaluation: nothing is random, so they are the same every time.

    `size` is (height, width); `resolutions` are those of each record, None: all have `size`.
    """
    still = JointTransform(size, "center", flip_probability=0.0, keep_region=1.0)
    order = None if resolutions is None else SizedOrder(SampleOrder(seed, range(len(records))), resolutions)
    return PeopleDataset(
        records,
        regions.names,
        still,
        regions.mask,
        seed=seed,
        limits=limits,
        order=order,
        conditions=conditions,
        ignored=regions.ignored,
    )


def _read_sources(recipe: TrainRecipe, report: LoadReport) -> tuple[list[HumanRecord], dict[str, int]]:
    """Return the records of all sources and each key's source number; with several sources, keys are prefixed by it."""
    records: list[HumanRecord] = []
    source_of: dict[str, int] = {}
    for number, source in enumerate(recipe.sources):
        regions = recipe.regions.names if source.regions is None else source.regions
        found = _read(source.path, regions, recipe, report)
        if len(recipe.sources) > 1:
            found = _numbered(found, number)
        source_of |= {record.key: number for record in found}
        records += found
    if len(recipe.sources) > 1:  # pictures and their close-ups may be two sources
        of_name = {record.key.partition("/")[2]: record.key for record in reversed(records)}
        records = [
            one
            if one.origin is None or one.origin in source_of
            else replace(one, origin=of_name.get(one.origin, one.origin))
            for one in records
        ]
    for name in recipe.regions.ruled:
        if not any(record.annotated(name) for record in records):
            raise DataError(
                f"{recipe.data_name}: regions.ignore names {name!r}, which no record annotates; take it out, or check "
                "its spelling"
            )
    return records, source_of


def _numbered(records: Sequence[HumanRecord], number: int) -> list[HumanRecord]:
    """Return a source's records with its number before their keys, also where they are another's origin."""
    keys = {record.key: f"{number}/{record.key}" for record in records}
    return [replace(one, key=keys[one.key], origin=keys.get(one.origin or "", one.origin)) for one in records]


def _read(data: Path, regions: Sequence[str], recipe: TrainRecipe, report: LoadReport) -> list[HumanRecord]:
    """Return the usable records of a data set."""
    source = recipe.source
    records = read_source(data, regions, source, report, recipe.regions.ruled)
    return check_records(records, report, source.check == "full", source.limits, source.max_reject_share)


def _cached(
    records: Sequence[HumanRecord], recipe: TrainRecipe, conditions: Sequence[str], report: LoadReport
) -> Sequence[HumanRecord]:
    """Return the records with their pictures and conditions in a cache that is fast to read."""
    chosen = recipe.source.cache
    if chosen is False:
        return records
    return with_arrow_copies(records, arrow_folder() if chosen is True else chosen, conditions, report=report)


def _shares(recipe: TrainRecipe, source_of: Sequence[int], train: Sequence[HumanRecord]) -> list[SourceShare]:
    """Return each source's training records and how often they are drawn."""
    shares: list[SourceShare] = []
    for number, source in enumerate(recipe.sources):
        own = [index for index, other in enumerate(source_of) if other == number]
        # A record that is listed r times occurs r times an epoch; these repeats multiply those of the source.
        records = [index for index in own for _ in range(train[index].repeats)]
        if not records:
            raise DataError(f"{source.path}: every record is held out, none is left to train on")
        shares.append(SourceShare(records, source.repeats or 1, source.weight))
    return shares


def split(records: Sequence[HumanRecord], recipe: TrainRecipe) -> tuple[list[HumanRecord], list[HumanRecord]]:
    """Return training and held-out records: by the data set's own split, otherwise a seeded share.

    If `validation.data` names another data set, only records of a held-out split are removed from the training records.
    A record's selection depends on the seed and its key alone, so it doesn't change when records are added or removed.
    Records of one photo (`HumanRecord.origin`) are selected together, by the key of its first record.
    """
    settings = recipe.validation
    held_out = [record for record in records if _HELD_OUT.match(record.split or "")]
    train = [record for record in records if not _HELD_OUT.match(record.split or "")]
    if not held_out and settings.every and settings.data is None:
        photo = _photos(train)
        chosen = _draw_photos(photo, min(settings.count, int(settings.share * len(train))), recipe.seed)
        held_out = [record for record in train if photo[record.key] in chosen]
        train = [record for record in train if photo[record.key] not in chosen]
    if not train:
        raise DataError(
            f"{recipe.data_name}: every record is held out (split {', '.join(HELD_OUT_SPLITS)}), "
            "none is left to train on: give those to train on another split, such as train"
        )
    return train, _draw(held_out, settings.count, recipe.seed)


def none_held_out(recipe: TrainRecipe, pictures: int) -> str | None:
    """Say why nothing is held out of so many pictures, and what to do; None: it isn't wanted."""
    share = recipe.validation.share
    if not recipe.validation.every or not share:
        return None
    if int(share * pictures):
        return "held-out losses are off: all pictures are of one photo; add others, or set validation.data"
    needed = next(number for number in count(pictures + 1) if int(share * number))
    whole = next((number for number in range(1, 100) if int(number / 100 * pictures)), None)
    setting = "" if whole is None else f", or validation.share={whole / 100:g},"
    return (
        f"held-out losses are off: {100 * share:.4g} % of {plural(pictures, 'picture')} is less than one; "
        f"{plural(needed - pictures, 'more picture')}{setting} would hold one out"
    )


def _photos(records: Sequence[HumanRecord]) -> dict[str, str]:
    """Return for each record's key that of the record which stands for its photo."""
    origin = {record.key: record.origin or record.key for record in records}
    return {key: origin.get(photo, photo) for key, photo in origin.items()}


def _draw_photos(photo: Mapping[str, str], count: int, seed: int) -> set[str]:
    """Return the photos with the smallest hash of (seed, key) whose records are at most `count` together.

    The first is taken even if its records are more, but never all records.
    """
    records = Counter(photo.values())
    chosen: set[str] = set()
    left = count
    for one in sorted(records, key=lambda key: _chance(seed, key)) if count else ():
        if records[one] <= left or (not chosen and records[one] < len(photo)):
            chosen.add(one)
            left -= records[one]
    return chosen


def _chance(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed} {key}".encode()).digest()


def _draw(records: Sequence[HumanRecord], count: int, seed: int) -> list[HumanRecord]:
    """Return the `count` records with the smallest hash of (seed, key), in their original order."""
    ordered = sorted(records, key=lambda record: _chance(seed, record.key))
    chosen = {record.key for record in ordered[:count]}
    return [record for record in records if record.key in chosen]


def build_loader(recipe: TrainRecipe, data: RunData, start_step: int, processes: int, rank: int) -> Iterable[Batch]:
    """Return the micro-batches of this process from `start_step` on."""
    batches = StepBatches(recipe.batch_size, recipe.steps, start_step, recipe.accumulate, processes, rank)
    loader: Iterable[Batch] = DataLoader(
        data.train,
        batch_sampler=batches,
        num_workers=loading_workers(recipe, data)[0],
        collate_fn=collate,
        worker_init_fn=ignore_interrupts,
        pin_memory=pins_batches(),
    )
    return loader


def loading_workers(recipe: TrainRecipe, data: RunData) -> tuple[int, str | None]:
    """Return the number of processes that load pictures, and what to say if it is less than `source.workers`.

    Together they take at most half of the free memory, or there is one. The samples don't depend on their number.
    """
    wanted, free = recipe.source.workers, available_bytes()
    if wanted <= 1 or free is None:
        return wanted, None
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    number = min(wanted, max(1, free // 2 // local // data.largest_bytes))
    if number == wanted:
        return wanted, None
    return number, (
        f"source.workers={wanted}: {number} are used, as the largest picture takes up to "
        f"{data.largest_bytes / 2**30:.1f} GiB to decode and {free / 2**30:.1f} GiB of memory are free"
    )


def ignore_interrupts(_worker: int) -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal: the training process stops the workers after saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
