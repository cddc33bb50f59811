"""MediaPipe Holistic on photos and synthetic people: points where they are, left and right the person's own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.condition.conditions import ConditionInputs, open_conditions
from fairhuman.data.condition.holistic import HolisticPose
from fairhuman.data.condition.people import BODY_POINTS, PersonPose, flip_people, people_from_source
from fairhuman.data.condition.settings import ConditionSettings
from fairhuman.detect.guard import guarded_map

NAMES = ("0007", "0043")


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[tuple[np.ndarray, PersonPose]]:
    """Street photos with the whole person, and the pose that CCP's copy has for them."""
    folder = shared / "data" / "ccp"
    if not folder.is_dir():
        pytest.skip(f"needs the photos in {folder}")
    rows = map(json.loads, (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    poses = {Path(row["file_name"]).stem: row["pose"] for row in rows}
    found = []
    for name in NAMES:
        with Image.open(folder / "images" / f"{name}.jpg") as picture:
            found.append((np.asarray(picture.convert("RGB")), people_from_source(poses[name])[0]))
    return found


@pytest.fixture(scope="module")
def holistic() -> Iterator[HolisticPose]:
    with HolisticPose() as estimator:
        yield estimator


def place(name: str) -> int:
    return BODY_POINTS.index(name)


def distances(first: np.ndarray, second: np.ndarray, score: float = 0.5) -> np.ndarray:
    sure = (first[..., 2] > score) & (second[..., 2] > score)
    return np.asarray(np.linalg.norm((first - second)[..., :2], axis=-1)[sure])


def test_the_body_is_where_ccp_says(photos: list[tuple[np.ndarray, PersonPose]], holistic: HolisticPose) -> None:
    assert holistic.source == "mediapipe-0.10.21-litert holistic"
    for picture, expected in photos:
        (person,) = holistic(picture)
        apart = distances(person.body, expected.body)
        assert len(apart) >= 16
        assert apart.mean() < 6  # of 512 pixels


def test_hands_and_face_lie_at_their_ends_of_the_body(
    photos: list[tuple[np.ndarray, PersonPose]], holistic: HolisticPose
) -> None:
    for picture, _ in photos:
        (person,) = holistic(picture)
        assert person.body[place("right wrist"), 0] < person.body[place("left wrist"), 0]  # both look at the camera
        for hand, wrist in zip(person.hands, ("left wrist", "right wrist"), strict=True):
            assert (hand[:, 2] == 1).all()
            assert distances(hand[0], person.body[place(wrist)]).max() < 12
        assert (person.face[:, 2] == 1).all()
        nose = person.face[30]
        assert distances(nose, person.body[0]).max() < 6
        x, y = person.face[:, 0], person.face[:, 1]
        assert x[0] < x[36] < x[39] < x[27] < x[42] < x[45] < x[16]  # jaw, eyes and bridge from the person's right
        assert y[19] < y[37] < y[41] < y[30] < y[33] < y[51] < y[62] < y[66] < y[57] < y[8]  # from brow to chin
        assert x[48] < x[60] < x[51] < x[64] < x[54]


def test_a_mirrored_photo_has_the_mirrored_pose(
    photos: list[tuple[np.ndarray, PersonPose]], holistic: HolisticPose
) -> None:
    for picture, _ in photos:
        (person,), (mirrored,) = holistic(picture), flip_people(holistic(picture[:, ::-1]), picture.shape[1])
        assert distances(person.body, mirrored.body).mean() < 6
        assert distances(person.hands, mirrored.hands).mean() < 6
        assert distances(person.face, mirrored.face).mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (3, 500)])
def test_nobody_is_found_in_a_blank_picture(size: tuple[int, int], holistic: HolisticPose) -> None:
    assert holistic(np.full((*size, 3), 128, np.uint8)) == []
    with pytest.raises(ValueError, match="must be uint8"):
        holistic(np.zeros((*size, 3), np.float32))  # type: ignore[arg-type]


def test_conditions_come_out_of_a_guarded_process(photos: list[tuple[np.ndarray, PersonPose]]) -> None:
    given = [[ConditionInputs(picture)] for picture, _ in photos]
    found = dict(guarded_map(partial(open_conditions, ConditionSettings()), given, workers=1, seconds=300))
    assert sorted(found) == [0, 1]
    for index, (picture, expected) in enumerate(photos):
        (one,) = found[index]
        assert distances(people_from_source(one.pose)[0].body, expected.body).mean() < 6
        assert one.pose_by == "mediapipe-0.10.21-litert holistic"
        assert one.pose_png.startswith(b"\x89PNG")
        assert picture.shape[2] == 3


def test_the_package_imports_without_estimators() -> None:
    heavy = ("ai_edge_litert", "cv2", "transformers", "torch")
    code = f"import sys, fairhuman.data.condition.pose; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
