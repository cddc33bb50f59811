"""Batched, cached computation of features with any network."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fairhuman.data.pipeline.cache import FEATURE_ROWS, CachedRows, CacheHealth, Key
from fairhuman.errors import FairHumanError
from fairhuman.evaluate.networks.extractor import Extractor, Features
from fairhuman.evaluate.pictures import Progress

KEEP_EVERY = 256  # pictures per cache file, and the most that an interruption loses


class ImageLike(Protocol):
    """A picture or crop that networks can process."""

    @property
    def name(self) -> str:
        """Name for messages."""
        ...

    @property
    def prompt(self) -> str:
        """Prompt; empty if unknown."""
        ...

    @property
    def group(self) -> str:
        """Key shared by pictures that aren't statistically independent."""
        ...

    def key(self, with_prompt: bool = False) -> Key:
        """Cache key of the content, and of the prompt if `with_prompt`."""
        ...

    def image(self) -> Image.Image:
        """The upright RGB picture."""
        ...


def extract_features(
    extractor: Extractor,
    pictures: Sequence[ImageLike],
    cache: Path,
    workers: int = 2,
    progress: Progress = lambda *_: None,
    health: CacheHealth | None = None,
) -> Features:
    """Features [N, width] of all pictures, in order; only features missing from the cache are computed.

    `health` notes damaged files of the cache.

    Raises:
        FairHumanError: features aren't finite, or the network reads prompts and a picture has none; names the picture.
    """
    if extractor.reads_prompt and (silent := next((p.name for p in pictures if not p.prompt), None)) is not None:
        raise FairHumanError(f"{extractor.name} needs a prompt for every picture, and {silent} has none")
    rows: CachedRows[Features] = CachedRows(cache / f"{extractor.name}-{extractor.fingerprint}", FEATURE_ROWS, health)
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
    """Features of some pictures by key; threads decode pictures while the network runs."""

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
                    raise FairHumanError(f"{extractor.name}: features of {picture.name} aren't finite, check weights")
                found[key] = row
    return found
