"""Our detectors find what MediaPipe 0.10.21 finds with the same networks: picture by picture, and by stored numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.body import BodyFinder
from fairhuman.detect.detection import Picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.holistic import BodyFace, BodyHands
from fairhuman.detect.persons import PersonDetector
from helpers.mediapipe_finds import Found, MediaPipe, differences, long_side, read_references, rendered_people
from helpers.official import need_mediapipe

PIXELS, SHARE, SCORE = 1.0, 0.005, 0.01


class Ours(NamedTuple):
    detectors: Mapping[str, FaceDetector | HandDetector | PersonDetector]
    bodies: BodyFinder
    hands: BodyHands
    face: BodyFace

    def find(self, picture: Picture) -> dict[str, Sequence[object]]:
        parts: dict[str, Sequence[object]] = {part: one.detect(picture) for part, one in self.detectors.items()}
        body = self.bodies.find(picture)
        found = {} if body is None else dict(self.hands.find(picture, body))
        face = None if body is None else self.face.find(picture, body)
        found |= {} if face is None else {"face": face}
        return {**parts, "holistic": [Found(label, 0.0, points) for label, points in found.items()]}


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    with ExitStack() as stack:
        makers = {"face": FaceDetector, "hand": HandDetector, "person": PersonDetector}
        opened = {part: stack.enter_context(make()) for part, make in makers.items()}
        yield Ours(opened, BodyFinder(), BodyHands(), BodyFace())


def disagreements(
    ours: Mapping[str, Sequence[object]], theirs: Mapping[str, Sequence[Found]], *, of_body: bool = False
) -> list[str]:
    """What differs by more than the bounds, part by part.

    With `of_body`, the points of hands and face on a body are held to a share of the body's box: their regions follow
    its key points, and where these are unsure, the last bit of a crop moves them by a part of a heat map's cell.
    """
    wrong = []
    for part, expected in theirs.items():
        body = theirs["person"][0].points_n3 if of_body and part == "holistic" and theirs["person"] else None
        found = list(ours[part])
        if len(found) != len(expected):
            wrong.append(f"{part}: {len(found)} instead of {len(expected)}")
            continue
        for one in expected:
            alike = [other for other in found if other.label == one.label] or found  # type: ignore[attr-defined]
            nearest = min(alike, key=lambda other: differences(other, one)[1])  # type: ignore[arg-type]
            box, share, score = differences(nearest, one)  # type: ignore[arg-type]
            share *= 1 if body is None else long_side(one.points_n3) / long_side(body)
            same = nearest.label == one.label  # type: ignore[attr-defined]
            if box > PIXELS or share > SHARE or score > SCORE or not same:
                wrong.append(f"{part}: box {box:.2f} px, points {share:.4f}, score {score:.4f}, same label: {same}")
    return wrong


def test_rendered_people_give_the_stored_numbers_of_mediapipe(ours: Ours) -> None:
    stored = read_references()
    counts = [sum(len(found[part]) for found in stored.values()) for part in ("face", "hand", "person", "holistic")]
    assert min(counts) >= 6, counts
    people = dict(rendered_people())
    assert people.keys() == stored.keys()
    assert [text for name in people for text in disagreements(ours.find(people[name]), stored[name])] == []


def test_the_stored_numbers_are_those_of_mediapipe() -> None:
    need_mediapipe()
    stored = read_references()
    with MediaPipe() as mediapipe:
        for name, picture in list(rendered_people())[:2]:
            for part, found in mediapipe.find(picture).items():
                assert len(found) == len(stored[name][part])
                for one, other in zip(found, stored[name][part], strict=True):
                    assert max(differences(one, other)) < 1e-3
                    assert one.label == other.label


@pytest.mark.slow
def test_photos_give_what_mediapipe_gives(ours: Ours, shared: Path) -> None:
    """Nearly all: where a score lies at its threshold, a rounding decides."""
    need_mediapipe()
    wrong, pictures = {}, photos(shared)
    with MediaPipe() as mediapipe:
        for file in pictures:
            with Image.open(file) as image:
                picture = np.asarray(image.convert("RGB"))
            wrong[file.name] = disagreements(ours.find(picture), mediapipe.find(picture), of_body=True)
    differing = {name: texts for name, texts in wrong.items() if texts}
    assert len(pictures) == 103
    assert len(differing) <= 5, json.dumps(differing, indent=1)


def photos(shared: Path) -> list[Path]:
    """43 photos with hands and faces, 60 of the street."""
    street = sorted((shared / "data" / "ccp" / "images").glob("*.jpg"))
    if not street:
        pytest.skip(f"needs the photos in {shared / 'data' / 'ccp'}")
    return [*sorted((shared / "data" / "wholebody" / "images").iterdir()), *street[:: len(street) // 60][:60]]
