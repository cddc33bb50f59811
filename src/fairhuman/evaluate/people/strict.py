"""Strict face and hand confidence: what is expected and not found counts 0, what is found is looked at closely.

Quality of what is found, each factor in 0..1:

    face:  presence · agreement                 (`face_shape`)
    hand:  presence · agreement · plausibility  (`hand_shape`)

Presence is the landmark model's score that the part is there, the mean over several looks; agreement says whether
these looks see the same landmarks. The detectors' own scores aren't used: a pixelated face keeps most of its score, and
MediaPipe's hand score is that of left or right.

A picture's confidence is the mean of the quality over its expected parts, 0 for those not found; over a set it is
Σ quality / Σ expected. Beside it stand the detection rate Σ matched / Σ expected and the precision
Σ matched / Σ (matched + extra): extra faces and hands don't lower the confidence, they are counted.

What it can't see: a sixth finger on a sharp hand, a left hand on a right arm, whether a face is the right one.
It sees the models' limits too: small or half hidden hands and faces turned away may be missed however well they are
drawn. So compare methods on the same prompts, and with real pictures beside.
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
Expected = Sequence[Box] | int | None  # true boxes, how many there should be, or not known

SAME_PLACE = 0.2  # least IoU of a found box and an expected one; a box of bare skin and one of key points differ
HAND_WIDTH = 2.0  # the model's region through the hand in it, see `looks.hand_region`
HAND_SPREAD = 0.1  # of the hand's size


@dataclass(frozen=True, slots=True, eq=False)
class StrictScores:
    """One part in N pictures, in sums, so that intervals over pictures can be had; arrays [N], float64.

    Attributes:
        expected_n: how many parts there should be; NaN where that isn't known.
        matched_n: expected ones that are found; NaN where `expected_n` is.
        extra_n: found ones that aren't expected; NaN where `expected_n` is.
        quality_n: sum of the quality of the matched ones; NaN where `expected_n` is.
        found_n: all that are found.
        best_n: quality of the best one, 0 where none is found; known everywhere.

    """

    expected_n: Array
    matched_n: Array
    extra_n: Array
    quality_n: Array
    found_n: Array
    best_n: Array


def strict_faces(findings: Sequence[ImageDetections], expected: Sequence[Expected]) -> StrictScores:
    """Strict scores of faces.

    Args:
        findings: of N pictures.
        expected: of each picture, the true boxes, or the number of faces, or None.

    Raises:
        ValueError: the lengths differ, or a number is negative.

    """
    return _scores([[(face, face_quality(face)) for face in finding.faces] for finding in findings], expected)


def strict_hands(findings: Sequence[ImageDetections], expected: Sequence[Expected]) -> StrictScores:
    """Strict scores of hands; arguments and errors as of `strict_faces`."""
    return _scores([[(hand, hand_quality(hand)) for hand in finding.hands] for finding in findings], expected)


def face_quality(face: PartDetection) -> float:
    """presence · agreement of a found face, 0..1."""
    return face_shape(face).fit


def hand_quality(hand: PartDetection) -> float:
    """presence · agreement · plausibility of a found hand, 0..1."""
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
        rows.append((*_row(parts, wanted), len(parts), best))
    return StrictScores(*np.array(rows, dtype=np.float64).reshape(-1, 6).T)


def _row(parts: Rated, wanted: Expected) -> tuple[float, float, float, float]:
    """Expected, matched, extra, quality of one picture."""
    if wanted is None:
        return np.nan, np.nan, np.nan, np.nan
    if isinstance(wanted, int):
        count = wanted
        taken = sorted((quality for _, quality in parts), reverse=True)[:count]
    else:
        count = len(wanted)
        pairs = match_boxes(corners([part.box for part, _ in parts]), corners(wanted), SAME_PLACE)
        taken = [parts[found][1] for found, _ in pairs]
    return count, len(taken), len(parts) - len(taken), sum(taken)
