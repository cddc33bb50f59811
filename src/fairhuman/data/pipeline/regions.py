"""The tier of further regions, `detect.regions`: parts of the body by the bundled models, anything else by words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow
from PIL import Image

from fairhuman.data.pictures.encode import encode_png
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import BOXES, SEARCHED, RowReader, boxes_to_lists, person_columns
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow, cuda_device
from fairhuman.detect.detection import Picture
from fairhuman.detect.found_region import FoundRegion
from fairhuman.detect.named_regions import NamedRegions
from fairhuman.detect.settings import BUNDLED, DetectSettings
from fairhuman.detect.worker import Failure
from fairhuman.record import region_column


def of_bodies(detect: DetectSettings) -> tuple[str, ...]:
    """The further regions that are parts of bodies, found person by person."""
    return tuple(name for name, finder in detect.regions.items() if finder == BUNDLED)


@dataclass(frozen=True)
class RegionTier:
    """Finds the further regions that the source doesn't annotate, each with boxes, scores and a mask.

    The table doesn't depend on that of faces, hands and persons, so another region detects none of them again.
    """

    reader: RowReader
    detect: DetectSettings

    name: ClassVar[str] = "regions"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("check",)

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that determine the results: of each kind of region, those of its models."""
        kinds = self.detect.regions.values()
        own: dict[str, Any] = {"regions": dict(self.detect.regions)}
        if BUNDLED in kinds:
            own |= {"confidence": self.detect.mediapipe.person_confidence, "upscale": self.detect.upscale}
            own |= {"persons": self.detect.max_persons}
        return own | ({"words": self.detect.words.decisive()} if set(kinds) - {BUNDLED} else {})

    @property
    def gpu(self) -> str | None:
        """The CUDA device of the models that find regions by words."""
        return cuda_device(self.detect.words.device) if set(self.detect.regions.values()) - {BUNDLED} else None

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Columns of the table: boxes with scores, and the mask as a PNG; null where nothing had to be found.

        Of a part of the body also the number of each box's person; and of how many persons parts were looked for.
        """
        columns: list[tuple[str, pyarrow.DataType]] = []
        for region in self.detect.regions:
            columns += [(region_column(region), BOXES), (f"{region}_mask", pyarrow.binary())]
            columns += [(f"{region}_by", pyarrow.string())]
        return columns + person_columns(of_bodies(self.detect))

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:  # noqa: ARG002 - the protocol's signature
        """None: nothing is converted."""
        return ()

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        """Load the models."""
        detect, confidence = self.detect, self.detect.mediapipe.person_confidence
        with NamedRegions(detect.regions, detect.words, confidence, detect.upscale, detect.max_persons) as finder:
            yield lambda items: self._process(items, finder)

    def _process(self, items: Sequence[TierRow], finder: NamedRegions) -> list[TierResult]:
        starts, size = range(0, len(items), finder.batch_size), finder.batch_size
        return [result for start in starts for result in self._batch(items[start : start + size], finder)]

    def _batch(self, items: Sequence[TierRow], finder: NamedRegions) -> list[TierResult]:
        results: dict[int, TierResult] = {}
        pictures: dict[int, Picture] = {}
        wanted = [self._missing(item.earlier["check"]) for item in items]
        for number, item in enumerate(items):
            check = item.earlier["check"]
            try:
                if wanted[number]:
                    pictures[number] = np.asarray(self.reader.decoded(self.reader.checked(item.row, check), check))
            except PictureError as error:
                results[number] = TierResult.failure(error)
        answers = finder.find(list(pictures.values()), [wanted[number] for number in pictures])
        for number, found in zip(pictures, answers, strict=True):
            if isinstance(found, Failure):
                results[number] = TierResult({}, "failed", "detector failed", found.reason)
            else:
                results[number] = TierResult(_columns(wanted[number], found, finder.sources))
        return [results.get(number, TierResult()) for number in range(len(items))]

    def _missing(self, check: Mapping[str, Any]) -> list[str]:
        """The regions that the source doesn't annotate."""
        return [
            region
            for region in self.detect.regions
            if check.get(region_column(region)) is None and region not in check["masks"]
        ]


def _columns(wanted: Sequence[str], found: Mapping[str, FoundRegion], sources: Mapping[str, str]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for region in wanted:
        one = found.get(region)
        columns[f"{region}_by"] = sources[region]
        columns[region_column(region)] = boxes_to_lists(() if one is None else one.boxes)
        if one is not None and one.mask_hw is not None:
            columns[f"{region}_mask"] = encode_png(Image.fromarray(one.mask_hw.astype(np.uint8) * 255))
        if one is not None and one.persons is not None:
            columns |= {f"{region}_persons": list(one.persons), SEARCHED: one.searched}
    return columns
