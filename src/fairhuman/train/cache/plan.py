"""The caches of a run: location, size when complete, messages."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.bases.base import base_of
from fairhuman.data.samples.encodings import RESERVE, Encodings, count_other_networks
from fairhuman.models.fingerprint import encoded_size, text_fingerprint, vae_fingerprint
from fairhuman.models.registry import DTYPES
from fairhuman.models.resting import Resting
from fairhuman.train.cache.latents import LatentCache
from fairhuman.train.cache.texts import TextCache
from fairhuman.train.data import RunData
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import cache_folder, nearest_existing


@dataclass(frozen=True)
class Budget:
    """The complete size of a run's caches: number of entries, and bytes per entry."""

    folder: Path
    views: int
    view_bytes: int
    texts: int
    text_bytes: int

    @property
    def needed(self) -> int:
        """Bytes of all entries."""
        return self.views * self.view_bytes + self.texts * self.text_bytes

    @property
    def room(self) -> int:
        """Bytes that may be written: free disk space minus the reserve."""
        return max(0, shutil.disk_usage(nearest_existing(self.folder)).free - RESERVE)

    def line(self) -> str:
        """Return a one-line summary."""
        parts = [
            f"{count} {name} of {size / 1000:.0f} KB"
            for count, name, size in ((self.views, "latents", self.view_bytes), (self.texts, "texts", self.text_bytes))
            if count
        ]
        whole = f"{_mib(self.needed)} when complete ({', '.join(parts)})"
        return f"cache {self.folder}: {whole}; {_mib(self.room)} may be used"


def budget(recipe: TrainRecipe, data: RunData) -> Budget:
    """Return the complete size of the caches, from the numbers of views and unique captions.

    Raises:
        ModelError: the model's folder has no readable configurations.
    """
    size = encoded_size(recipe.model)
    flips = 1 if recipe.view.flip_probability in (0.0, 1.0) else 2
    views = len(data.train) * flips * recipe.cache.variants + sum(map(len, data.datasets[1:]))
    return Budget(
        recipe.cache.folder or cache_folder() / "encodings",
        views if recipe.cache.latents else 0,
        size.latent_bytes(recipe.size),
        len(captions(recipe, data)) if recipe.cache.text else 0,
        size.text_bytes,
    )


def captions(recipe: TrainRecipe, data: RunData) -> list[str]:
    """Return the unique captions that a run reads."""
    found = dict.fromkeys(record.caption for dataset in data.datasets for record in dataset.records)
    return list(found | ({"": None} if recipe.view.caption_dropout > 0.0 else {}))


class Caches:
    """The caches that a recipe enables, and which networks are on the device when.

    Args:
        recipe, data: the run's.
        pipeline: the model's; networks whose results are cached are in main memory.
        device: where networks work.
        trained: networks on the device that a step needs, and that can leave it.

    Attributes:
        latents, texts: None where disabled.
        data: the run's data, which skips decoding of pictures whose latents are cached.
        trained: rests while text encoders work.
    """

    def __init__(
        self, recipe: TrainRecipe, data: RunData, pipeline: Any, device: torch.device, trained: Sequence[nn.Module] = ()
    ) -> None:
        self.recipe = recipe
        self.trained = Resting(trained, device)
        base = base_of(pipeline)
        self.budget = budget(recipe, data)
        self.latents: LatentCache | None = None
        self.texts: TextCache | None = None
        self.data = data
        if recipe.cache.latents:
            kept = Encodings(self.budget.folder / f"latents-{vae_fingerprint(pipeline)}")
            self.latents = LatentCache(kept, base, device)
            self.data = data.reading(kept)
        if recipe.cache.text:
            precision = DTYPES[recipe.precision]
            kept = Encodings(self.budget.folder / f"texts-{text_fingerprint(pipeline, precision)}")
            self.texts = TextCache(kept, base, precision, device)

    @property
    def kept(self) -> dict[str, Encodings]:
        """The tensors on disk, by cache name."""
        caches = {"latents": self.latents, "texts": self.texts}
        return {name: cache.kept for name, cache in caches.items() if cache is not None}

    def opening_messages(self) -> list[str]:
        """Return the messages to show before the first step."""
        if not self.kept:
            return []
        lines = [self.budget.line()]
        for name, kept in self.kept.items():
            unused = count_other_networks(kept.folder)
            lines.append(
                f"  {name}: {len(kept)} cached by all runs"
                + (
                    f"; {kept.unchecked} of an earlier version without digests, used unchecked"
                    if kept.unchecked
                    else ""
                )
                + (
                    f"; {kept.unbound} of an earlier version whose digests don't cover their model, used as before"
                    if kept.unbound
                    else ""
                )
                + (f"; {unused} of other models, not used" if unused else "")
            )
        if self.missing > self.budget.room:
            lines.append(f"  about {_mib(self.missing)} more are needed: whatever doesn't fit is recomputed each time")
        return lines

    @property
    def missing(self) -> int:
        """Bytes still to be written, assuming that all cached tensors belong to this run."""
        plan = self.budget
        texts, views = (len(cache.kept) if cache is not None else 0 for cache in (self.texts, self.latents))
        return max(0, plan.texts - texts) * plan.text_bytes + max(0, plan.views - views) * plan.view_bytes

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Have the text encoders on the device inside the block, and what else can be in main memory there."""
        with ExitStack() as stack:
            if self.texts is not None:
                stack.enter_context(self.trained.asleep())
                if self.latents is not None:
                    stack.enter_context(self.latents.vae.asleep())
                stack.enter_context(self.texts.encoders.awake())
            yield

    def with_room(self, work: Callable[[], Tensor]) -> Tensor:
        """Return the result of `work`, which needs the VAE alone.

        If the device has too little memory, the trained network rests meanwhile.
        """
        with nullcontext() if self.latents is None else self.latents.vae.awake():
            return self.trained.with_room(work)

    def new_messages(self) -> list[str]:
        """Return the messages since the last call."""
        found = [text for kept in self.kept.values() for text in kept.notes]
        for kept in self.kept.values():
            kept.notes.clear()
        return found

    def close(self) -> list[str]:
        """Write all pending tensors; return the remaining messages."""
        for kept in self.kept.values():
            kept.flush()
        changed = sum(kept.changed for kept in self.kept.values())
        messages = [f"cache: re-encoded {changed} views, as their pictures have changed"] if changed else []
        return self.new_messages() + messages + self.damage()

    def damage(self) -> list[str]:
        """Return a line for each cache that had damaged tensors."""
        return [
            f"{kept.folder}: {kept.damaged} {name} were damaged and have been computed again"
            for name, kept in self.kept.items()
            if kept.damaged
        ]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
