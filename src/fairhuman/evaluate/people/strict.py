"""Strict face and hand confidence: expected parts that aren't found count 0, found ones are rated by quality.

Quality of a detected part, each factor in 0..1:

    face:  presence · agreement                 (`face_shape`)
    hand:  presence · agreement · plausibility  (`hand_shape`)

Presence is the landmark model's presence score, averaged over several looks; agreement measures whether these looks
return the same landmarks. The detectors' own scores aren't used: a pixelated face keeps most of its score, and
MediaPipe's hand score is the confidence in left versus right.

A picture's confidence is the mean quality of its expected parts, with 0 for those not found; for a set it is
Σ quality / Σ expected. It is reported with the detection rate Σ matched / Σ expected and the precision
Σ matched / Σ (matched + extra); extra faces and hands don't lower the confidence.

Limits: a sixth finger on a sharp hand, a left hand on a right arm, the identity of a face. The models may miss small or
half hidden hands and averted faces, however well they are drawn. So compare methods on the same prompts, together with
real pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.overlap import corners, match_boxes
from fairhuman.evaluate.people.detections import ImageDetections, PartDetection
from fairhuman.evaluate.people.face_shape import face_shape
from fairhuman.evaluate.people.hand_shape import hand_shape
from fairhuman.evaluate.people.looks import agreement
from fairhuman.record import Box

Array = NDArray[np.float64]
Expected = Sequence[Box] | int | None  # true boxes, number of parts, or unknown

MIN_IOU = 0.2  # minimum IoU of matching boxes; low, because boxes around skin and around keypoints differ
HAND_WIDTH = 2.0  # side of the model's region divided by the hand's size, see `looks.hand_region`
HAND_SPREAD = 0.1  # tolerance as a fraction of the hand's size


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


def strict_faces(detections: Sequence[ImageDetections], expected: Sequence[Expected]) -> StrictScores:
    """Strict scores of faces.

    Args:
        detections: detections in N pictures.
        expected: for each picture the true boxes, the number of faces, or None if unknown.

    Raises:
        ValueError: the lengths differ, or a number is negative.
    """
    return _scores([[(face, face_quality(face)) for face in one.faces] for one in detections], expected)


def strict_hands(detections: Sequence[ImageDetections], expected: Sequence[Expected]) -> StrictScores:
    """Strict scores of hands; arguments and errors are those of `strict_faces`."""
    return _scores([[(hand, hand_quality(hand)) for hand in one.hands] for one in detections], expected)


def face_quality(face: PartDetection) -> float:
    """presence · agreement of a detected face, 0..1."""
    return face_shape(face).fit


def hand_quality(hand: PartDetection) -> float:
    """presence · agreement · plausibility of a detected hand, 0..1."""
    alike = agreement(np.array(hand.looks), hand.size / HAND_WIDTH, HAND_SPREAD)
    return float(np.mean(hand.presence)) * alike * hand_shape(hand.points).plausibility


Rated = Sequence[tuple[PartDetection, float]]


def _scores(rated: Sequence[Rated], expected: Sequence[Expected]) -> StrictScores:
    if len(rated) != len(expected):
        raise ValueError(f"expected must have an entry for each of {len(rated)} pictures, not {len(expected)}")
    rows = []
    for index, (parts, wanted) in enumerate(zip(rated, expected, strict=True)):
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
