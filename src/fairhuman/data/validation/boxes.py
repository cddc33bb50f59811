"""Boxes of faces, hands and persons that a source doesn't have and a filter needs.

They are cached by the hash of the picture and the detector: an interrupted call, and sets of other seeds, detect
nothing twice.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fairhuman.data.pictures.decode import PictureLimits, decode
from fairhuman.data.pipeline.cache import DETECTION_ROWS, CachedRows, CacheHealth
from fairhuman.data.pipeline.detect import SECONDS
from fairhuman.data.pipeline.rows import boxes_from_lists, boxes_to_lists
from fairhuman.detect.detection import LazyPictures
from fairhuman.detect.guard import guarded_map
from fairhuman.detect.settings import DetectSettings, Part, detector_names, open_detectors
from fairhuman.detect.worker import Failure
from fairhuman.record import Box, HumanRecord
from fairhuman.utils.files import cache_folder, digest
from fairhuman.utils.parse import parse_json

BLOCK = 32  # pictures between two writes of the cache
WORKERS = min(4, os.cpu_count() or 1)


@dataclass
class FoundBoxes:
    """Detected boxes by key and part, () where there is none; names of the detectors by part; failures by key.

    `notes` says which files of the cache were damaged, so that pictures were looked at again, or couldn't be checked.
    """

    boxes: dict[str, dict[str, tuple[Box, ...]]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_boxes(
    records: Mapping[str, HumanRecord],
    digests: Mapping[str, str],
    wanted: Mapping[str, Sequence[Part]],
    settings: DetectSettings,
    limits: PictureLimits,
    progress: Callable[[int, int], None],
) -> FoundBoxes:
    """Detect the wanted parts of records whose pictures have these SHA-256 digests.

    A picture on which the detectors fail isn't cached, so the next call tries it again.

    Raises:
        DetectorError: a detector can't be loaded.
    """
    if not wanted:
        return FoundBoxes()
    parts = {part for of_one in wanted.values() for part in of_one}
    settings = settings.model_copy(update=dict.fromkeys(set(settings.kinds) - parts))
    names = detector_names(settings)
    found = FoundBoxes(names={str(part): name for part, name in names.items()})
    health = CacheHealth("cache of boxes")
    caches = {part: _cache(part, name, settings, health) for part, name in names.items()}
    keys = {key: bytes.fromhex(digests[key]) for key in wanted}
    known = {part: cache.read(keys.values()) for part, cache in caches.items()}
    for key, of_one in wanted.items():
        rows = {part: known[part].get(keys[key]) for part in of_one}
        if None not in rows.values():
            found.boxes[key] = {part: _boxes(str(row)) for part, row in rows.items()}
    left = {key: of_one for key, of_one in wanted.items() if key not in found.boxes}
    _detect(records, left, keys, settings, limits, caches, found, len(wanted), progress)
    found.notes += health.settle()
    return found


def _detect(
    records: Mapping[str, HumanRecord],
    wanted: Mapping[str, Sequence[Part]],
    keys: Mapping[str, bytes],
    settings: DetectSettings,
    limits: PictureLimits,
    caches: Mapping[Part, CachedRows[str]],
    found: FoundBoxes,
    total: int,
    progress: Callable[[int, int], None],
) -> None:
    """Detect all parts of `settings` in pictures that the caches lack; `found` gets the wanted ones, the caches all."""
    order = list(wanted)
    pictures = LazyPictures(order, lambda key: np.asarray(decode(records[key].image, limits).picture))
    fresh: dict[str, dict[Part, tuple[Box, ...]]] = {}

    def keep() -> None:
        for part, cache in caches.items():
            cache.add({keys[key]: json.dumps(boxes_to_lists(boxes[part])) for key, boxes in fresh.items()})
        fresh.clear()

    done = total - len(order)
    progress(done, total)
    work = guarded_map(partial(open_detectors, settings), pictures, workers=WORKERS, seconds=SECONDS)
    with closing(work):
        try:
            for index, answer in work:
                key, done = order[index], done + 1
                if isinstance(answer, Failure):
                    found.failures[key] = answer.reason
                else:
                    fresh[key] = {part: tuple(one.box for one in answer[part]) for part in caches}
                    found.boxes[key] = {part: fresh[key][part] for part in wanted[key]}
                if len(fresh) == BLOCK:
                    keep()
                progress(done, total)
        finally:
            keep()


def _cache(part: Part, name: str, settings: DetectSettings, health: CacheHealth) -> CachedRows[str]:
    alone = settings.model_copy(update=dict.fromkeys(set(settings.kinds) - {part}))
    return CachedRows(_folder(part, f"{name} {json.dumps(alone.decisive())}"), DETECTION_ROWS, health)


def _folder(part: str, how: str) -> Path:
    return cache_folder() / "boxes" / f"{part}-{digest(how)[:12]}"


def _boxes(row: str) -> tuple[Box, ...]:
    return boxes_from_lists(parse_json(row)) or ()
