"""Shared tools of the metric groups: settings, cache, device and progress."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState

from fairhuman.data.pipeline.cache import DETECTION_ROWS, CachedRows, CacheHealth
from fairhuman.detect.detection import LazyPictures, Picture
from fairhuman.evaluate.networks.extractor import Extractor, Features
from fairhuman.evaluate.networks.features import ImageLike, extract_features
from fairhuman.evaluate.pictures import EvalImage, Progress
from fairhuman.evaluate.results import Methods
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.utils.parse import parse_json

Value = TypeVar("Value")
WRITE_EVERY = 64  # pictures per write of detections to the cache


@dataclass(frozen=True)
class EvaluationTools:
    """Tools that the groups of one evaluation share.

    With several processes (`accelerate launch`), each computes its share of the features into the cache; then all read
    the cache.

    Attributes:
        health: what reading the cache has found out so far.
    """

    settings: EvaluateSettings
    cache: Path
    state: PartialState
    progress: Progress
    health: CacheHealth = field(default_factory=CacheHealth)

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        return torch.device(self.state.device)

    def features(self, extractor: Extractor, pictures: Sequence[ImageLike]) -> Features:
        """Features of all pictures [N, width]."""
        if self.state.num_processes > 1:
            own = pictures[self.state.process_index :: self.state.num_processes]
            extract_features(extractor, own, self.cache, self.settings.workers, self.progress)
            self.state.wait_for_everyone()
        return extract_features(extractor, pictures, self.cache, self.settings.workers, self.progress, self.health)

    def cached_rows(self, kind: str) -> CachedRows[str]:
        """Detections of a kind, which is the name of their folder in the cache."""
        return CachedRows(self.cache / kind, DETECTION_ROWS, self.health)

    def cached_detections(
        self,
        kind: str,
        pictures: Sequence[EvalImage],
        find: Callable[[Sequence[Picture]], Iterable[tuple[int, Value]]],
        dump: Callable[[Value], object],
        load: Callable[[object], Value],
    ) -> list[Value]:
        """Detections in all pictures, cached in the folder `kind` every `WRITE_EVERY` pictures.

        `find` yields (index, detections) of pictures as they finish; `dump` and `load` convert detections to a JSON
        value and back.
        """
        rows = self.cached_rows(kind)
        own = pictures[self.state.process_index :: self.state.num_processes]
        known = set(rows.read([picture.sha256 for picture in own]))
        new = list({picture.sha256: picture for picture in own if picture.sha256 not in known}.values())
        self.progress(kind, len(known), len(known) + len(new))
        part: dict[bytes, str] = {}
        for done, (index, one) in enumerate(find(lazy_pictures(new)), start=1):
            part[new[index].sha256] = json.dumps(dump(one))
            if len(part) == WRITE_EVERY or done == len(new):
                rows.add(part)
                part = {}
            self.progress(kind, len(known) + done, len(known) + len(new))
        self.state.wait_for_everyone()
        everything = rows.read([picture.sha256 for picture in pictures])
        return [load(parse_json(everything[picture.sha256])) for picture in pictures]


def by_method(methods: Methods, find: Callable[[Sequence[EvalImage]], Sequence[Value]]) -> dict[str, list[Value]]:
    """What is found in each method's pictures, in one pass over those of all, so that a detector starts once."""
    found = iter(find([picture for pictures in methods.values() for picture in pictures]))
    return {name: list(islice(found, len(pictures))) for name, pictures in methods.items()}


def lazy_pictures(pictures: Sequence[EvalImage]) -> LazyPictures:
    """Pictures that are decoded on access."""
    return LazyPictures(pictures, lambda picture: np.asarray(picture.image()))
