"""What is ignored, in samples: boxes and painted masks, moved with the picture."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fairhuman.data.pictures.decode import DEFAULT_LIMITS
from fairhuman.data.samples.batch import collate
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.ignored import IgnoredArea
from fairhuman.data.sources.check import decode_record
from fairhuman.record import IGNORE, SUBJECT, Box, DerivedMask, HumanRecord
from fairhuman.regions.transforms import JointTransform
from helpers.tiny_pictures import encoded, picture

WHOLE = JointTransform((32, 32), "center", flip_probability=0.0)


def dataset(records: list[HumanRecord], **settings) -> PeopleDataset:
    return PeopleDataset(records, ("face", "hand"), **{"transform": WHOLE, **settings})


def record(**changes) -> HumanRecord:
    boxes = {"face": (Box(4, 4, 20, 20),), "hand": None, **changes.pop("boxes", {})}
    return HumanRecord("a", encoded(picture(32, 32)), 32, 32, "", boxes, **changes)


def painted(*columns: slice) -> bytes:
    mask_hw = np.zeros((32, 32), np.uint8)
    for each in columns:
        mask_hw[:, each] = 255
    return encoded(Image.fromarray(mask_hw))


def test_a_box_beside_a_painted_mask_counts_too() -> None:
    sample = dataset([record(boxes={IGNORE: (Box(0, 0, 8, 32),)}, masks={IGNORE: painted(slice(24, 32))})])[0]
    expected = torch.zeros(32, 32)
    expected[:, :8] = expected[:, 24:] = 1.0
    assert torch.equal(sample.ignored_hw, expected)
    assert float(sample.masks_rhw[0].sum()) == 12 * 16  # the face is from column 4 to 20
    assert torch.equal(sample.masks_rhw[0][:, :8], torch.zeros(32, 8))


@pytest.mark.parametrize(("inverted", "share"), [(False, 0.25), (True, 0.75)])
def test_opacity_and_inverted_masks(inverted: bool, share: float) -> None:
    rgba = picture(32, 32).convert("RGBA")
    rgba.putalpha(Image.open(io.BytesIO(painted(slice(0, 8)))))
    sample = dataset([record(masks={IGNORE: DerivedMask(encoded(rgba), alpha=True, inverted=inverted)})])[0]
    assert float(sample.ignored_hw.mean()) == share
    same = dataset([record(masks={IGNORE: DerivedMask(painted(slice(0, 8)), inverted=inverted)})])[0]
    assert torch.equal(same.ignored_hw, sample.ignored_hw)


def test_a_region_of_ones_own_can_be_ignored() -> None:
    one = record(boxes={"watermark": (Box(0, 0, 32, 8),)}, masks={"logo": painted(slice(0, 4))})
    assert not dataset([one]).ignores
    sample = dataset([one], ignored=(IGNORE, "watermark", "logo"))[0]
    assert float(sample.ignored_hw.sum()) == 32 * 8 + 24 * 4


def test_ignored_parts_move_with_the_picture() -> None:
    """The left half is black and ignored: whatever crop, zoom and flip do, black and ignored stay together."""
    halves = np.zeros((48, 48, 3), np.uint8)
    halves[:, 24:] = 255
    one = HumanRecord("a", encoded(Image.fromarray(halves)), 48, 48, "", {"face": None, "hand": None})
    turn = JointTransform((32, 32), "random", zoom=(1.0, 2.0))
    for changed in ({"boxes": {**one.boxes, IGNORE: (Box(0, 0, 24, 48),)}}, {"masks": {IGNORE: halved()}}):
        found = dataset([replace(one, **changed)], transform=turn)
        for position in range(8):
            sample = found[position]
            dark_hw = (1 - sample.picture_chw.mean(0)) / 2
            assert float((sample.ignored_hw - dark_hw).abs().mean()) < 0.03


def halved() -> bytes:
    mask_hw = np.zeros((48, 48), np.uint8)
    mask_hw[:, :24] = 255
    return encoded(Image.fromarray(mask_hw))


def test_a_painted_region_is_framed_without_what_is_ignored() -> None:
    two = record(
        boxes={"face": (Box(0, 0, 8, 32),), IGNORE: (Box(24, 0, 32, 32),)},
        masks={"face": painted(slice(0, 8), slice(24, 32))},
    )
    assert dataset([two])[0].boxes["face"] == [(0.0, 0.0, 8.0, 32.0)]


def test_batches_of_a_data_set_that_ignores_nothing_have_no_mask(people) -> None:
    plain = people(3)
    assert collate([dataset(plain)[i] for i in range(3)]).ignored_bhw is None
    some = [replace(plain[0], boxes={**plain[0].boxes, IGNORE: (Box(15, 25, 25, 35),)}), *plain[1:]]
    batch = collate([dataset(some)[i] for i in range(3)]).to("cpu")
    assert batch.ignored_bhw.shape == (3, 32, 32)
    assert sorted(batch.ignored_bhw.flatten(1).any(dim=1).tolist()) == [False, False, True]


def test_almost_all_is_all() -> None:
    """A mask in JPEG isn't quite white; what is left mustn't be the loss of a picture that is ignored whole."""
    grey = encoded(Image.new("L", (32, 32), 252))
    assert float(dataset([record(masks={IGNORE: grey})])[0].ignored_hw.min()) == 1.0
    half = encoded(Image.new("L", (32, 32), 128))
    assert float(dataset([record(masks={IGNORE: half})])[0].ignored_hw.max()) == pytest.approx(128 / 255)


def test_a_region_that_lies_mostly_in_what_is_ignored_is_a_warning() -> None:
    """Masks of faces alone: a quarter of the picture counts, and no hand is in it."""
    outside = DerivedMask(painted(slice(0, 8)), inverted=True)
    boxes = {"face": (Box(0, 4, 8, 20),), "hand": (Box(20, 4, 30, 20), Box(12, 4, 18, 20))}
    records = [record(boxes=boxes, masks={IGNORE: outside}), record(boxes=boxes)]
    assert IgnoredArea.of(records[:1], (IGNORE,), ("face", "hand"), DEFAULT_LIMITS).lines() == [
        "ignore: 75 % of the area counts for no objective",
        "warning: 100 % of hands lie mostly in what is ignored; source.mask=subject counts the whole picture and makes "
        "the masks an objective beside it",
    ]
    half = IgnoredArea.of(records, (IGNORE,), ("face", "hand"), DEFAULT_LIMITS).lines()
    assert half == ["ignore: 38 % of the area counts for no objective"]  # of both pictures, and half of the hands
    assert IgnoredArea.of(records[1:], (IGNORE,), ("face", "hand"), DEFAULT_LIMITS).lines() == []


@pytest.mark.parametrize(("kept", "boxes", "told"), [(15, (), True), (17, (), False), (17, (Box(0, 0, 32, 8),), False)])
def test_the_way_out_is_told_where_masks_ignore_more_than_half(kept: int, boxes: tuple[Box, ...], told: bool) -> None:
    """With no boxes of regions in it, as in a folder of another trainer before its build."""
    outside = DerivedMask(painted(slice(0, kept)), inverted=True)
    one = record(boxes={"face": None, IGNORE: boxes}, masks={IGNORE: outside})
    (line,) = IgnoredArea.of([one], (IGNORE,), ("face", "hand"), DEFAULT_LIMITS).lines()
    assert line.startswith("ignore: ")
    assert ("source.mask=subject" in line) == told


def test_boxes_that_are_ignored_do_not_count_as_whole_in_view() -> None:
    boxes = {"hand": (Box(20, 4, 30, 20),)}
    seen = dataset([record(boxes=boxes)])[0]
    hidden = dataset([record(boxes=boxes, masks={IGNORE: painted(slice(18, 32))})])[0]
    assert seen.whole_r2.tolist() == [[1, 1], [1, 1]]
    assert hidden.whole_r2.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("masks", "kept", "found"),
    [
        ({SUBJECT: painted()}, [], ["mask of subject"]),
        ({SUBJECT: painted(slice(0, 1))}, [SUBJECT], []),
        ({IGNORE: DerivedMask(painted(), inverted=True)}, [IGNORE], ["mask of ignore"]),
        ({IGNORE: painted()}, [IGNORE], []),  # ignores nothing
    ],
)
def test_an_empty_mask_is_named(masks, kept, found) -> None:
    checked, _, findings = decode_record(record(masks=masks), DEFAULT_LIMITS)
    assert list(checked.masks) == kept
    assert [finding.value for finding in findings if finding.reason == "mask is empty"] == found
    if SUBJECT in masks:
        assert (checked.annotated(SUBJECT), checked.has(SUBJECT)) == (True, bool(kept))
