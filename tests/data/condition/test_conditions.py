"""Conditions of pictures: the source's own win, only what is missing is estimated, what can't be used is named."""

import io
import pickle
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.config import build
from fairhuman.data.condition import conditions as module
from fairhuman.data.condition.conditions import ConditionInputs, Conditions, open_conditions
from fairhuman.data.condition.depth import decode_depth, depth_picture, depth_png
from fairhuman.data.condition.people import PersonPose, people_from_list
from fairhuman.data.condition.pose import draw_pose
from fairhuman.data.condition.settings import ConditionSettings, DepthSettings
from fairhuman.detect.detection import Picture
from fairhuman.errors import ModelError, RecipeError
from fairhuman.record import Finding

HEIGHT, WIDTH = 32, 40
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
KEPT_ONLY = ConditionSettings(pose="none")
BODY = [[4.0 + number, 30.0 - number, 1.0] for number in range(18)]
MILLIMETRES = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)


class CornerPose(AbstractContextManager):
    """A pose estimator that says where the picture's edges are, and how bright it is as score."""

    source = "corners 1.0"

    def __call__(self, image: Picture) -> list[PersonPose]:
        height, width = image.shape[:2]
        body = np.zeros((18, 3))
        body[:2] = [[0, 0, image.mean() / 255], [width, height, image.mean() / 255]]
        return [PersonPose(body), PersonPose()]

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def corner_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSE_ESTIMATORS", {"mediapipe": lambda _: CornerPose()})


def conditions(given: list[ConditionInputs], settings: ConditionSettings = KEPT_ONLY) -> list[Conditions]:
    with open_conditions(settings) as estimate:
        return estimate(given)


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def jpeg(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "JPEG")
    return stream.getvalue()


def test_without_anything_nothing_is_known() -> None:
    assert conditions([ConditionInputs(PICTURE)]) == [Conditions()]
    assert conditions([]) == []


def test_a_source_s_conditions_are_kept_as_they_are() -> None:
    stored = depth_png(MILLIMETRES)
    (found,) = conditions([ConditionInputs(PICTURE, BODY, stored, "metric_mm")])
    assert found.pose is not None
    people = people_from_list(found.pose)
    np.testing.assert_array_equal(people[0].body, np.float32(BODY))
    np.testing.assert_array_equal(pixels(found.pose_png), np.asarray(draw_pose(people, HEIGHT, WIDTH)))
    assert found.depth_png is not None
    np.testing.assert_array_equal(decode_depth(found.depth_png), MILLIMETRES)
    assert (found.pose_by, found.depth_by, found.depth_kind, found.findings) == ("source", "source", "metric_mm", ())


def test_a_source_s_conditions_win_over_estimates(corner_pose: None, depth_model: str) -> None:
    settings = ConditionSettings(depth=DepthSettings(model=depth_model))
    given = [
        ConditionInputs(PICTURE, BODY, None),
        ConditionInputs(PICTURE, None, depth_png(MILLIMETRES), "metric_mm"),
        ConditionInputs(PICTURE),
    ]
    found = conditions(given, settings)
    assert [one.pose_by for one in found] == ["source", "corners 1.0", "corners 1.0"]
    assert [one.depth_by for one in found] == [depth_model, "source", depth_model]
    assert [one.depth_kind for one in found] == ["relative", "metric_mm", "relative"]
    assert found[1].depth_png is not None
    np.testing.assert_array_equal(decode_depth(found[1].depth_png), MILLIMETRES)
    assert found[0].depth_png == found[2].depth_png is not None
    estimated = depth_picture(decode_depth(found[0].depth_png or b""), "relative")
    assert (estimated.shape, float(estimated.min()), float(estimated.max())) == ((HEIGHT, WIDTH), 0, 1)
    assert all(one.findings == () for one in found)


