"""What a run shows of pictures of any shape: buckets, crops that keep regions, and what is said about both."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from begun.make import HERE
from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples import coverage
from fairhuman.data.samples.batch import collate
from fairhuman.data.samples.coverage import view_coverage
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.order import SourceShare
from fairhuman.data.samples.sampler import BucketOrder, SampleOrder, SizedOrder
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import RecipeError
from fairhuman.record import Box, HumanRecord
from fairhuman.regions.transforms import JointTransform
from fairhuman.train.data import RunData, build_loader, load_data
from fairhuman.train.loop import train
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import load_recipe, recipe_of_run
from fairhuman.train.run import Run, Watcher
from fairhuman.train.validation import held_out_losses
from fairhuman.train.views import describe_enlarged, training_order, training_transform, view_warnings
from helpers.figures import give_poses, write_figures, write_shapes
from helpers.places import RECIPES
from helpers.tiny_pictures import encoded

MakeRecipe = Callable[..., TrainRecipe]
Typed = Callable[..., tuple[int, str, str]]
EDGES = [(40, 60), (60, 80), (0, 20), (50, 50)]  # left and right edge of what is painted; the last is empty
TWELVE = [(64, 96)] * 10 + [(96, 64)] * 2  # portraits and landscapes, (width, height)


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "twelve", TWELVE)


def load(recipe: TrainRecipe) -> RunData:
    return load_data(recipe, LoadReport())


def test_a_folder_of_ten_portraits_and_two_landscapes_uses_all_twelve(make_recipe: MakeRecipe, twelve: Path) -> None:
    recipe = make_recipe(data=str(twelve), batch_size=8, resolution=128, steps=96)
    data, counts = load(recipe), Counter[str]()
    assert data.cropped_share < 0.05
    for step, batch in enumerate(build_loader(recipe, data, 0, 1, 0)):
        height, width = batch.pictures_bchw.shape[2:]
        tall = {h > w for h, w in batch.time_ids_b6[:, :2].tolist()}
        assert tall == {height > width}
        counts.update(batch.keys)
        if step == 2:
            assert len(counts) == 12
    assert max(counts.values()) - min(counts.values()) <= 4
    assert sum(counts.values()) == 8 * 96


def test_the_buckets_of_a_base(make_recipe: MakeRecipe) -> None:
    assert make_recipe(resolution=128).bucket_step == make_recipe(resolution=1024).bucket_step == 16
    sdxl = {"model": "stabilityai/stable-diffusion-xl-base-1.0"}
    assert [make_recipe(**sdxl, resolution=side).bucket_step for side in (256, 512, 1024, 1056)] == [32, 64, 64, 32]
    for recipe in (make_recipe(**sdxl, resolution=1024), make_recipe(resolution=128)):
        assert recipe.size in recipe.sizes
        assert max(height * width for height, width in recipe.sizes) == recipe.size[0] * recipe.size[1]
    assert make_recipe(view={"bucket_aspect": None}).sizes == [(32, 32)]


def test_memory_is_that_of_the_largest_bucket(make_recipe: MakeRecipe) -> None:
    """The most extreme shape has fewer cells than the square one."""
    buckets, square = make_recipe(resolution=128), make_recipe(resolution=128, view={"bucket_aspect": None})
    assert memory_of(buckets) == memory_of(square)


@pytest.mark.parametrize("crop", [pytest.param("center", marks=pytest.mark.slow), "random"])
def test_square_pictures_are_trained_on_as_without_buckets(make_recipe: MakeRecipe, crop: str) -> None:
    ways = ({}, {"bucket_aspect": None, "keep_region": 0.0, "min_in_view": 0.0})
    values: dict[str, Any] = {"validation": {"every": 2, "share": 0.25}, "cache": {"latents": crop == "center"}}
    losses = []
    for number, view in enumerate(ways):
        recipe = make_recipe(f"run{number}", view={"crop": crop, **view}, **values)
        train(recipe)
        weights = (recipe.out / "lora" / "pytorch_lora_weights.safetensors").read_bytes()
        losses.append((weights, (recipe.out / "validation.jsonl").read_text(encoding="utf-8")))
    assert losses[0] == losses[1]


def test_a_run_in_buckets_validates_previews_and_reports(
    make_recipe: MakeRecipe, twelve: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    values: dict[str, Any] = {"validation": {"every": 2, "share": 0.34}, "preview": {"count": 4, "steps": 2}}
    values |= {"view": {"crop": "center"}, "cache": {"latents": True}, "resolution": 64}
    recipe = make_recipe(data=str(twelve), steps=3, **values)
    path = recipe.out.with_suffix(".yaml")
    config.save(recipe, path)
    code, said, errors = typed("train", path)
    assert code == 0, errors
    assert "whole faces in view: 100 %" in said
    assert "whole hands in view: 100 %" in said
    rows = [json.loads(line) for line in (recipe.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["whole/face"] == row["whole/hand"] == row["coverage/face"] == 1.0 for row in rows)
    page = (recipe.out / "report.html").read_text(encoding="utf-8")
    assert "whole faces in view" in page
    assert (recipe.out / "overlay.png").is_file()


def test_held_out_losses_do_not_depend_on_the_shapes_around_a_picture(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    both = write_shapes(tmp_path / "both", [(64, 96), (96, 64)] * 6)
    recipe = make_recipe(data=str(both), steps=1, resolution=64, validation={"every": 1, "share": 0.5})

    class Measure(Watcher):
        def on_start(self, run: Run) -> None:
            held_out = run.data.held_out
            assert held_out is not None
            assert len({held_out.resolution(i) for i in range(len(held_out))}) == 2
            both = [held_out_losses(run.objectives, held_out, (0.2, 0.6), size, torch.device("cpu")) for size in (1, 8)]
            assert both[0].keys == both[1].keys
            assert sorted(both[0].keys) == sorted(record.key for record in held_out.records)
            for name, errors in both[0].errors.items():
                assert errors == pytest.approx(both[1].errors[name], rel=1e-4)
                assert both[0].areas[name] == both[1].areas[name]
            self.measured = True

    watcher = Measure()
    train(recipe, [watcher])
    assert watcher.measured


def test_conditions_follow_a_picture_into_its_bucket(make_recipe: MakeRecipe, twelve: Path) -> None:
    give_poses(twelve)
    recipe = make_recipe(data=str(twelve), kind="controlnet", steps=6, resolution=64, view={"keep_region": 1.0})
    shapes = set()
    for batch in build_loader(recipe, load(recipe), 0, 1, 0):
        pose = batch.conditions["pose"]
        assert pose.shape == batch.pictures_bchw.shape
        assert all(one.any() for one, shown in zip(pose, batch.shown_conditions["pose"], strict=True) if shown)
        shapes.add(tuple(pose.shape[2:]))
    assert len(shapes) == 2


def record(width: int, height: int, **boxes: Any) -> HumanRecord:
    return HumanRecord("k", b"", width, height, "", boxes)


def test_coverage_counts_boxes_that_are_in_view_and_whole_in_view() -> None:
    half, whole, out = Box(20, 0, 40, 10), Box(40, 10, 60, 20), Box(0, 0, 20, 10)
    records = [record(100, 40, face=(half, whole, out), hand=None), record(40, 40, face=(whole,), hand=())]
    records[1] = replace(records[1], boxes={"face": (Box(0, 0, 40, 40),), "hand": ()})
    still = JointTransform((40, 40), "center", 0.0)
    found = view_coverage(records, ("face", "hand"), still)
    assert found.regions.keys() == {"face"}
    assert found.regions["face"] == (4, 3 / 4, 2 / 4)
    assert found.area_lost == pytest.approx((0.6 + 0) / 2)
    assert (found.whole("face"), found.whole("hand")) == ("whole faces in view: 50 %", "")
    kept = view_coverage(records, ("face", "hand"), replace(still, keep_region=1.0))
    assert kept.regions["face"] == (4, 3 / 4, 3 / 4), "the two that fit together"
    shown = view_coverage(records, ("face",), still, [(40, 100), (40, 40)])
    assert (shown.regions["face"].whole, shown.area_lost) == (1.0, 0.0)


def test_coverage_counts_a_painted_mask_without_boxes_as_its_bounding_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crop shows columns 30 to 70."""
    records = [replace(record(100, 40, subject=None), masks={"subject": painted(*edges)}) for edges in EDGES]
    still = JointTransform((40, 40), "center", 0.0)
    assert view_coverage(records, ("subject",), still).regions == {"subject": (3, 2 / 3, 1 / 3)}
    kept = view_coverage(records, ("subject",), replace(still, keep_region=1.0))
    assert kept.regions == {"subject": (3, 1.0, 1.0)}, "crops are placed by these boxes, as in training"
    monkeypatch.setattr(coverage, "MOST_MASKS", 2)
    assert view_coverage(records, ("subject",), still).regions == {"subject": (2, 1 / 2, 1 / 2)}, "the first and third"


