"""Precision and recall of detectors against true boxes.

A detection matches a true box if their IoU reaches a threshold. Matches are one to one, greedily by falling IoU, so a
second detection of the same object is a false one. IoU ≥ 0.5 is the usual threshold (PASCAL VOC, BodyHands); 0.3 is
reported too, because the key points of a fist say little about its extent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.check import check_records
from fairhuman.detect.bundled import source_name
from fairhuman.detect.detection import Detection, LazyPictures, Picture
from fairhuman.detect.guard import guarded_map
from fairhuman.detect.hand_vote import with_flesh
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.overlap import corners, match_boxes
from fairhuman.detect.rates import TrueBoxes
from fairhuman.detect.settings import DetectParts, DetectSettings, detector_names, open_detectors
from fairhuman.detect.worker import Failure
from fairhuman.record import Box
from fairhuman.stats.estimate import Estimate, wilson
from fairhuman.utils.files import write_json, writing

OVERLAPS = (0.5, 0.3)
PLAIN = "plain hand"  # one pass of the hand detector, beside what the settings choose

Found = dict[str, list[Detection]]


@dataclass(frozen=True, slots=True)
class PartScore:
    """Precision and recall of one detector for one part.

    Attributes:
        part: `face`, `hand` or `person`.
        detector: name and version.
        overlap: IoU threshold of a match.
        pictures: number of pictures with known boxes on which the detector didn't fail.
        precision: matched share of the detections; too low if the annotation is incomplete.
        recall: matched share of the true boxes. Both have Wilson intervals; boxes in one picture aren't independent,
            so the intervals are slightly too narrow.
    """

    part: str
    detector: str
    overlap: float
    pictures: int
    precision: Estimate
    recall: Estimate

    def plain(self) -> dict[str, Any]:
        """The score as JSON-serializable values."""
        return {**asdict(self), "precision": self.precision.plain(), "recall": self.recall.plain()}

    def __str__(self) -> str:
        shares = {"precision": self.precision, "recall": self.recall}
        texts = [f"{name} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] of {one.n}" for name, one in shares.items()]
        where = f"{self.part} by {self.detector}, IoU >= {self.overlap:g}, {self.pictures} pictures"
        return f"{where}: {', '.join(texts)}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Scores by part, detector and overlap; and the reason for each picture on which a detector crashed or hung."""

    scores: tuple[PartScore, ...]
    failures: Mapping[int, str]

    def lines(self) -> list[str]:
        """One line per score, then one per picture that was left out."""
        return [*map(str, self.scores), *(f"picture {n}: left out, {reason}" for n, reason in self.failures.items())]

    def save(self, file: Path) -> None:
        """Write scores and failures as JSON."""
        with writing(file):
            write_json(file, {"scores": [score.plain() for score in self.scores], "failures": dict(self.failures)})


def benchmark_detectors(
    pictures: Sequence[Picture],
    true_boxes: TrueBoxes,
    settings: DetectSettings,
    *,
    overlaps: Sequence[float] = OVERLAPS,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Run detectors on pictures and compare with true boxes.

    For hands, a single pass of MediaPipe's hand detector over the full picture is scored too. Its boxes get the same
    margin for flesh, so that the comparison is about detection alone.

    Args:
        pictures: upright RGB pictures [H, W, 3], uint8; read one by one.
        true_boxes: part to the true boxes of each picture: None = unknown, ignored; () = known to be absent, so
            every detection is false. Parts without a detector in the settings are ignored too.
        settings: the detectors.
        overlaps: IoU thresholds of a match, in (0, 1].
        workers: number of processes.
        progress: called with (done, total) after every picture.

    Raises:
        ValueError: an overlap or `workers` is out of range; the number of pictures and boxes differs; no
            part has both a detector and true boxes.
        DetectorError: a detector can't be loaded.
    """
    _check(true_boxes, len(pictures), settings, overlaps)
    settings = settings.model_copy(update={part: None for part in settings.kinds if part not in true_boxes})
    found, failures = _detect(settings, pictures, workers, progress)
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
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Benchmark detectors on a data set with true boxes; unusable records are left out and noted in the report.

    Raises:
        DataError: the data set can't be read, has no annotation of a part, or has too many unusable records.
    """
    source = SourceSettings()
    records = read_source(path, parts, source, report)
    records = check_records(records, report, full=True, limits=source.limits, max_reject_share=source.max_reject_share)
    true_boxes = {part: [record.boxes.get(part) for record in records] for part in parts}
    pictures = LazyPictures(records, lambda one: np.asarray(decode(one.image, source.limits).picture))
    return benchmark_detectors(pictures, true_boxes, settings, workers=workers, progress=progress)


def _check(true_boxes: TrueBoxes, n: int, settings: DetectSettings, overlaps: Sequence[float]) -> None:
    for overlap in overlaps:
        if not 0 < overlap <= 1:
            raise ValueError(f"overlaps must be in (0, 1], not {overlap}")
    for part, boxes in true_boxes.items():
        if len(boxes) != n:
            raise ValueError(f"true_boxes[{part!r}] must have one entry per picture ({n}), not {len(boxes)}")
    if not true_boxes.keys() & settings.kinds.keys():
        detected, annotated = ", ".join(settings.kinds), ", ".join(true_boxes) or "none"
        raise ValueError(f"true_boxes must have a part with a detector ({detected}), not only {annotated}")


def _detect(
    settings: DetectSettings, pictures: Sequence[Picture], workers: int, progress: Callable[[int, int], None] | None
) -> tuple[dict[int, Found], dict[int, str]]:
    """Detections, or the reason of a failure, by the index of the picture."""
    found: dict[int, Found] = {}
    failures: dict[int, str] = {}
    with closing(guarded_map(partial(_open_detectors, settings), pictures, workers=workers)) as work:
        for done, (index, result) in enumerate(work, start=1):
            if isinstance(result, Failure):
                failures[index] = result.reason
            else:
                found[index] = result
            if progress is not None:
                progress(done, len(pictures))
    return found, failures


@contextmanager
def _open_detectors(settings: DetectSettings) -> Iterator[DetectParts]:
    """The chosen detectors and, if hands are detected, the single pass."""
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
    matched = sum(
        len(match_boxes(corners([one.box for one in found]), corners(truth), overlap)) for found, truth in known
    )
    detections, true_boxes = (sum(len(pair[side]) for pair in known) for side in (0, 1))
    return PartScore(part, detector, overlap, len(known), wilson(matched, detections), wilson(matched, true_boxes))
