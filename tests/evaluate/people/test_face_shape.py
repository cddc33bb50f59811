"""Fit of faces whose looks are known."""

import math

import pytest

from fairhuman.evaluate.people.face_shape import FaceShape, face_shape
from fairhuman.record import Box
from helpers.hands_and_faces import found_face

FACE = Box(100, 100, 200, 200)


def test_looks_that_agree_on_a_sure_face_fit() -> None:
    assert face_shape(found_face(FACE)) == FaceShape(presence=1, agreement=1)
    assert face_shape(found_face(FACE)).fit == 1


@pytest.mark.parametrize("presence", [0.0, 0.3, 0.9])
def test_fit_is_in_proportion_to_presence(presence: float) -> None:
    assert face_shape(found_face(FACE, presence)).fit == pytest.approx(presence)


def test_fit_falls_as_looks_come_apart() -> None:
    fits = [face_shape(found_face(FACE, apart=apart)).fit for apart in (0, 1, 2, 4, 8, 16)]
    assert fits == sorted(fits, reverse=True)
    assert fits[1] > 0.9
    assert fits[-1] < 0.2


def test_distances_count_in_shares_of_the_face() -> None:
    small = face_shape(found_face(Box(10, 10, 30, 30), apart=0.4)).agreement
    large = face_shape(found_face(Box(100, 100, 300, 300), apart=4)).agreement
    assert small == pytest.approx(large)


def test_agreement_of_gaussian_looks() -> None:
    # E exp(-d² / 2 s²) of a Gaussian of deviation σ in two dimensions is 1 / (1 + (σ/s)²); s = 5 px, and looks lie
    # a little nearer to their own median than to the truth.
    expected = 1 / (1 + (2 / 5) ** 2)
    agreement = face_shape(found_face(FACE, apart=2)).agreement
    assert expected < agreement < expected + 0.05
    assert math.isfinite(agreement)
