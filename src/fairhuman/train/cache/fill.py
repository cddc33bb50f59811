"""Fill the caches: before a run, for `fairhuman data cache RECIPE`, or before its first step."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from fairhuman.data.pictures.notes import LoadReport, Note, note
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.encodings import Encodings
from fairhuman.data.samples.views import View
from fairhuman.errors import FairHumanError, RecipeError
from fairhuman.train.cache.plan import Caches, captions
from fairhuman.train.data import RunData, ignore_interrupts, load_data, loading_workers
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import digest
from fairhuman.utils.torch_device import default_device

Progress = Callable[[str, int, int | None], None]
Views = list[tuple[View, torch.Tensor | None]]
Item = tuple[Views, Note | None]


@dataclass(frozen=True)
class CacheFill:
    """Counts by cache, and notes on bad pictures.

    kept: tensors of the recipe that were cached already.
    new: tensors of the recipe that were computed now.
    unused: cached tensors that the recipe doesn't use.
    changed: views recomputed because their picture has changed.
    damage: a line for each cache that had damaged tensors, which were recomputed.
    """

    kept: dict[str, int]
    new: dict[str, int]
    unused: dict[str, int]
    changed: int
    damage: list[str]
    notes: list[Note]

    def lines(self) -> list[str]:
        """Notes and counts in lines of text."""
        lines = [str(note) for note in self.notes]
        for name, new in self.new.items():
            unused = (
                f"; {self.unused[name]} others that this recipe and its data don't use" if self.unused[name] else ""
            )
            lines.append(f"{name}: {new} computed, {self.kept[name]} in the cache already{unused}")
        if self.changed:
            lines.append(f"{self.changed} new views are of pictures that have changed; their old latents aren't used")
        return lines + self.damage


class _EveryView(Dataset[Item]):
    """One item per record: its views, or a note on why there are none."""

    def __init__(self, people: PeopleDataset) -> None:
        self._people = people
        self._resolutions = people.resolutions_of_records()

    def __len__(self) -> int:
        return len(self._people)

    def __getitem__(self, index: int) -> Item:
        try:
            return self._people.views(index, self._resolutions[index]), None
        except PictureError as error:
            record = self._people.records[index]
            return [], note(record.location or record.key, "cache", error.finding)


class _ShownViews(Dataset[Item]):
    """One item per position: the view of its sample."""

    def __init__(self, people: PeopleDataset, positions: range) -> None:
        self._people, self._positions = people, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> Item:
        sample = self._people[self._positions[number]]
        assert sample.view is not None, "the data set reads from a cache"
        return [(sample.view, sample.picture_chw)], None


def views_to_come(data: RunData, positions: range) -> ConcatDataset[Item]:
    """Return the views of a run's samples and of its held-out pictures, with pictures where latents aren't cached.

    Of the samples these are the views of `positions`, or, if there are fewer, all views of their records.
    """
    train, *others = data.datasets
    records: set[int] = set()
    for position in positions:
        records.add(train.order.index(position))
        if len(records) == len(train):
            break
    flips = 1 if train.transform.flip_probability in (0.0, 1.0) else 2
    few = len(positions) <= len(records) * flips * max(1, train.variants)
    shown = _ShownViews(train, positions) if few else Subset(_EveryView(train), sorted(records))
    return ConcatDataset([shown, *map(_EveryView, others)])


def encoded(items: Dataset[Item], caches: Caches, recipe: TrainRecipe) -> Generator[Item, None, None]:
    """Load items and cache the latents of their views; yield each item when its views are done.

    The trained network rests from the first view that has to be encoded to the end.
    """
    assert caches.latents is not None, "the recipe caches latents"
    workers = loading_workers(recipe, caches.data)[0]
    with ExitStack() as stack:
        for views, found in DataLoader(items, batch_size=None, num_workers=workers, worker_init_fn=ignore_interrupts):
            for view, picture_chw in views:
                if picture_chw is not None:
                    if not caches.trained.resting:
                        stack.enter_context(caches.trained.asleep())
                    caches.latents.moments_of(view.key, view.origin, picture_chw.to(caches.trained.device))
            yield views, found


def fill(recipe: TrainRecipe, report: LoadReport, say: Callable[[str], None], progress: Progress) -> CacheFill:
    """Compute all missing latents and embeddings that a run can use; call again to resume.

    `progress` receives the cache's name, the number of items done, and their total.

    Raises:
        RecipeError: the recipe enables no cache.
        FairHumanError: not enough disk space, a folder that can't be written, invalid data or model.
    """
    if not (recipe.cache.latents or recipe.cache.text):
        raise RecipeError("nothing to compute: cache.latents and cache.text are both false")
    data = load_data(recipe, report)
    device = default_device()
    # the network, which isn't needed, stays in main memory
    caches = Caches(recipe, data, build_model(recipe, torch.device("cpu")).pipeline, device)
    for text in caches.opening_messages() + caches.new_messages():
        say(text)
    room = caches.budget.room
    if caches.missing > room:
        raise FairHumanError(
            f"{caches.budget.folder}: about {caches.missing / 2**20:,.0f} MiB more are needed, but only "
            f"{room / 2**20:,.0f} MiB may be used; free space, or set cache.folder to another folder"
        )
    notes: list[Note] = []
    try:
        views = _fill_latents(caches, recipe, notes, progress)
        wanted = {"latents": views, "texts": _fill_texts(caches, progress)}
    finally:
        for kept in caches.kept.values():
            kept.flush()
    for kept in caches.kept.values():
        _check(kept)
    new = {name: kept.added for name, kept in caches.kept.items()}
    return CacheFill(
        {name: wanted[name] - new[name] for name in caches.kept},
        new,
        {name: len(kept) - wanted[name] for name, kept in caches.kept.items()},
        sum(kept.changed for kept in caches.kept.values()),
        caches.damage(),
        notes,
    )


def _fill_latents(caches: Caches, recipe: TrainRecipe, notes: list[Note], progress: Progress) -> int:
    """Cache the latents of all views; return the number of views."""
    if caches.latents is None:
        return 0
    seen: set[str] = set()
    every: ConcatDataset[Item] = ConcatDataset([_EveryView(people) for people in caches.data.datasets])
    for done, (views, found) in enumerate(encoded(every, caches, recipe), start=1):
        if found is not None:
            notes.append(found)
        seen.update(view.key for view, _ in views)
        _check(caches.latents.kept)
        progress("latents", done, len(every))
    return len(seen)


def _fill_texts(caches: Caches, progress: Progress) -> int:
    """Cache the embeddings of all captions; return the number of captions."""
    if caches.texts is None:
        return 0
    found = captions(caches.recipe, caches.data)
    with caches.encoding() if caches.texts.missing(found) else nullcontext():
        for done, caption in enumerate(found, start=1):
            caches.texts.texts([caption])
            _check(caches.texts.kept)
            progress("texts", done, len(found))
    return len({digest(caption) for caption in found})


def _check(kept: Encodings) -> None:
    """Raise if the cache can't store more: unlike a run, filling has no use without it."""
    if kept.full:
        raise FairHumanError(kept.notes[-1])