def painted(left: int, right: int) -> bytes:
    mask = Image.new("L", (100, 40))
    mask.paste(255, (left, 10, right, 20))
    return encoded(mask)


@pytest.mark.parametrize(("least", "known"), [(0.0, True), (0.5, True), (0.6, False)])
def test_a_region_that_is_mostly_cut_off_counts_as_not_annotated(tmp_path: Path, least: float, known: bool) -> None:
    """The crop shows columns 24 to 72: half of the face, all of the hand."""
    folder = write_shapes(tmp_path / "wide", [(96, 48)], faces=[[14, 4, 34, 24]], hands=[[40, 4, 50, 24]])
    records = read_source(folder, ("face", "hand"), SourceSettings(), LoadReport())
    still = JointTransform((48, 48), "center", 0.0)
    batch = collate([PeopleDataset(records, ("face", "hand"), still, min_in_view=least)[0]])
    assert batch.known_br.tolist() == batch.present_br.tolist() == [[known, True]]
    assert batch.whole_br2.tolist() == [[[1, 0], [1, 1]]]


@pytest.mark.parametrize("scale", [1, 2])
def test_painted_masks_are_cut_off_by_the_same_rule(tmp_path: Path, scale: int) -> None:
    folder = write_shapes(tmp_path / "wide", [(96 * scale, 48 * scale)])

    mask = Image.new("L", (96, 48))
    mask.paste(255, (14, 4, 30, 24))  # 6 of 16 columns are in view
    mask.resize((96 * scale, 48 * scale), Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    records = read_source(folder, ("face", "hand"), SourceSettings(), LoadReport())
    records = [replace(records[0], masks={"face": tmp_path / "mask.png"})]
    still = JointTransform((48, 48), "center", 0.0)
    known = [PeopleDataset(records, ("face",), still, min_in_view=least)[0].known_r.item() for least in (0.35, 0.4)]
    assert known == [True, False]


def test_a_run_warns_where_regions_are_cut_and_names_the_setting(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "tall", [(48, 96)] * 4, faces=[[20, 2, 30, 12]], hands=None)
    values: dict[str, Any] = {"data": str(folder), "regions": {"names": ["face"]}}
    square = {"bucket_aspect": None, "crop": "center"}
    for view, setting in (
        ({**square, "keep_region": 0.0}, "view.bucket_aspect=auto"),
        ({"bucket_aspect": 1.0, "bucket_step": 16, "crop": "center", "keep_region": 0.5}, "view.keep_region=1"),
    ):
        recipe = make_recipe(**values, view=view)
        data = load(recipe)
        if data.coverage.regions["face"].whole < 0.8:
            (line,) = view_warnings(recipe, data.coverage)
            assert line.startswith("warning: only ")
            assert setting in line
    assert data.coverage.regions["face"].boxes == 4
    assert view_warnings(make_recipe(**values), load(make_recipe(**values)).coverage) == []
    assert load(make_recipe(**values, view={**square, "keep_region": 1.0})).coverage.whole("face").endswith("100 %")


def test_pictures_below_the_training_size_are_counted_and_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "sizes", [(64, 64), (40, 40), (32, 32), (31, 64), (24, 24), (20, 20), (30, 30)])
    report = LoadReport()
    data = load_data(make_recipe(data=str(folder), view={"bucket_aspect": None}), report)
    line = describe_enlarged(data.train)
    assert line is not None
    assert line.startswith("4 of 7 pictures are smaller than the training size and are enlarged: ")
    assert "03.png (31 x 64), " in line
    assert "and 1 more" in line
    found = [note for note in report.notes if note.stage == "view"]
    assert [note.value for note in found][:2] == ["31 x 64, shown at 32 x 32", "24 x 24, shown at 32 x 32"]
    large = load(make_recipe(data=str(folder), resolution=16, view={"bucket_aspect": None}))
    assert describe_enlarged(large.train) is None


