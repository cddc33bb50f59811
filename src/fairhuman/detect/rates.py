"""Detection rates of faces, hands and poses: how often, with which score, and whether in the right place.

`find_parts` runs the detectors, which takes time; `part_rates` is a pure function of the detections.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from fairhuman.detect.detection import Detection, Detector, Picture, check_picture, inside_any
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.guard import guarded_results, in_order
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.scale import enlarge, scale_back
from fairhuman.record import Box
from fairhuman.stats.estimate import Estimate, wilson

DetectionsByPart = Mapping[str, Sequence[Detection]]
TrueBoxes = Mapping[str, Sequence[Sequence[Box] | None]]

DETECTORS: Mapping[str, Callable[[], Detector]] = {"face": FaceDetector, "hand": HandDetector, "pose": PoseDetector}


@dataclass(frozen=True, slots=True)
class PartRates:
    """Detection rates of one part.

    The score of a picture is that of its best detection, so an additional false one doesn't change it. Each detector
    documents the meaning of its score.

    Attributes:
        found: share of pictures with at least one detection; with true boxes, only pictures with the part count.
        score_where_found: mean score over the pictures of `found` with a detection; NaN if there are none.
        score_zero_where_none: mean score over all pictures of `found`, with 0 for a picture without a detection.
        on_target: share of detections whose centre lies in a true box, over pictures with known boxes; None without
            true boxes. Detections in one picture aren't independent, so the interval is slightly too narrow.
    """

    found: Estimate
    score_where_found: float
    score_zero_where_none: float
    on_target: Estimate | None = None


def find_parts(
    images: Sequence[Picture],
    *,
    upscale: int = 4,
    detectors: Mapping[str, Callable[[], Detector]] = DETECTORS,
    workers: int = 1,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, list[Detection]]]:
    """All detections in every picture, by part, in pixels of the given pictures.

    Pictures are read one by one, so `images` may decode them on demand. The result doesn't depend on `workers`.

    Args:
        images: upright RGB pictures [H, W, 3], uint8.
        upscale: factor by which pictures of up to 256 px (longer side) are enlarged (Lanczos) before detection;
            1 = never.
        detectors: part to a class or function without arguments that creates its detector; picklable.
        workers: number of processes, each with its own detectors; the bundled ones take about 200 MB per process.
        seconds: time limit per picture.
        progress: called with (done, total) after every picture.

    Raises:
        ValueError: `upscale`, `workers` or `seconds` is out of range.
        DetectorError: detectors can't be loaded; or a picture is rejected, crashes them or takes too long (the message
            names the picture).
    """
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, not {upscale}")
    start = partial(_open_detectors, detectors, upscale)
    results = guarded_results(start, images, workers=workers, seconds=seconds)
    return in_order(results, len(images), progress)


def part_rates(
    found: Sequence[DetectionsByPart], expected: TrueBoxes | None = None, *, parts: Sequence[str] = tuple(DETECTORS)
) -> dict[str, PartRates]:
    """Detection rates of each part over pictures.

    Args:
        found: for each picture, part to detections.
        expected: part to the true boxes of each picture: None = unknown, () = known to be absent. A picture without
            a known box of a part doesn't count for `found`; a detection of a part known to be absent is off target.
        parts: names of the parts to compute.

    Raises:
        ValueError: `expected` has a part that isn't in `parts`, or a different number of pictures.
    """
    if expected is not None:
        _check_expected(expected, parts, len(found))
    rates = {}
    for part in parts:
        detections = [picture[part] for picture in found]
        truth = expected.get(part) if expected is not None else None
        rates[part] = _rates(detections, truth)
    return rates


def _rates(detections: Sequence[Sequence[Detection]], truth: Sequence[Sequence[Box] | None] | None) -> PartRates:
    counted = detections if truth is None else [d for d, boxes in zip(detections, truth, strict=True) if boxes]
    best = [max((one.score for one in picture), default=None) for picture in counted]
    scores = [score for score in best if score is not None]
    on_target = None
    if truth is not None:
        hits = [
            inside_any(one.centre, boxes)
            for picture, boxes in zip(detections, truth, strict=True)
            if boxes is not None
            for one in picture
        ]
        on_target = wilson(sum(hits), len(hits))
    return PartRates(
        found=wilson(len(scores), len(best)),
        score_where_found=fmean(scores) if scores else math.nan,
        score_zero_where_none=sum(scores) / len(best) if best else math.nan,
        on_target=on_target,
    )


def _check_expected(expected: TrueBoxes, parts: Sequence[str] | Mapping[str, object], n: int) -> None:
    for part, boxes in expected.items():
        if part not in parts:
            raise ValueError(f"expected must only have the parts {', '.join(parts)}, not {part!r}")
        if len(boxes) != n:
            raise ValueError(f"expected[{part!r}] must have one entry per picture ({n}), not {len(boxes)}")


@contextmanager
def _open_detectors(
    detectors: Mapping[str, Callable[[], Detector]], upscale: int
) -> Iterator[Callable[[Picture], dict[str, list[Detection]]]]:
    with ExitStack() as stack:
        opened = {part: stack.enter_context(make()) for part, make in detectors.items()}

        def find(image: Picture) -> dict[str, list[Detection]]:
            larger, factor = enlarge(check_picture(image), upscale)
            return {
                part: [scale_back(found, factor) for found in detector.detect(larger)]
                for part, detector in opened.items()
            }

        yield find
