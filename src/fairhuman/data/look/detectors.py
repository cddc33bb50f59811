"""Precision and recall of detectors against true boxes.

A true box is found by a detection whose IoU with it reaches a threshold; they are matched one to one, greedily from
the largest IoU down, so a second detection of the same thing is a false one. IoU ≥ 0.5 is the usual rule (PASCAL VOC,
BodyHands); 0.3 is given beside it, since a fist's key points say little about how far its flesh goes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.check import check_records
from fairhuman.detect.bundled import source_name
from fairhuman.detect.detection import Detection, Picture
from fairhuman.detect.guard import guarded_map
from fairhuman.detect.hand_vote import with_flesh
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.overlap import corners, matches
from fairhuman.detect.rates import Expected
from fairhuman.detect.settings import DetectSettings, Finder, detector_names, open_detectors
from fairhuman.detect.worker import Failure
from fairhuman.errors import RecipeError
from fairhuman.record import Box, HumanRecord
from fairhuman.stats.estimate import Estimate, wilson
from fairhuman.utils.files import write_json, writing

OVERLAPS = (0.5, 0.3)
PLAIN = "plain hand"  # one pass of the hand detector, beside what the settings choose

Found = dict[str, list[Detection]]


@dataclass(frozen=True, slots=True)
class PartScore:
    """How well one detector finds one part.

    Attributes:
        part: `face`, `hand` or `person`.
        detector: its name and version.
        overlap: least IoU of a match.
        pictures: number of pictures whose boxes are known, and on which the detector came back.
        precision: matched share of the detections; too low where the annotation leaves things out.
        recall: found share of the true boxes. Both have Wilson intervals; boxes of one picture aren't independent, so
            these are a little too short.

    """

    part: str
    detector: str
    overlap: float
    pictures: int
    precision: Estimate
    recall: Estimate

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "precision": self.precision.plain(), "recall": self.recall.plain()}

    def __str__(self) -> str:
        shares = {"precision": self.precision, "recall": self.recall}
        said = [f"{name} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] of {one.n}" for name, one in shares.items()]
        where = f"{self.part} by {self.detector}, IoU >= {self.overlap:g}, {self.pictures} pictures"
        return f"{where}: {', '.join(said)}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Scores by part, detector and overlap; and pictures left out because a detector crashed or hung, with why."""

    scores: tuple[PartScore, ...]
    failures: Mapping[int, str]

    def lines(self) -> list[str]:
        """A line for each score, then one for each picture that was left out."""
        return [*map(str, self.scores), *(f"picture {n}: left out, {reason}" for n, reason in self.failures.items())]

    def save(self, file: Path) -> None:
        """Write all numbers as JSON."""
        with writing(file):
            write_json(file, {"scores": [score.plain() for score in self.scores], "failures": dict(self.failures)})