def test_one_person_is_not_mirrored(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    write_figures(tmp_path / "person", 4, 64)
    people, person = make_recipe(), make_recipe(subject="person", data=str(tmp_path / "person"))
    assert (people.view.flip_probability, person.view.flip_probability) == (0.5, 0.0)
    assert not any(load(person).train[position].draw.flip for position in range(40))
    assert any(load(people).train[position].draw.flip for position in range(40))
    asked = make_recipe("run", "view.flip_probability=0.5", subject="person")
    assert asked.view.flip_probability == 0.5
    assert config.build(TrainRecipe, person.model_dump(mode="json")) == person
    with pytest.raises(RecipeError, match="subject: input should be 'people' or 'person'"):
        make_recipe(subject="persons")


def test_the_order_of_records_of_a_resolution_each() -> None:
    sizes = [(16, 32), (32, 16), (16, 32), (32, 16)]
    order = SizedOrder(SampleOrder(3, range(4)), sizes)
    for position in range(12):
        found = list(order.successors(position))
        assert found[0] == order.index(position)
        assert order.resolution(position) == sizes[found[0]] == sizes[found[1]] != sizes[found[2]]
        assert sorted(found) == [0, 1, 2, 3]


def test_settings_that_a_recipe_does_not_name_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was begun when pictures were cropped to a square."""
    monkeypatch.chdir(HERE)
    named = load_recipe(HERE / "training" / "lora.yaml", ["steps=40"])
    assert (named.steps, named.view.keep_region, named.view.bucket_aspect) == (40, 0.0, None)
    own = recipe_of_run(Path("training/run"))
    assert (own.view.bucket_area, own.view.bucket_crop, own.view.min_in_view) == (None, 1.0, 0.0)
    assert load_recipe(Path("training/run/recipe.yaml")) == own
    elsewhere = load_recipe(HERE / "training" / "lora.yaml", ["out=training/new"])
    assert (elsewhere.view.keep_region, elsewhere.view.bucket_aspect) == (1.0, "auto")


@pytest.mark.parametrize("name", ["lora-small", "lora-sdxl", "photos", "photos-sdxl"])
def test_recipes_on_photos_show_them_nearly_whole(shared: Path, name: str) -> None:
    sources = [shared / "data" / one for one in ("ccp", "wholebody")]
    settings = SourceSettings(max_reject_share=1.0)
    records = [one for path in sources for one in read_source(path, ("face", "hand"), settings, LoadReport())][::4]
    for size in (128, 512, 1024):
        model = ["model=small"] if size == 128 else []
        recipe = config.load(TrainRecipe, RECIPES / f"{name}.yaml", ["data=p", "out=r", f"resolution={size}", *model])
        order = training_order(recipe, [SourceShare(range(len(records)))], records)
        assert isinstance(order, BucketOrder)
        shown = order.resolutions_of_records()
        seen = view_coverage(
            records, ("face", "hand"), training_transform(recipe), [shown[n] for n in range(len(records))]
        )
        assert seen.regions["face"].whole >= 0.97, size
        assert seen.regions["hand"].whole >= 0.9, size
        assert seen.area_lost <= 0.05, size
