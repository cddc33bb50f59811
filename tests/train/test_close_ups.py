"""`view.close_up`: samples that show one box of a region large, and count for that region alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.errors import DataError, RecipeError
from fairhuman.record import Box
from fairhuman.regions.objectives import denominators
from fairhuman.regions.transforms import LEAST_ZOOM, JointTransform
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives
from fairhuman.train.views import close_up_lines
from helpers.runs import metrics_without_times
from train.conftest import MakeRecipe

RECIPE = {"data": "people", "out": "run", "steps": 1}
HANDS = ((100.0, 40.0, 124.0, 60.0), (10.0, 150.0, 40.0, 190.0))
FACE = (60.0, 20.0, 130.0, 110.0)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of 200 x 200 with a white face and black hands exactly in their boxes."""
    folder = tmp_path_factory.mktemp("squares")
    rows = []
    for number in range(6):
        picture = Image.new("RGB", (200, 200), (128, 128, 128))
        for box, colour in ((FACE, (255, 255, 255)), *((hand, (0, 0, 0)) for hand in HANDS)):
            picture.paste(colour, tuple(map(int, box)))
        picture.save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "caption": "a", "faces": [FACE], "hands": HANDS})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def settings(squares: Path, share: float = 0.6, **view: Any) -> dict[str, Any]:
    return {
        "data": str(squares),
        "resolution": 32,
        "view": {"close_up": {"hand": share}, "bucket_aspect": None, **view},
    }


def dataset(make_recipe: MakeRecipe, squares: Path, share: float = 0.6, **view: Any) -> PeopleDataset:
    return load_data(make_recipe(**settings(squares, share, **view)), LoadReport()).train


def test_masks_fit_the_picture_and_count_as_in_the_whole_view(make_recipe: MakeRecipe, squares: Path) -> None:
    data = dataset(make_recipe, squares)
    close = whole = 0
    for position in range(24):
        sample = data[position]
        hand_hw, picture_hw = sample.masks_rhw[1], sample.picture_chw.mean(0)  # type: ignore[union-attr]
        if sample.area_scale == 1.0:
            whole += 1
            assert sample.known_r.tolist() == [True, True]
            continue
        close += 1
        assert sample.area_scale <= LEAST_ZOOM**-2
        assert sample.known_r.tolist() == [False, True]
        assert float(sample.masks_rhw[0].sum()) == 0.0, "the face doesn't count in a close-up of a hand"
        assert sample.whole_r2.tolist() == [[0, 0], [1, 1]], "one hand, whole in view"
        inside = hand_hw > 0.99
        assert float(picture_hw[inside].mean()) < -0.8, "the mask lies on the black hand"
        # an area of a hand of the picture, 24 x 20 or 30 x 40 of 200 pixels shown at 32
        area = float(hand_hw.sum()) * sample.area_scale
        assert min(abs(area - w * h * (32 / 200) ** 2) for w, h in ((24, 20), (30, 40))) < 2.5
    assert close > 5
    assert whole > 5


def test_of_a_painted_mask_a_close_up_has_its_box_s_part(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path
) -> None:
    """Two hands side by side, each a frame of 5 pixels around a hole of 10."""
    mask = Image.new("L", (200, 200))
    for left in (80, 100):
        mask.paste(255, (left, 90, left + 20, 110))
        mask.paste(0, (left + 5, 95, left + 15, 105))
    mask.save(tmp_path / "hands.png")
    values = {
        "boxes": {"hand": (Box(80, 90, 100, 110), Box(100, 90, 120, 110))},
        "masks": {"hand": tmp_path / "hands.png"},
    }
    data = dataset(make_recipe, squares, close_up_size=[0.7, 0.7])  # at its own pixels
    data.records = [replace(record, **values) for record in data.records]
    close = [sample for position in range(12) if (sample := data[position]).area_scale < 1.0]
    assert close
    for sample in close:
        assert float(sample.masks_rhw[1].sum()) * sample.area_scale == pytest.approx(300 * (32 / 200) ** 2)


def test_other_draws_stay_and_a_position_is_a_function_of_the_seed(make_recipe: MakeRecipe, squares: Path) -> None:
    plain, mixed = (
        load_data(make_recipe(**{**settings(squares), **v}), LoadReport()).train
        for v in ({"view": {"bucket_aspect": None}}, {})
    )
    for position in range(12):
        ours, theirs = mixed[position], plain[position]
        assert (ours.key, ours.caption, ours.draw.flip) == (theirs.key, theirs.caption, theirs.draw.flip)
        assert mixed[position].draw == ours.draw
        if ours.area_scale == 1.0:
            assert torch.equal(ours.picture_chw, theirs.picture_chw)  # type: ignore[arg-type]


