"""Strict scores over findings that are known."""

import math

import numpy as np
import pytest

from fairhuman.evaluate.people.detections import ImageDetections, PartDetection
from fairhuman.evaluate.people.strict import Expected, face_quality, hand_quality, strict_scores
from fairhuman.record import Box
from helpers.hands_and_faces import found_face, found_hand
from helpers.sums import best, confidence, confidence_n, detection_rate, precision

HERE, THERE, FAR = Box(10, 10, 110, 110), Box(200, 10, 300, 110), Box(10, 300, 110, 400)


def _hands(*hands: PartDetection) -> ImageDetections:
    return ImageDetections(hands=hands)


def test_perfect_hands_where_they_are_expected_score_1() -> None:
    scores = strict_scores("hand", [_hands(found_hand(HERE), found_hand(THERE))], [[THERE, HERE]])
    assert confidence_n(scores).tolist() == [1]
    assert detection_rate(scores).value == precision(scores).value == best(scores).value == 1


def test_a_missing_hand_counts_zero() -> None:
    for expected in ([HERE, THERE], 2):
        scores = strict_scores("hand", [_hands(found_hand(HERE)), _hands()], [expected, expected])
        assert confidence_n(scores).tolist() == [0.5, 0]
        assert confidence(scores).value == detection_rate(scores).value == 0.25
        assert precision(scores).value == 1


def test_a_hand_in_another_place_is_missing_and_extra() -> None:
    scores = strict_scores("hand", [_hands(found_hand(FAR))], [[HERE]])
    assert (confidence(scores).value, detection_rate(scores).value, precision(scores).value) == (0, 0, 0)
    assert (scores.extra_n.tolist(), scores.best_n.tolist()) == ([1], [1])


@pytest.mark.parametrize("expected", [[HERE], 1])
def test_extra_hands_are_counted_and_never_raise_the_confidence(expected: Expected) -> None:
    good, bad = found_hand(HERE, 0.8), found_hand(FAR, 0.5)
    alone, beside = (strict_scores("hand", [_hands(*hands)], [expected]) for hands in ((good,), (good, bad)))
    assert confidence(alone).value == confidence(beside).value == pytest.approx(0.8)
    assert (precision(alone).value, precision(beside).value) == (1, 0.5)
    assert beside.extra_n.tolist() == [1]


def test_one_hand_is_not_counted_for_two_places() -> None:
    beside = Box(HERE.x0 + 20, HERE.y0, HERE.x1 + 20, HERE.y1)
    assert strict_scores("hand", [_hands(found_hand(HERE))], [[HERE, beside]]).matched_n.tolist() == [1]


def test_nothing_expected_and_unknown_are_not_the_same() -> None:
    findings = [
        ImageDetections(faces=(found_face(HERE, 0.6),)),
        ImageDetections(),
        ImageDetections(faces=(found_face(HERE),)),
    ]
    scores = strict_scores("face", findings, [(), None, None])
    assert np.isnan(confidence_n(scores)).all()
    assert np.isnan(confidence(scores).value)
    assert precision(scores).value == 0  # of the first alone
    assert scores.extra_n[0] == 1
    assert np.isnan(scores.extra_n[1:]).all()
    assert best(scores).value == pytest.approx((0.6 + 0 + 1) / 3)


def test_pictures_weigh_by_what_they_should_have() -> None:
    scores = strict_scores("face", [ImageDetections(faces=(found_face(HERE),)), ImageDetections()], [1, 3])
    assert confidence(scores).value == 0.25
    assert np.nanmean(confidence_n(scores)) == 0.5
    assert confidence(scores).low <= 0.25 <= confidence(scores).high


def test_quality_falls_with_each_factor() -> None:
    for quality, found in ((face_quality, found_face), (hand_quality, found_hand)):
        assert quality(found(HERE)) == 1
        assert quality(found(HERE, 0.4)) == pytest.approx(0.4)
        assert 0 < quality(found(HERE, apart=8)) < quality(found(HERE, apart=4)) < 1
    hand = found_hand(HERE)
    merged = PartDetection(hand.box, hand.label, (*hand.points[:10], *hand.points[6:9], *hand.points[13:]), hand.size,
                       hand.presence, hand.looks)  # fmt: skip
    assert hand_quality(merged) < 0.9


def test_the_order_of_pictures_and_parts_changes_nothing() -> None:
    parts = [found_hand(HERE, 0.5), found_hand(THERE, 0.9), found_hand(FAR, 0.7)]
    pictures = [_hands(*parts), _hands(parts[0]), _hands()]
    expected: list[Expected] = [[HERE, THERE], 1, [FAR]]
    plain = strict_scores("hand", pictures, expected)
    turned = strict_scores("hand", [_hands(*picture.hands[::-1]) for picture in pictures[::-1]], expected[::-1])
    assert confidence_n(plain).tolist() == confidence_n(turned)[::-1].tolist()
    assert plain.extra_n.tolist() == turned.extra_n[::-1].tolist()


def test_no_pictures_have_no_scores() -> None:
    scores = strict_scores("face", [], [])
    assert np.isnan(confidence(scores).value)
    assert len(confidence_n(scores)) == 0


def test_bad_expectations_are_refused() -> None:
    with pytest.raises(ValueError, match="an entry for each of 1 pictures, not 2"):
        strict_scores("face", [ImageDetections()], [None, None])
    with pytest.raises(ValueError, match=r"expected\[0\] must not be negative, not -1"):
        strict_scores("hand", [ImageDetections()], [-1])


def test_looks_that_agree_on_a_sure_face_fit() -> None:
    assert face_quality(found_face(HERE)) == 1


@pytest.mark.parametrize("presence", [0.0, 0.3, 0.9])
def test_a_faces_quality_is_in_proportion_to_presence(presence: float) -> None:
    assert face_quality(found_face(HERE, presence)) == pytest.approx(presence)


def test_a_faces_quality_falls_as_looks_come_apart() -> None:
    fits = [face_quality(found_face(HERE, apart=apart)) for apart in (0, 1, 2, 4, 8, 16)]
    assert fits == sorted(fits, reverse=True)
    assert fits[1] > 0.9
    assert fits[-1] < 0.2


def test_distances_count_in_shares_of_the_face() -> None:
    small = face_quality(found_face(Box(10, 10, 30, 30), apart=0.4))
    large = face_quality(found_face(Box(100, 100, 300, 300), apart=4))
    assert small == pytest.approx(large)


def test_agreement_of_gaussian_looks() -> None:
    # E exp(-d² / 2 s²) of a Gaussian of deviation σ in two dimensions is 1 / (1 + (σ/s)²); s = 5 px, and looks lie
    # a little nearer to their own median than to the truth.
    expected = 1 / (1 + (2 / 5) ** 2)
    agreement = face_quality(found_face(HERE, apart=2))
    assert expected < agreement < expected + 0.05
    assert math.isfinite(agreement)