def test_estimated_people_without_a_confident_point_are_dropped(corner_pose: None) -> None:
    dark, bright = np.zeros_like(PICTURE), np.full_like(PICTURE, 255)
    found = conditions([ConditionInputs(dark), ConditionInputs(bright)], ConditionSettings())
    assert found[0] == Conditions()
    assert found[1].pose is not None
    assert len(found[1].pose) == 1
    assert pixels(found[1].pose_png)[HEIGHT // 2, WIDTH // 2].any()


def test_annotated_as_empty_differs_from_unknown(corner_pose: None) -> None:
    (found,) = conditions([ConditionInputs(PICTURE, [])], ConditionSettings())
    assert (found.pose, found.pose_by) == ([], "source")
    assert pixels(found.pose_png).shape == PICTURE.shape
    assert not pixels(found.pose_png).any()


def test_a_source_s_pose_picture_is_kept(tmp_path: Path) -> None:
    drawn = draw_pose([PersonPose(np.array(BODY))], HEIGHT, WIDTH)
    drawn.save(tmp_path / "pose.png")
    (found,) = conditions([ConditionInputs(PICTURE, tmp_path / "pose.png")])
    np.testing.assert_array_equal(pixels(found.pose_png), np.asarray(drawn))
    assert (found.pose, found.pose_by) == (None, "source")


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        (
            ConditionInputs(PICTURE, [[1, 2]]),
            Finding(
                "dropped", "pose can't be used", "pose must be [N, 3] or [people, N, 3] with N of 17, 18, 33, 59, "
            ),
        ),
        (
            ConditionInputs(PICTURE, jpeg((41, 32))),
            Finding("dropped", "pose: not as large as its picture", "41x32, not 40x32"),
        ),
        (ConditionInputs(PICTURE, b"no picture"), Finding("dropped", "pose: not a picture", "10 bytes begins with")),
        (
            ConditionInputs(PICTURE, None, jpeg((40, 32))),
            Finding("dropped", "depth: depth must be grey with 16 bits", ""),
        ),
        (
            ConditionInputs(PICTURE, None, depth_png(MILLIMETRES.T.copy())),
            Finding("dropped", "depth: not as large as its picture", "32x40, not 40x32"),
        ),
        (
            ConditionInputs(PICTURE, None, [[1.0]]),
            Finding("dropped", "depth can't be used", "depth must be a picture, found a list of 1"),
        ),
        (
            ConditionInputs(PICTURE, None, Path("gone.png")),
            Finding("dropped", "depth: file does not exist", "gone.png"),
        ),
    ],
)
def test_unusable_conditions_are_noted_and_estimated_instead(
    given: ConditionInputs, finding: Finding, corner_pose: None, depth_model: str
) -> None:
    for settings in (KEPT_ONLY, ConditionSettings(depth=DepthSettings(model=depth_model))):
        found, other = conditions([given, ConditionInputs(PICTURE)], settings)
        (note,) = found.findings
        assert (note.action, note.reason) == (finding.action, finding.reason)
        assert note.value.startswith(finding.value)
        assert other.findings == ()
        assert (found.pose_png, found.depth_png) == (other.pose_png, other.depth_png)
        assert (found.pose_by, found.depth_by) == (other.pose_by, other.depth_by)


def test_settings_are_checked_and_start_a_process() -> None:
    settings = build(ConditionSettings, {}, ["pose=none", "depth.batch_size=2"])
    assert settings.depth == DepthSettings(batch_size=2)
    assert build(ConditionSettings, {}).depth is None
    for wrong in (
        "pose=openpose",
        "pose=whole-body",
        "min_score=1.5",
        "depth.batch_size=0",
        "depth.kind=metres",
        "dept.model=a",
    ):
        with pytest.raises(RecipeError):
            build(ConditionSettings, {}, [wrong])
    with pickle.loads(pickle.dumps(partial(open_conditions, KEPT_ONLY)))() as estimate:
        assert estimate([ConditionInputs(PICTURE)]) == [Conditions()]


def test_a_depth_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="/no/such"):
        conditions([], ConditionSettings(pose="none", depth=DepthSettings(model="/no/such")))
