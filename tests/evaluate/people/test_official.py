"""The paper's confidences: what they are, and what is wrong with them (line 16 of the reference's slips)."""

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.detection import DetectorError, Picture
from fairhuman.evaluate.people.official import OfficialScores, official_scores
from helpers.official import need_mediapipe
from helpers.sums import official_confidence

HANDS = ("onehand10k_9.jpg", "rhd_11111.png", "onehand10k_1402.jpg", "freihand_00082740.jpg", "freihand_00065475.jpg")


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[Picture]:
    """Hands at about the same place of square pictures, then a face."""
    folder = shared / "data" / "wholebody" / "images"
    hands = [np.asarray(Image.open(folder / name).convert("RGB").resize((320, 320))) for name in HANDS]
    return [*hands, np.asarray(Image.open(folder / "aflw_image04476.jpg").convert("RGB"))]


@pytest.fixture(scope="module")
def scores(pictures: list[Picture]) -> list[OfficialScores]:
    need_mediapipe()
    return official_scores(pictures)


def test_scores_are_those_of_the_published_code(pictures: list[Picture], scores: list[OfficialScores]) -> None:
    with need_mediapipe().solutions.hands.Hands() as hands:
        for picture, found in zip(pictures, scores, strict=True):
            sides = hands.process(picture).multi_handedness or ()
            assert found.hands == tuple(one.score for side in sides for one in side.classification)
    assert sum(bool(found.hands) for found in scores) >= 4
    # Of MediaPipe's Tasks interface with the short-range model, on the same photo.
    assert scores[-1].faces == pytest.approx([0.9719319], abs=1e-4)


def test_official_hand_scores_depend_on_the_order(pictures: list[Picture], scores: list[OfficialScores]) -> None:
    turned = official_scores(pictures[::-1])[::-1]
    assert [found.faces for found in turned] == [found.faces for found in scores]
    assert [found.hands for found in turned] != [found.hands for found in scores]


def test_missing_hands_and_extra_faces_do_no_harm_to_the_official_means() -> None:
    found, missing = [(0.9, 0.8), (0.7,)], [(0.9, 0.8), (0.7,), (), (), ()]
    assert (
        official_confidence(found).value == official_confidence(missing).value == pytest.approx(fmean([0.9, 0.8, 0.7]))
    )
    assert official_confidence([(0.6,), (0.6, 0.99)]).value > official_confidence([(0.6,), (0.6,)]).value


def test_the_mean_is_over_detections_and_has_an_interval_over_pictures() -> None:
    estimate = official_confidence([(0.9, 0.9, 0.9), (0.5,)] * 20)
    assert estimate.value == pytest.approx(0.8)
    assert 0.5 < estimate.low < 0.8 < estimate.high < 0.9
    assert estimate.n == 40
    assert np.isnan(official_confidence([(), ()]).value)


def test_progress_and_bad_pictures() -> None:
    need_mediapipe()
    blank = np.zeros((32, 32, 3), np.uint8)
    calls: list[tuple[int, int]] = []
    assert official_scores([blank, blank], progress=lambda *done: calls.append(done)) == [OfficialScores((), ())] * 2
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(
        DetectorError, match=r"picture 1 of 2 \(the first is 0\): ValueError: image must have the shape"
    ):
        official_scores([blank, blank[0]])
    with pytest.raises(ValueError, match="upscale must be at least 1, not 0"):
        official_scores([blank], upscale=0)
