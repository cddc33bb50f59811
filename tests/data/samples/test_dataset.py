"""Samples: a pure function of (seed, position), whatever reads them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.coverage import region_area, region_coverage
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.sampler import StepBatches
from fairhuman.errors import DataError
from fairhuman.record import Box, HumanRecord
from fairhuman.regions.masks import boxes_to_mask
from fairhuman.regions.settings import MaskSettings
from fairhuman.regions.transforms import JointTransform
from helpers.tiny_pictures import encoded

REGIONS = ("face", "hand")


def dataset(records, **settings) -> PeopleDataset:
    settings = {"transform": JointTransform((32, 24), keep_region=0.5, zoom=(1, 1.5)), "seed": 5, **settings}
    return PeopleDataset(records, settings.pop("regions", REGIONS), **settings)


def assert_same(a: Batch, b: Batch) -> None:
    for name in ("pictures_bchw", "masks_brhw", "known_br", "time_ids_b6", "positions_b"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.captions, a.keys, a.notes) == (b.captions, b.keys, b.notes)


def test_shapes_types_and_ranges(people):
    batch = collate([dataset(people(6))[position] for position in range(6)])
    assert batch.pictures_bchw.shape == (6, 3, 32, 24)
    assert batch.pictures_bchw.dtype == batch.masks_brhw.dtype == batch.time_ids_b6.dtype == torch.float32
    assert -1 <= float(batch.pictures_bchw.min()) < -0.2 < 0.2 < float(batch.pictures_bchw.max()) <= 1
    assert batch.masks_brhw.shape == (6, 2, 32, 24)
    assert 0 <= float(batch.masks_brhw.min()) <= float(batch.masks_brhw.max()) <= 1
    assert batch.known_br.dtype == torch.bool
    assert batch.positions_b.tolist() == list(range(6))
    assert sorted(batch.keys) == [f"{i:03}" for i in range(6)]
    assert batch.time_ids_b6[:, 4:].tolist() == [[32, 24]] * 6
    assert batch.to("cpu").keys == batch.keys


def test_any_number_of_workers_gives_the_same_samples(people):
    found = dataset(people(7), caption_dropout=0.3)
    expected = [collate([found[position] for position in batch]) for batch in StepBatches(3, 4)]
    assert len(expected) == 4
    for workers in (0, 1, 2):
        loader = DataLoader(found, batch_sampler=StepBatches(3, 4), collate_fn=collate, num_workers=workers)
        for batch, reference in zip(loader, expected, strict=True):
            assert_same(batch, reference)


def test_two_processes_see_what_one_would(people):
    found = dataset(people(7))
    whole = {position: found[position] for batch in StepBatches(4, 3) for position in batch}
    for rank in (0, 1):
        for batch in StepBatches(1, 3, accumulate=2, world_size=2, rank=rank):
            again = dataset(people(7))[batch[0]]
            assert torch.equal(again.picture_chw, whole[batch[0]].picture_chw)
            assert again.key == whole[batch[0]].key


def test_the_same_record_is_drawn_anew_in_the_next_epoch(people):
    found = dataset(people(1))
    views = [found[position] for position in range(8)]
    assert len({view.key for view in views}) == 1
    assert len({tuple(view.time_ids_6.tolist()) for view in views}) > 3
    assert not torch.equal(dataset(people(1), seed=6)[0].picture_chw, views[0].picture_chw)


def test_unknown_regions_are_marked_and_empty(people):
    found = dataset(people(6))
    for position in range(6):
        sample = found[position]
        annotated = int(sample.key) % 2 == 0
        assert sample.known_r.tolist() == [True, annotated]
        if not annotated:
            assert float(sample.masks_rhw[1].sum()) == 0


def test_annotated_and_none_is_known_and_empty(people):
    record = replace(people(1)[0], boxes={"face": (), "hand": None})
    sample = dataset([record])[0]
    assert sample.known_r.tolist() == [True, False]
    assert float(sample.masks_rhw.sum()) == 0


def test_boxes_become_masks_with_the_settings(people):
    record = people(1)[0]
    transform = JointTransform((64, 40), flip_probability=0.0)
    settings = MaskSettings(shape="ellipse", padding=0.1, soft_edge=1.0)
    sample = dataset([record], transform=transform, masks=settings)[0]
    corners = torch.tensor([[4.0, 5.0, 20.0, 25.0]])
    torch.testing.assert_close(sample.masks_rhw[0], boxes_to_mask(corners, (64, 40), settings))


def test_left_and_right_change_places_in_a_mirrored_picture(people, tmp_path):
    """By boxes, by masks, and where one isn't known; other regions stay."""
    painted = np.zeros((64, 40), np.uint8)
    painted[10:20, 2:12] = 255
    (tmp_path / "mask.png").write_bytes(encoded(Image.fromarray(painted)))
    boxes = {"left_foot": (Box(25, 40, 35, 60),), "right_foot": None, "left_hand": (), "face": (Box(15, 0, 25, 9),)}
    record = replace(people(1)[0], boxes=boxes, masks={"right_hand": tmp_path / "mask.png"})
    names = ("left_hand", "face", "left_foot", "right_hand", "right_foot", "left_")
    plain, mirrored = (
        dataset([record], regions=names, transform=JointTransform((64, 40), flip_probability=probability))[0]
        for probability in (0.0, 1.0)
    )
    other = [3, 1, 4, 0, 2, 5]
    assert plain.known_r.tolist() == [True, True, True, True, False, False]
    assert mirrored.known_r.tolist() == [plain.known_r.tolist()[r] for r in other]
    torch.testing.assert_close(mirrored.masks_rhw, plain.masks_rhw[other].flip(2))
    assert mirrored.whole_r2.tolist() == [plain.whole_r2.tolist()[r] for r in other]
    assert (mirrored.boxes["right_foot"], mirrored.boxes["left_foot"]) == ([(5, 40, 15, 60)], [])
    assert (mirrored.boxes["left_hand"], mirrored.boxes["right_hand"]) == ([(28, 10, 38, 20)], [])