def test_a_close_up_is_no_larger_than_the_picture_has_pixels() -> None:
    transform = JointTransform((32, 32))
    whole = transform.draw(torch.Generator(), (200, 200))
    small, large = Box(90.0, 90.0, 98.0, 98.0), Box(20.0, 20.0, 180.0, 180.0)
    draw = transform.close_up(whole, (200, 200), small, 0.9, (0.5, 0.5))
    assert draw is not None
    assert draw.resized_hw == (200, 200), "not beyond its own pixels"
    assert draw.top <= 90 <= 98 <= draw.top + 32
    assert transform.close_up(whole, (200, 200), large, 0.6, (0.5, 0.5)) is None, "the whole view shows it as large"
    tight = JointTransform((160, 160))
    assert tight.close_up(tight.draw(torch.Generator(), (180, 180)), (180, 180), small, 0.9, (0, 0)) is None
    drawn = transform.close_up(whole, (200, 200), Box(50.0, 50.0, 90.0, 90.0), 0.5, (0.0, 0.99))
    assert drawn is not None
    assert (drawn.top, drawn.left) == (36 - 32, 20), "the box at the lower and at the left edge"
    assert 40 * drawn.resized_hw[0] / 200 == pytest.approx(16.0, abs=0.2), "half of the view"


def batches(data: PeopleDataset) -> tuple[Batch, Batch]:
    """Close-ups alone, and a mixed batch."""
    samples = [data[position] for position in range(24)]
    close = [sample for sample in samples if sample.area_scale < 1.0]
    return collate(close[:2]), collate([close[0], *(s for s in samples if s.area_scale == 1.0)][:3])


@pytest.mark.parametrize("normalize", ["area", "image"])
def test_a_step_of_close_ups_alone_has_their_region_alone(
    make_recipe: MakeRecipe, squares: Path, normalize: str
) -> None:
    recipe = make_recipe(**settings(squares))
    data, model = load_data(recipe, LoadReport()).train, build_model(recipe, torch.device("cpu"))
    objectives = Objectives(model, recipe.regions, recipe.noise, recipe.seed)
    alone, mixed = batches(data)
    masks, draw = objectives.masks_and_noise(alone)
    assert (masks.sum(dim=(0, 2, 3)) > 0).tolist() == [False, False, True]
    areas_k = masks.sum(dim=(0, 2, 3))
    cells = objectives.counted_cells(alone)
    assert cells == masks[:, 0].numel()
    found, _ = objectives.losses(alone, masks, draw, denominators(areas_k, cells, 4, normalize))
    assert [loss is None for loss in found] == [True, True, False]
    assert bool(found[2].isfinite())  # type: ignore[union-attr]
    masks = objectives.masks(mixed)
    assert float(masks[0, 0].sum()) == 0.0
    assert bool((masks[1:, 0] == 1.0).all())
    assert mixed.to("cpu").area_scale_b is not None
    assert collate([data[p] for p in range(24) if data[p].area_scale == 1.0][:2]).area_scale_b is None


def test_a_run_with_close_ups_logs_their_share(make_recipe: MakeRecipe, squares: Path) -> None:
    recipe = make_recipe(**settings(squares), steps=3, fairness={"mode": "exact"})
    train(recipe)
    rows = metrics_without_times(recipe.out)
    assert {row["close_ups"] for row in rows} <= {0.0, 0.5, 1.0}
    assert any(row["close_ups"] for row in rows)
    for row in rows:
        assert (row["loss/global"] is None) is (row["close_ups"] == 1.0)
        assert 0.01 < row["area/hand"] < 0.045, "as in whole views, where both hands have 4.2 %"


def test_pictures_with_too_few_pixels_are_told_and_none_at_all_is_an_error(
    make_recipe: MakeRecipe, squares: Path
) -> None:
    assert close_up_lines(dataset(make_recipe, squares)) == []
    some = dataset(make_recipe, squares, close_up_size=[0.2, 0.24])
    assert close_up_lines(some) == [
        "close-ups can show 6 of 12 hands; the others are of too few pixels, so their whole view is shown"
    ]
    with pytest.raises(DataError, match=r"view.close_up names 'hand', but all 12 boxes are of too few pixels"):
        load_data(make_recipe(**{**settings(squares), "resolution": 192}), LoadReport())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["view.close_up={feet: 0.1}"], "view.close_up names 'feet', the objectives are face, hand"),
        (["view.close_up={face: 0.5, hand: 0.5}"], "close_up: the shares must sum to less than 1"),
        (["view.close_up_size=[0.2, 0.4]"], "close_up_size needs close_up, found [0.2, 0.4] without a region"),
        (["view.close_up={hand: 0.1}", "view.close_up_size=[0.6, 0.3]"], "close_up_size must be [low, high] with 0"),
        (
            ["view.close_up={hand: 0.1}", "cache.latents=true", "view.crop=center"],
            "cache.latents needs repeating views, found view.close_up={'hand': 0.1}",
        ),
    ],
)
def test_what_a_recipe_may_not_say(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        config.build(TrainRecipe, RECIPE, overrides)
    assert message in str(error.value)
