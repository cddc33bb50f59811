"""Blurred and pixelated faces and hands: strict measures fall with the strength, also where official ones don't.

The distance of damaged pictures to the same ones undamaged grows with the strength.
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from fairhuman.detect.detection import Picture
from fairhuman.evaluate.metrics.distances import measure_frechet
from fairhuman.evaluate.networks.efficientnet import EfficientNetLite0
from fairhuman.evaluate.networks.extractor import Features
from fairhuman.evaluate.people.degrade import blur, pixelate
from fairhuman.evaluate.people.detections import ImageDetections, face_detector, hand_detector
from fairhuman.evaluate.people.official import official_scorer
from fairhuman.evaluate.people.strict import strict_scores
from fairhuman.record import Box
from fairhuman.synth.body import Body
from fairhuman.synth.render import render
from helpers.official import need_mediapipe
from helpers.sums import confidence, official_confidence

Degrade = Callable[[Picture, float, Sequence[Box]], Picture]
SEED = 303
DAMAGE = [(pixelate, (32, 16, 8, 4)), (blur, (0.02, 0.04, 0.08, 0.16))]
TOLERANCE = 0.01  # a confidence is that much higher or lower by chance: for nearly perfect and for nearly lost parts


class Person(NamedTuple):
    image: Picture
    faces: list[Box]
    hands: list[Box]


class Confidences(NamedTuple):
    strict_faces: float
    strict_hands: float
    official_faces: float
    official_hands: float


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return render_people(3)


def render_people(count: int, size: int = 512) -> list[Person]:
    body = Body()
    drawn = [render(body, SEED, number, size, pose="hands up") for number in range(count)]
    return [
        Person(
            one.image,
            [box for name, box in one.boxes.items() if name == "face"],
            [box for name, box in one.boxes.items() if name != "face"],
        )
        for one in drawn
    ]


def confidences(people: Sequence[Person], degrade: Degrade | None = None, strength: float = 0) -> Confidences:
    need_mediapipe()
    findings, official = [], []
    with face_detector() as faces, hand_detector() as hands, official_scorer() as score:
        for one in people:
            image = one.image if degrade is None else degrade(one.image, strength, one.faces + one.hands)
            findings.append(ImageDetections(faces(image), hands(image)))
            official.append(score(image))
    return Confidences(
        confidence(strict_scores("face", findings, [one.faces for one in people])).value,
        confidence(strict_scores("hand", findings, [one.hands for one in people])).value,
        official_confidence([found.faces for found in official]).value,
        official_confidence([found.hands for found in official]).value,
    )


@pytest.fixture(scope="module")
def clean(people: list[Person]) -> Confidences:
    return confidences(people)


@pytest.mark.slow
@pytest.mark.parametrize(("degrade", "strengths"), [(pixelate, (32, 16)), (blur, (0.04, 0.08))])
def test_synthetic_people_made_worse_score_less(
    people: list[Person], clean: Confidences, degrade: Degrade, strengths: tuple[float, ...]
) -> None:
    assert clean.strict_faces > 0.9
    assert clean.strict_hands > 0.8
    worse = [confidences(people, degrade, strength) for strength in strengths]
    _check_falls([clean, *worse])


@pytest.mark.slow
@pytest.mark.parametrize(("degrade", "strengths"), [(pixelate, (32, 16, 8)), (blur, (0.02, 0.04, 0.08))])
def test_more_synthetic_people_made_worse_score_less(degrade: Degrade, strengths: tuple[float, ...]) -> None:
    people = render_people(8)
    _check_falls([confidences(people), *(confidences(people, degrade, strength) for strength in strengths)])


def _check_falls(rows: Sequence[Confidences]) -> None:
    """Strict confidences fall with the strength, to less than a fifth, and by more than official ones where those have
    a number at all: they have none where they find nothing."""
    table = np.array(rows)
    assert (np.diff(table[:, :2], axis=0) < TOLERANCE).all(), table
    assert (table[-1, :2] < 0.2 * table[0, :2]).all(), table
    left = table[-2] / table[0]
    official = np.nan_to_num(left[2:], nan=1.0)
    assert (left[:2] < official).all(), table


def read_photos(shared: Path, start: int, every: int) -> tuple[list[Picture], list[list[Box]]]:
    """Some of the photos with faces, and the boxes of these."""
    folder = shared / "data" / "ccp"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["faces"]][start::every]
    boxes = [[Box(*face[:4]) for face in row["faces"]] for row in rows]
    return [np.asarray(Image.open(folder / row["file_name"]).convert("RGB")) for row in rows], boxes


@pytest.mark.parametrize(
    ("degrade", "strengths"), [(pixelate, (16, 8, 4)), pytest.param(blur, (0.02, 0.04, 0.08), marks=pytest.mark.slow)]
)
def test_faces_of_photos_made_worse_score_less(shared: Path, degrade: Degrade, strengths: tuple[float, ...]) -> None:
    photos, boxes = read_photos(shared, start=100, every=250)
    assert len(photos) >= 6
    with face_detector() as faces:
        clean = [ImageDetections(faces(photo)) for photo in photos]
        means = [confidence(strict_scores("face", clean, boxes)).value]
        for strength in strengths:
            found = [
                ImageDetections(faces(degrade(photo, strength, box))) for photo, box in zip(photos, boxes, strict=True)
            ]
            means.append(confidence(strict_scores("face", found, boxes)).value)
    assert means[0] > 0.8
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.1


@pytest.fixture(scope="module")
def extractor() -> EfficientNetLite0:
    return EfficientNetLite0()


def distances(
    extractor: EfficientNetLite0,
    pictures: Sequence[Picture],
    boxes: Sequence[Sequence[Box]],
    degrade: Degrade,
    strengths: Sequence[float],
) -> list[float]:
    """Of the pictures damaged inside their boxes to the same ones undamaged."""

    def features(images: Sequence[Picture]) -> Features:
        return extractor.extract(torch.stack([extractor.prepare(Image.fromarray(image)) for image in images]))

    clean = features(pictures)
    return [
        measure_frechet(
            clean, features([degrade(image, strength, own) for image, own in zip(pictures, boxes, strict=True)])
        ).value
        for strength in strengths
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("degrade", "strengths"), DAMAGE)
def test_the_distance_of_synthetic_people_grows_with_damage(
    extractor: EfficientNetLite0, degrade: Degrade, strengths: tuple[float, ...]
) -> None:
    people = render_people(6, 128)
    boxes = [one.faces + one.hands for one in people]
    _check_grows(distances(extractor, [one.image for one in people], boxes, degrade, strengths))


@pytest.mark.slow
@pytest.mark.parametrize(("degrade", "strengths"), DAMAGE)
def test_the_distance_of_photos_grows_with_damage_to_faces(
    shared: Path, extractor: EfficientNetLite0, degrade: Degrade, strengths: tuple[float, ...]
) -> None:
    photos, boxes = read_photos(shared, start=0, every=94)
    assert len(photos) == 20
    _check_grows(distances(extractor, photos, boxes, degrade, strengths))


def _check_grows(found: Sequence[float]) -> None:
    assert found[0] > 0.1
    assert all(stronger > 1.02 * weaker for weaker, stronger in pairwise(found)), found
    assert found[-1] > 3 * found[0], found