def test_a_painted_mask_takes_precedence_over_boxes(people, tmp_path):
    record = people(1)[0]
    painted = np.zeros((64, 40), np.uint8)
    painted[40:60, 10:30] = 255
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(Image.fromarray(painted)))
    record = replace(record, masks={"face": path})
    plain = JointTransform((64, 40), flip_probability=0.0)
    sample = dataset([record], transform=plain)[0]
    assert torch.equal(sample.masks_rhw[0], torch.from_numpy(painted).float() / 255)
    # The crop keeps the painted region, not the box it replaces.
    close = JointTransform((32, 40), flip_probability=0.0, keep_region=1.0)
    record = replace(record, boxes={"face": (Box(0, 0, 8, 8),)})
    assert all(float(dataset([record], transform=close)[i].masks_rhw[0].sum()) == 400 for i in range(8))


def test_boxes_take_precedence_over_painted_masks_if_set(people, tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(Image.new("L", (40, 64), 255)))
    boxes = MaskSettings(painted=False)
    record = replace(people(1)[0], masks={"face": path}, boxes={"face": (Box(8, 8, 16, 24),)})
    plain = JointTransform((64, 40), flip_probability=0.0)
    assert float(dataset([record], transform=plain, masks=boxes)[0].masks_rhw[0].sum()) == 8 * 16
    alone = replace(record, boxes={"face": ()})
    assert float(dataset([alone], transform=plain, masks=boxes)[0].masks_rhw[0].sum()) == 64 * 40, "there are no boxes"


def test_user_defined_regions_and_no_regions(people):
    record = replace(people(1)[0], boxes={"feet": (Box(1, 1, 30, 30),)})
    assert float(dataset([record], regions=("feet", "text"))[0].masks_rhw[0].sum()) > 0
    assert collate([dataset([record], regions=())[0]] * 2).masks_brhw.shape == (2, 0, 32, 24)


@pytest.mark.parametrize("dropout", [0.0, 0.25, 1.0])
def test_caption_dropout(people, dropout):
    found = dataset(people(4), caption_dropout=dropout)
    samples = [found[position] for position in range(400)]
    assert [sample.caption for sample in samples].count("") / 400 == pytest.approx(dropout, abs=0.08)
    assert all(sample.caption_dropped == (sample.caption == "") for sample in samples)
    bare = [replace(record, caption="") for record in people(1)]
    assert not dataset(bare, caption_dropout=dropout)[0].caption_dropped, "there was none to drop"
    # What is dropped must not change what is seen.
    assert torch.equal(found[3].picture_chw, dataset(people(4))[3].picture_chw)


