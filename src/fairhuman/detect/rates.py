"""How often faces, hands and a pose are found in pictures, how surely, and whether in the right place.

Finding costs time and is done once (`find_parts`); the numbers are a pure function of what was found (`part_rates`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from fairhuman.detect.detection import Detection, Detector, Picture, check_picture, in_any
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.guard import guarded_results, in_order
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.scale import enlarged, reduced
from fairhuman.record import Box
from fairhuman.stats.estimate import Estimate, wilson

Found = Mapping[str, Sequence[Detection]]
Expected = Mapping[str, Sequence[Sequence[Box] | None]]

DETECTORS: Mapping[str, Callable[[], Detector]] = {"face": FaceDetector, "hand": HandDetector, "pose": PoseDetector}


@dataclass(frozen=True, slots=True)
class PartRates:
    """What was found of one part.

    The score of a picture is that of its best detection, so that a false one beside it changes nothing. What a score
    means is said by the detector.

    Attributes:
        found: share of pictures in which at least one is found; of those that have the part, where that is known.
        score_where_found: mean score over the pictures of `found` in which one is found; NaN if there is none.
        score_zero_where_none: the same over all pictures of `found`, those without a detection counting 0.
        on_target: share of detections whose centre lies in a true box, over pictures whose boxes are known; None
            without true boxes. Detections of one picture are not independent: its interval is a little too short.

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
    """All detections in every picture, by part; in pixels of the pictures as they are given.

    Pictures are taken one by one, so `images` may decode them on demand. The result doesn't depend on `workers`.

    Args:
        images: upright RGB pictures [H, W, 3], uint8.
        upscale: pictures of up to 256 px (longer side) are enlarged this many times (Lanczos) before detection;
            1 = never.
        detectors: part to a class or function without arguments that makes its detector; picklable.
        workers: number of processes, each with its own detectors; about 350 MB each with the bundled ones.
        seconds: time limit of one picture.
        progress: called with (done, all) after every picture.

    Raises:
        ValueError: `upscale`, `workers` or `seconds` is out of range.
        DetectorError: detectors can't be loaded, or a picture is refused, crashes them or takes too long: names it.

    """
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, not {upscale}")
    start = partial(_finders, detectors, upscale)
    results = guarded_results(start, images, workers=workers, seconds=seconds)
    return in_order(results, len(images), progress)


def part_rates(
    found: Sequence[Found], expected: Expected | None = None, *, parts: Sequence[str] = tuple(DETECTORS)
) -> dict[str, PartRates]:
    """Rates of each part over pictures.

    Args:
        found: for each picture, part to detections.
        expected: part to the true boxes of each picture: None = unknown, () = known to have none. A picture without
            a known box of a part doesn't count for `found`; a detection in a picture known to have none is off target.
        parts: names to report.

    Raises:
        ValueError: `expected` has a part that isn't in `parts`, or another number of pictures.

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
            in_any(one.centre, boxes)
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


def _check_expected(expected: Expected, parts: Sequence[str] | Mapping[str, object], n: int) -> None:
    for part, boxes in expected.items():
        if part not in parts:
            raise ValueError(f"expected must be of the parts {', '.join(parts)}, not {part!r}")
        if len(boxes) != n:
            raise ValueError(f"expected[{part!r}] must have an entry for each of {n} pictures, not {len(boxes)}")


@contextmanager
def _finders(
    detectors: Mapping[str, Callable[[], Detector]], upscale: int
) -> Iterator[Callable[[Picture], dict[str, list[Detection]]]]:
    with ExitStack() as stack:
        opened = {part: stack.enter_context(make()) for part, make in detectors.items()}

        def find(image: Picture) -> dict[str, list[Detection]]:
            larger, factor = enlarged(check_picture(image), upscale)
            return {
                part: [reduced(found, factor) for found in detector.detect(larger)] for part, detector in opened.items()
            }

        yield find