def benchmark_detectors(
    pictures: Sequence[Picture],
    true_boxes: Expected,
    settings: DetectSettings,
    *,
    overlaps: Sequence[float] = OVERLAPS,
    workers: int = 1,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Run the detectors on pictures and compare.

    For hands, a plain pass of MediaPipe's hand detector over the whole picture is scored beside the chosen one; its
    boxes get the same edge for flesh, so that the comparison is about finding.

    Args:
        pictures: upright RGB pictures [H, W, 3], uint8; asked for one by one.
        true_boxes: part to the true boxes of each picture: None = unknown, left out; () = known to have none, so
            every detection there is false. Parts that the settings don't look for are left out too.
        settings: the detectors.
        overlaps: least IoUs of a match, in (0, 1].
        workers: number of processes.
        seconds: time limit of one picture.
        progress: called with (done, all) after every picture.

    Raises:
        ValueError: an overlap, `workers` or `seconds` is out of range; a number of pictures is wrong; no part has
            both a detector and true boxes.
        DetectorError: a detector can't be loaded.

    """
    _check(true_boxes, len(pictures), settings, overlaps)
    settings = settings.model_copy(update={part: None for part in settings.kinds if part not in true_boxes})
    found: dict[int, Found] = {}
    failures: dict[int, str] = {}
    with closing(guarded_map(partial(_finders, settings), pictures, workers=workers, seconds=seconds)) as work:
        for done, (index, result) in enumerate(work, start=1):
            if isinstance(result, Failure):
                failures[index] = result.reason
            else:
                found[index] = result
            if progress is not None:
                progress(done, len(pictures))
    rows: list[tuple[str, str, str]] = [(part, part, name) for part, name in detector_names(settings).items()]
    if settings.hand is not None:
        rows.append(("hand", PLAIN, source_name(HandDetector.MODEL)))
    scores = [
        _score(
            part, name, [(picture[key], true_boxes[part][index]) for index, picture in sorted(found.items())], overlap
        )
        for part, key, name in rows
        for overlap in overlaps
    ]
    return Benchmark(tuple(scores), dict(sorted(failures.items())))


def benchmark_data_set(
    path: Path,
    settings: DetectSettings,
    report: LoadReport,
    *,
    parts: Sequence[str] = ("face", "hand"),
    source: SourceSettings | None = None,
    workers: int = 1,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """The same over a data set that holds true boxes; what can't be used of it is left out and noted in the report.

    Raises:
        DataError: the data set can't be read, annotates none of a part, or too much of it can't be used.
        RecipeError: a part that no settings know.

    """
    for part in parts:
        if part not in settings.kinds:
            raise RecipeError(f"--part must be one of {', '.join(settings.kinds)}, found {part!r}")
    source = source or SourceSettings()
    records = read_source(path, parts, source, report)
    records = check_records(records, report, full=True, limits=source.limits, max_reject_share=source.max_reject_share)
    true_boxes = {part: [record.boxes.get(part) for record in records] for part in parts}
    pictures = _Decoded(records, source)
    return benchmark_detectors(pictures, true_boxes, settings, workers=workers, seconds=seconds, progress=progress)


class _Decoded(Sequence[Picture]):
    """Pictures of records, each decoded when it is asked for."""

    def __init__(self, records: Sequence[HumanRecord], source: SourceSettings) -> None:
        self._records, self._limits = records, source.limits

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...

    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return np.asarray(decode(self._records[index].image, self._limits).picture)


def _check(true_boxes: Expected, n: int, settings: DetectSettings, overlaps: Sequence[float]) -> None:
    for overlap in overlaps:
        if not 0 < overlap <= 1:
            raise ValueError(f"overlaps must be in (0, 1], not {overlap}")
    for part, boxes in true_boxes.items():
        if len(boxes) != n:
            raise ValueError(f"true_boxes[{part!r}] must have an entry for each of {n} pictures, not {len(boxes)}")
    if not true_boxes.keys() & settings.kinds.keys():
        looked_for, known = ", ".join(settings.kinds), ", ".join(true_boxes) or "none"
        raise ValueError(f"true_boxes must be of a part that is looked for ({looked_for}), not {known}")


@contextmanager
def _finders(settings: DetectSettings) -> Iterator[Finder]:
    """The chosen detectors and, where hands are looked for, the plain pass."""
    with ExitStack() as stack:
        find = stack.enter_context(open_detectors(settings))
        if settings.hand is None:
            yield find
            return
        plain = stack.enter_context(HandDetector())

        def find_all(image: Picture) -> Found:
            return find(image) | {PLAIN: [with_flesh(hand, image) for hand in plain.detect(image)]}

        yield find_all


def _score(
    part: str, detector: str, pairs: Sequence[tuple[Sequence[Detection], Sequence[Box] | None]], overlap: float
) -> PartScore:
    known = [(found, truth) for found, truth in pairs if truth is not None]
    matched = sum(len(matches(corners([one.box for one in found]), corners(truth), overlap)) for found, truth in known)
    detections, things = (sum(len(pair[side]) for pair in known) for side in (0, 1))
    return PartScore(part, detector, overlap, len(known), wilson(matched, detections), wilson(matched, things))
