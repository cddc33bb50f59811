"""Strict face and hand confidence: expected parts that aren't found count 0, found ones are rated by quality.

Quality of a detected part, each factor in 0..1:

    face:  presence · agreement
    hand:  presence · agreement · plausibility  (`hand_shape`)

Presence is the landmark model's presence score, averaged over several looks; agreement measures whether these looks
return the same landmarks. The detectors' own scores aren't used: a pixelated face keeps most of its score, and
MediaPipe's hand score is the confidence in left versus right. Nor are distances between a face's landmarks, because the
model draws a plausible face over anything. On 100 street photos the confidence of faces is 0.91. Pixelated to 16 cells
across the face it drops to 0.56, to 8 cells 0.01 (`benchmarks/results/sensitivity.json`), while the face detector's own
score only drops from 0.86 to 0.85 and 0.82.

A picture's confidence is the mean quality of its expected parts, with 0 for those not found; for a set it is
Σ quality / Σ expected. It is reported with the detection rate Σ matched / Σ expected and the precision
Σ matched / Σ (matched + extra); extra faces and hands don't lower the confidence.

Limits: a sixth finger on a sharp hand, a left hand on a right arm; sharp but wrong faces, such as eyes of two colours,
too many teeth, or the wrong age or person. The models may miss small or
half hidden hands and averted faces, however well they are drawn. So compare methods on the same prompts, together with
real pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.overlap import corners, match_boxes
from fairhuman.evaluate.people.detections import ImageDetections, PartDetection
from fairhuman.evaluate.people.hand_shape import hand_shape
from fairhuman.evaluate.people.looks import agreement
from fairhuman.record import Box

Array = NDArray[np.float64]
Expected = Sequence[Box] | int | None  # true boxes, number of parts, or unknown

MIN_IOU = 0.2  # minimum IoU of matching boxes; low, because boxes around skin and around keypoints differ
# Side of the model's region divided by the part's size (`looks.face_region`, `looks.hand_region`), and the tolerance of
# looks as a fraction of that size.
FACE_WIDTH, FACE_SPREAD = 1.5, 0.05
HAND_WIDTH, HAND_SPREAD = 2.0, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class StrictScores:
    """Sums for one kind of part in N pictures, from which intervals over pictures follow; arrays [N], float64.

    Attributes:
        expected_n: number of expected parts; NaN if unknown.
        matched_n: expected parts that are found; NaN where `expected_n` is.
        extra_n: found parts that aren't expected; NaN where `expected_n` is.
        quality_n: summed quality of the matched parts; NaN where `expected_n` is.
        best_n: quality of the best found part, 0 if none is found; always known.
    """

    expected_n: Array
    matched_n: Array
    extra_n: Array
    quality_n: Array
    best_n: Array


def face_quality(face: PartDetection) -> float:
    """presence · agreement of a detected face, 0..1."""
    return _seen(face, FACE_WIDTH, FACE_SPREAD)


def hand_quality(hand: PartDetection) -> float:
    """presence · agreement · plausibility of a detected hand, 0..1."""
    return _seen(hand, HAND_WIDTH, HAND_SPREAD) * hand_shape(hand.points).plausibility


def _seen(part: PartDetection, width: float, spread: float) -> float:
    return float(np.mean(part.presence)) * agreement(np.array(part.looks), part.size / width, spread)


Rated = Sequence[tuple[PartDetection, float]]
QUALITY = {"face": face_quality, "hand": hand_quality}


def strict_scores(part: str, detections: Sequence[ImageDetections], expected: Sequence[Expected]) -> StrictScores:
    """Strict scores of one kind of part, a key of `QUALITY`.

    Args:
        detections: detections in N pictures.
        expected: for each picture the true boxes, the number of parts, or None if unknown.

    Raises:
        ValueError: the lengths differ, or a number is negative.
    """
    if len(detections) != len(expected):
        raise ValueError(f"expected must have an entry for each of {len(detections)} pictures, not {len(expected)}")
    rows = []
    for index, (found, wanted) in enumerate(zip(detections, expected, strict=True)):
        parts = [(one, QUALITY[part](one)) for one in (found.faces if part == "face" else found.hands)]
        if isinstance(wanted, int) and wanted < 0:
            raise ValueError(f"expected[{index}] must not be negative, not {wanted}")
        best = max((quality for _, quality in parts), default=0.0)
        rows.append((*_row(parts, wanted), best))
    return StrictScores(*np.array(rows, dtype=np.float64).reshape(-1, 5).T)


def _row(parts: Rated, wanted: Expected) -> tuple[float, float, float, float]:
    """Expected, matched, extra, quality of one picture."""
    if wanted is None:
        return np.nan, np.nan, np.nan, np.nan
    if isinstance(wanted, int):
        count = wanted
        taken = sorted((quality for _, quality in parts), reverse=True)[:count]
    else:
        count = len(wanted)
        pairs = match_boxes(corners([part.box for part, _ in parts]), corners(wanted), MIN_IOU)
        taken = [parts[found][1] for found, _ in pairs]
    return count, len(taken), len(parts) - len(taken), sum(taken)
