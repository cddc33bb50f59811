"""Features of pictures by any network: batched, and cached as they come."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fairhuman.errors import FairHumanError
from fairhuman.evaluate.cache import FEATURES, Key, Rows
from fairhuman.evaluate.networks.extractor import Extractor, Features
from fairhuman.evaluate.pictures import Progress

KEEP_EVERY = 256  # pictures: what a kill costs at most, and the size of the cache's files


class ImageLike(Protocol):
    """A picture, or a part of one, that networks look at."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def prompt(self) -> str:
        """Empty where none is known."""
        ...

    @property
    def group(self) -> str:
        """What it has in common with others that aren't independent of it."""
        ...

    def key(self, with_prompt: bool = False) -> Key:
        """What it is known by in the cache."""
        ...

    def image(self) -> Image.Image:
        """The upright RGB picture."""
        ...


def features_of(
    extractor: Extractor,
    pictures: Sequence[ImageLike],
    cache: Path,
    workers: int = 2,
    progress: Progress = lambda *_: None,
) -> Features:
    """Features [N, width] of all pictures, in their order; only those that the cache lacks are computed.

    Raises:
        FairHumanError: features that aren't finite: names the picture; a network that needs prompts and gets none.

    """
    if extractor.reads_prompt and (silent := next((p.name for p in pictures if not p.prompt), None)) is not None:
        raise FairHumanError(f"{extractor.name} measures how a picture fits its prompt, and {silent} has none")
    rows: Rows[Features] = Rows(cache / f"{extractor.name}-{extractor.fingerprint}", FEATURES)
    keys = [picture.key(extractor.reads_prompt) for picture in pictures]
    known = rows.read(keys)
    new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
    items = iter(new.items())
    progress(extractor.name, len(known), len(set(keys)))
    while part := list(islice(items, KEEP_EVERY)):
        found = _extract(extractor, part, workers)
        rows.add(found)
        known.update(found)
        progress(extractor.name, len(known), len(set(keys)))
    return np.stack([known[key] for key in keys]) if keys else np.zeros((0, extractor.width), np.float32)


def _extract(extractor: Extractor, part: Sequence[tuple[Key, ImageLike]], workers: int) -> dict[Key, Features]:
    """Features of some pictures by key; threads decode while the network is at work."""

    def prepared(item: tuple[Key, ImageLike]) -> Tensor:
        return extractor.prepare(item[1].image())

    found: dict[Key, Features] = {}
    with ThreadPoolExecutor(workers) as pool:
        ready = pool.map(prepared, part)
        for first in range(0, len(part), extractor.batch_size):
            batch = part[first : first + extractor.batch_size]
            images_bchw = torch.stack(list(islice(ready, len(batch))))
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                features_bd = extractor.extract(images_bchw, [picture.prompt for _, picture in batch])
            for (key, picture), row in zip(batch, features_bd, strict=True):
                if not np.isfinite(row).all():
                    raise FairHumanError(f"{extractor.name}: features of {picture.name} aren't finite; check weights")
                found[key] = row
    return found