def test_a_truncated_picture_is_replaced_and_noted(people):
    records = people(5)
    data = records[2].image.read_bytes()
    records[2].image.write_bytes(data[: len(data) // 2])
    found = dataset(records)
    order = [found.order.index(position) for position in range(5)]
    samples = [found[position] for position in range(5)]
    assert all(sample.key != "002" for sample in samples)
    place = order.index(2)
    assert samples[place].key == f"{order[(place + 1) % 5]:03}"
    (entry,) = collate(samples).notes
    assert (entry.file, entry.line, entry.stage, entry.action) == ("metadata.jsonl", 3, "train", "skipped")
    assert "cut off" in entry.reason


def test_a_picture_that_changed_its_size_is_not_used(people):
    records = people(2)
    records[0].image.write_bytes(records[1].image.read_bytes())
    samples = [dataset(records)[position] for position in range(2)]
    assert {sample.key for sample in samples} == {"001"}
    assert sum(len(sample.notes) for sample in samples) == 1


def test_nothing_left_to_train_on(people):
    records = people(3)
    for record in records:
        record.image.unlink()
    with pytest.raises(DataError, match="none of 3 pictures"):
        dataset(records)[0]
    with pytest.raises(DataError, match="records must not be empty"):
        dataset([])


def test_pictures_from_bytes(people):
    record = people(1)[0]
    inside = replace(record, image=record.image.read_bytes())
    assert torch.equal(dataset([record])[0].picture_chw, dataset([inside])[0].picture_chw)


def test_coverage_counts_records_with_a_region(people):
    records: list[HumanRecord] = people(4)
    assert region_coverage(records, ("face", "hand", "feet")) == {"face": 1.0, "hand": 0.5, "feet": 0.0}
    batch = collate([dataset(records, transform=JointTransform((32, 24), keep_region=1.0))[i] for i in range(4)])
    assert batch.present_br.shape == (4, 2)
    assert not (batch.present_br & ~batch.known_br).any()


def test_area_is_the_mean_share_of_pictures_that_have_the_region():
    def record(*boxes: Box) -> HumanRecord:
        return HumanRecord("k", b"", 20, 10, "", {"face": boxes, "hand": None})

    records = [record(Box(0, 0, 10, 10)), record(Box(0, 0, 2, 5), Box(5, 5, 15, 6)), record()]
    assert region_area(records, ("face", "hand")) == {"face": pytest.approx((0.5 + 0.1) / 2), "hand": None}


def test_boxes_of_a_view_lie_on_its_masks(people):
    data = dataset(people(6), transform=JointTransform((32, 24), keep_region=0.5, zoom=(1.0, 1.5)))
    for position in range(40):
        sample = data[position]
        for r, name in enumerate(REGIONS):
            again = boxes_to_mask(torch.tensor(sample.boxes[name]).reshape(-1, 4), (32, 24))
            assert torch.allclose(again, sample.masks_rhw[r], atol=1e-5), (position, name)


def test_boxes_that_frame_the_painted_mask_stay_apart(people, tmp_path):
    """Two hands under one mask are two boxes, not one wide one."""
    record = people(1)[0]
    painted = np.zeros((64, 40), np.uint8)
    painted[40:50, 2:10] = painted[44:60, 28:36] = 255
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(Image.fromarray(painted)))
    boxes = (Box(2, 40, 10, 50), Box(27.5, 44, 36, 60))
    record = replace(record, masks={"face": path}, boxes={"face": boxes})
    sample = dataset([record], transform=JointTransform((64, 40), flip_probability=0.0))[0]
    assert sample.boxes["face"] == [(2.0, 40.0, 10.0, 50.0), (27.5, 44.0, 36.0, 60.0)]
    elsewhere = replace(record, boxes={"face": (Box(0, 0, 8, 8),)})
    sample = dataset([elsewhere], transform=JointTransform((64, 40), flip_probability=0.0))[0]
    assert sample.boxes["face"] == [(2.0, 40.0, 36.0, 60.0)]
