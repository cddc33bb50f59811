"""The region `ignore`: rules, and masks of objectives without it."""

import pytest
import torch

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.record import IGNORE, Box, HumanRecord
from fairhuman.regions.ignore import IgnoredCount, move_ignored
from fairhuman.regions.masks import to_latent_grid, without
from fairhuman.regions.objectives import objective_masks
from fairhuman.regions.settings import RegionSettings

SMALL, LARGE, MIDDLE = Box(0, 0, 4, 4), Box(10, 0, 30, 20), Box(0, 30, 10, 40)


def record(**boxes: tuple[Box, ...] | None) -> HumanRecord:
    return HumanRecord("a", b"", 64, 64, "", boxes)


def test_what_is_ignored_is_counted_and_what_is_not_found_is_a_warning() -> None:
    rules = ("face but the largest", "hand but the largest", "watermark")
    masked = HumanRecord("b", b"", 64, 64, "", {}, {IGNORE: b"", "watermark": b""})
    records = [record(face=(SMALL, LARGE), hand=(SMALL,), ignore=(SMALL,)), record(face=(SMALL,), hand=None), masked]
    assert IgnoredCount(rules, records).lines() == [
        "ignore: part of 1 of 3 pictures by boxes, part of 1 of 3 pictures by masks, part of 1 of 3 pictures by boxes "
        "of faces but the largest, part of 1 of 3 pictures by masks of watermark; these parts count for no objective, "
        "the rest does",
        "warning: regions.ignore='hand but the largest' finds nothing in 3 pictures, so nothing is ignored by it",
    ]
    assert IgnoredCount((), [record(face=(SMALL,), ignore=())]).lines() == []


@pytest.mark.parametrize(
    ("given", "rules", "ignored", "ruled"),
    [
        ("none", (), (IGNORE,), ()),
        (None, (), (IGNORE,), ()),
        ("faces but the largest", ("face but the largest",), (IGNORE,), ("face",)),
        (["hands  but the largest", "watermark"], ("hand but the largest", "watermark"), (IGNORE, "watermark"), None),
    ],
)
def test_rules_are_read(given: object, rules: tuple[str, ...], ignored: tuple[str, ...], ruled: object) -> None:
    settings = config.build(RegionSettings, {"ignore": given})
    assert settings.ignore == rules
    assert settings.ignored == ignored
    assert settings.ruled == (ruled if ruled is not None else ("hand", "watermark"))
    assert config.build(RegionSettings, settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"names": ["face", IGNORE]}, "counts for no objective and is always read"),
        ({"ignore": ["face"]}, "'face' is in regions.names and in regions.ignore"),
        ({"ignore": "faces but the smallest"}, "must be a region, or a region and 'but the largest'"),
        ({"ignore": [IGNORE]}, "must be a region, or a region and 'but the largest'"),
        ({"ignore": [3]}, "ignore"),
    ],
)
def test_wrong_rules_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config.build(RegionSettings, values)


def test_all_boxes_but_the_largest_move() -> None:
    moved = move_ignored(record(face=(SMALL, LARGE, MIDDLE), hand=(SMALL,)), ["face but the largest"])
    assert moved.boxes == {"face": (LARGE,), "hand": (SMALL,), IGNORE: (SMALL, MIDDLE)}
    again = record(face=(SMALL, LARGE), ignore=(MIDDLE,))
    assert move_ignored(again, ["face but the largest"]).boxes[IGNORE] == (MIDDLE, SMALL)


@pytest.mark.parametrize("faces", [(LARGE,), (), None])
def test_one_or_no_box_stays(faces: tuple[Box, ...] | None) -> None:
    one = record(face=faces)
    assert move_ignored(one, ["face but the largest", "watermark"]) == one


def test_masks_of_objectives_leave_it_out() -> None:
    generator = torch.Generator().manual_seed(0)
    masks_brhw = torch.rand(2, 2, 8, 12, generator=generator)
    ignored_bhw = torch.zeros(2, 8, 12)
    ignored_bhw[0, :, :6] = 1.0
    ignored_bhw[1, 2, 2] = 0.5
    kept = torch.stack([without(masks_brhw[b], ignored_bhw[b]) for b in range(2)])
    found = objective_masks(kept, 4, ignored_bhw)
    assert torch.equal(found[0, :, :, 0], torch.zeros(3, 2))  # the left two of three cells: whole, half
    assert torch.equal(found[0, 0], torch.tensor([[0.0, 0.5, 1.0]] * 2))
    assert found[1, 0].flatten().tolist() == pytest.approx([1 - 0.5 / 16, 1, 1, 1, 1, 1])
    assert torch.equal(found[:, 1:], to_latent_grid(masks_brhw * (1 - ignored_bhw[:, None]), 4))


def test_without_it_the_masks_are_the_same_bits() -> None:
    masks_brhw = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(objective_masks(masks_brhw, 2, torch.zeros(2, 8, 8)), objective_masks(masks_brhw, 2))
