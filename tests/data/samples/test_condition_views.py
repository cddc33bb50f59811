"""Pose and depth show what the picture of their sample shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fairhuman.data.condition.depth import depth_png
from fairhuman.data.condition.people import PersonPose, people_to_list
from fairhuman.data.condition.pose import COLOURS, draw_pose
from fairhuman.data.samples.batch import collate
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.sampler import StepBatches
from fairhuman.record import HumanRecord
from fairhuman.regions.transforms import JointTransform
from helpers.tiny_pictures import encoded, picture

WIDTH, HEIGHT = 384, 320
RIGHT_WRIST, LEFT_WRIST = 4, 7
STILL = JointTransform((HEIGHT, WIDTH), flip_probability=0.0)
MIRRORED = JointTransform((HEIGHT, WIDTH), flip_probability=1.0)
MOVING = JointTransform((192, 160), keep_region=0.0, zoom=(1.0, 1.4))


def person() -> PersonPose:
    body = np.zeros((18, 3), np.float32)
    places = {2: (120, 80), 3: (80, 160), RIGHT_WRIST: (56, 240), 5: (240, 80), 6: (296, 120), LEFT_WRIST: (344, 48)}
    for point, (x, y) in places.items():
        body[point] = (x, y, 1)
    return PersonPose(body=body)


def record(**conditions) -> HumanRecord:
    """A record whose picture is that of its pose, so that both can be compared."""
    drawn = draw_pose([person()], HEIGHT, WIDTH)
    return HumanRecord("a", encoded(drawn), WIDTH, HEIGHT, "", location="metadata.jsonl:3", **conditions)


def dataset(transform: JointTransform, conditions=("pose", "depth"), **given) -> PeopleDataset:
    return PeopleDataset([record(**given)], (), transform, seed=3, conditions=conditions)


def shown(sample) -> torch.Tensor:
    """The picture of a sample in 0..1."""
    return (sample.picture_chw + 1) / 2


def colour_at(picture_chw: torch.Tensor, x: float, y: float) -> list[float]:
    return (255 * picture_chw[:, int(y), int(x)]).round().tolist()


POINTS = {"pose": people_to_list([person()])}


def test_without_conditions_a_sample_has_none_and_is_the_same():
    plain = PeopleDataset([record(**POINTS)], (), MOVING, seed=3)
    rich = dataset(MOVING, **POINTS)
    for position in range(6):
        assert plain[position].conditions == {} == plain[position].known_conditions
        assert torch.equal(plain[position].picture_chw, rich[position].picture_chw)
        assert plain[position].draw == rich[position].draw
    assert collate([plain[0], plain[1]]).conditions == {}


def test_points_are_drawn_where_the_picture_has_them():
    data = dataset(MOVING, ("pose",), **POINTS)
    flips = set()
    for position in range(30):
        sample = data[position]
        pose_chw = sample.conditions["pose"]
        assert pose_chw.shape == (3, 192, 160)
        assert 0 <= float(pose_chw.min()) <= float(pose_chw.max()) <= 1
        seen, drawn = (image.amax(dim=0) > 0.5 for image in (shown(sample), pose_chw))
        # Lines are as wide as the view's size says, so they may differ by their rims.
        for one, other in ((seen, drawn), (drawn, seen)):
            near = torch.nn.functional.max_pool2d(one[None].float(), 7, 1, 3)[0] > 0
            assert bool(near[other].all()), position
        assert int((drawn & seen).sum()) > 0.5 * int(seen.sum()), position
        flips.add(sample.draw.flip)
    assert flips == {True, False}


def test_left_and_right_are_swapped_in_a_mirrored_view():
    still, mirrored = (dataset(transform, ("pose",), **POINTS)[0] for transform in (STILL, MIRRORED))
    left, right = (person().body[point, :2] for point in (LEFT_WRIST, RIGHT_WRIST))
    assert colour_at(still.conditions["pose"], *left) == list(COLOURS[LEFT_WRIST])
    assert colour_at(still.conditions["pose"], *right) == list(COLOURS[RIGHT_WRIST])
    # What was the left hand is the right one of the person in the mirrored picture.
    assert colour_at(mirrored.conditions["pose"], WIDTH - left[0], left[1]) == list(COLOURS[RIGHT_WRIST])
    assert colour_at(mirrored.conditions["pose"], WIDTH - right[0], right[1]) == list(COLOURS[LEFT_WRIST])
    assert colour_at(shown(mirrored), WIDTH - left[0], left[1]) == list(COLOURS[LEFT_WRIST])


def test_a_pose_picture_moves_with_the_picture_and_is_never_mirrored():
    data = dataset(MOVING, ("pose",), pose=record().image)
    for position in range(12):
        sample = data[position]
        assert not sample.draw.flip
        torch.testing.assert_close(sample.conditions["pose"], shown(sample), rtol=0, atol=1e-6)
    without = dataset(MOVING, (), pose=record().image)
    flips = {without[position].draw.flip for position in range(12)}
    assert flips == {True, False}
    draws = [(data[p].draw, without[p].draw) for p in range(12)]
    assert all(ours == replace(theirs, flip=False) for ours, theirs in draws)


def depth(kind: str = "relative", values: np.ndarray | None = None) -> dict:
    ramp = (np.arange(HEIGHT * WIDTH) // 2).reshape(HEIGHT, WIDTH).astype(np.uint16)
    return {"depth": depth_png(ramp if values is None else values), "depth_kind": kind}


def test_depth_keeps_its_16_bits():
    sample = dataset(STILL, ("depth",), **depth())[0]
    expected = (torch.arange(HEIGHT * WIDTH) // 2).reshape(1, HEIGHT, WIDTH) / 65535
    torch.testing.assert_close(sample.conditions["depth"], expected.float(), rtol=0, atol=1e-6)
    assert len(sample.conditions["depth"].unique()) == HEIGHT * WIDTH // 2


def test_metric_depth_is_shown_near_white_and_moves():
    values = np.full((HEIGHT, WIDTH), 4000, np.uint16)
    values[:, : WIDTH // 2] = 1000
    values[:10] = 0  # nothing there
    still, mirrored = (
        dataset(transform, ("depth",), **depth("metric_mm", values))[0].conditions["depth"][0]
        for transform in (STILL, MIRRORED)
    )
    assert [float(still[0, 0]), float(still[40, 0]), float(still[40, -1])] == pytest.approx([0, 1, 0.25])
    assert torch.equal(mirrored, still.flip(-1))


def test_missing_conditions_are_zero_and_unknown():
    sample = dataset(STILL)[0]
    assert sample.known_conditions == {"pose": False, "depth": False}
    assert {name: tuple(tensor.shape) for name, tensor in sample.conditions.items()} == {
        "pose": (3, HEIGHT, WIDTH),
        "depth": (1, HEIGHT, WIDTH),
    }
    assert not any(tensor.any() for tensor in sample.conditions.values())
    assert sample.notes == ()
    nobody = dataset(STILL, pose=[])[0]
    assert nobody.known_conditions == {"pose": True, "depth": False}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"pose": [[1, 2], [3, 4]]}, "pose can't be used"),
        ({"pose": encoded(picture(20, 20))}, "condition has not the size of its picture"),
        ({"pose": b"no picture"}, "not a picture"),
        ({"depth": encoded(Image.new("L", (WIDTH, HEIGHT)))}, "16 bits"),
        (depth(values=np.ones((7, 9), np.uint16)), "condition has not the size of its picture"),
        ({"depth": [1, 2]}, "depth is not a picture"),
    ],
)
def test_unusable_conditions_are_noted_and_the_picture_is_kept(given, reason):
    sample = dataset(STILL, **given)[0]
    assert sample.known_conditions == {"pose": False, "depth": False}
    (entry,) = sample.notes
    assert (entry.file, entry.line, entry.stage, entry.action) == ("metadata.jsonl", 3, "train", "dropped")
    assert reason in entry.reason
    assert torch.equal(sample.picture_chw, dataset(STILL)[0].picture_chw)


def test_batches_have_conditions_from_any_number_of_workers():
    records = [record(**POINTS), record(**depth()), record()]
    data = PeopleDataset(records, (), MOVING, seed=3, conditions=("pose", "depth"))
    loader = DataLoader(data, batch_sampler=StepBatches(6, 1), collate_fn=collate, num_workers=1)
    (batch,) = loader
    expected = collate([data[position] for position in range(6)])
    assert batch.conditions["pose"].shape == (6, 3, 192, 160)
    assert batch.conditions["depth"].shape == (6, 1, 192, 160)
    for name in ("pose", "depth"):
        assert torch.equal(batch.conditions[name], expected.conditions[name])
        known = batch.to("cpu").known_conditions[name]
        assert known.dtype == torch.bool
        assert int(known.sum()) == 2
        assert torch.equal(batch.conditions[name].flatten(1).any(dim=1), known)


def test_other_conditions_are_refused():
    with pytest.raises(ValueError, match="conditions must be of pose, depth, not edges"):
        dataset(STILL, ("edges",))
