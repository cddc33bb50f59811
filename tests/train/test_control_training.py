"""ControlNet and T2I-adapter in the training loop: the direction, dropped conditions, resuming."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from diffusers import ControlNetModel, T2IAdapter
from PIL import Image

from fairhuman.cli.watch import Previews
from fairhuman.data.pictures.arrow_copies import with_arrow_copies
from fairhuman.data.pictures.notes import LoadReport, Note
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.errors import DataError, ModelError
from fairhuman.fairness import ExactEstimator, FairBackward, FallbackEstimator, MinimumPotentialDelay, OutputEstimator
from fairhuman.record import CopiedCell
from fairhuman.report.training import write_training_report
from fairhuman.train.data import RunData, load_data
from fairhuman.train.fairness import build_estimator
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run
from fairhuman.train.step import Objectives
from helpers.figures import give_poses
from helpers.runs import Crash, check_direction, metrics_without_times, read_lines

MakeRecipe = Callable[..., TrainRecipe]
KINDS = ("controlnet", "t2i_adapter")
both = pytest.mark.parametrize("kind", KINDS)


def posed(people: Path, folder: Path, without: int = 0, **others: Any) -> Path:
    """The drawn people with a pose each; the first few have none."""
    shutil.copytree(people, folder)
    give_poses(folder, without, **others)
    return folder


@pytest.fixture
def make(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> MakeRecipe:
    def control(out: str, kind: str, without: int = 0, others: dict[str, Any] | None = None, **values: Any) -> Any:
        folder = tmp_path / f"posed-{without}"
        if not folder.exists():
            posed(people, folder, without, **(others or {}))
        return make_recipe(out, kind=kind, **{"data": str(folder), **values})

    return control


def parts(recipe: TrainRecipe) -> tuple[Objectives, RunData]:
    """A model after some training: a new ControlNet's zero layers leave most gradients zero."""
    data = load_data(recipe, LoadReport())
    model = build_model(recipe, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.trainable_parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return Objectives(model, recipe.regions, recipe.noise, recipe.seed), data


def batch_of(data: RunData, *positions: int) -> Batch:
    return collate([data.train[position] for position in positions])


@both
def test_the_direction_is_that_of_the_true_gram_matrix(make: MakeRecipe, kind: str) -> None:
    objectives, data = parts(make("run", kind))
    check_direction(objectives, batch_of(data, 0, 1, 2), unlike_plain=0.999, unused=True)


@both
def test_nothing_to_train_is_an_error(make: MakeRecipe, kind: str) -> None:
    recipe = make("run", kind)
    model = build_model(recipe, torch.device("cpu"))
    parameters = (parameter for parameter in model.trainable_parameters())
    assert sum(1 for _ in parameters) > 0
    with pytest.raises(ValueError, match="the generator is exhausted"):
        FairBackward(parameters, MinimumPotentialDelay())


@both
def test_conditions_are_dropped_sample_by_sample_from_the_seed(make: MakeRecipe, kind: str) -> None:
    recipe = make("run", kind, **{kind: {"condition_dropout": 0.3}})
    data = load_data(recipe, LoadReport()).train
    shown = [data[position].shown_conditions["pose"] for position in range(200)]
    assert 0.6 < sum(shown) / len(shown) < 0.8
    for position in (0, 50, 199):
        sample, again = data[position], data[position]
        assert sample.shown_conditions == again.shown_conditions
        assert bool(sample.conditions["pose"].any()) == sample.shown_conditions["pose"]
        assert sample.known_conditions["pose"], "that it was dropped doesn't make it unknown"
    batches = [shown[start : start + 4] for start in range(0, 200, 4)]
    assert any(len(set(batch)) == 2 for batch in batches), "not all of a batch or none"
    never = make("never", kind, **{kind: {"condition_dropout": 0.0}})
    kept = load_data(never, LoadReport()).train
    for position in range(12):  # whatever else is drawn is the same
        assert torch.equal(kept[position].picture_chw, data[position].picture_chw)
        assert kept[position].draw == data[position].draw
        assert kept[position].shown_conditions["pose"]


@both
def test_time_ids_are_those_of_the_samples_own_crop(make: MakeRecipe, kind: str) -> None:
    data = load_data(make("run", kind, view={"zoom": (1.0, 1.5), "keep_region": 0.0}), LoadReport()).train
    ids = torch.stack([data[position].time_ids_6 for position in range(12)])
    assert len(ids[:, 2:4].unique(dim=0)) > 3
    for position in range(12):
        assert data[position].time_ids_6[:2].tolist() == [64.0, 64.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"kind": "controlnet", "accumulate": 2, "ema": {"decay": 0.9}, "validation": {"every": 2, "share": 0.3}},
        {"kind": "controlnet", "precision": "bf16", "gradient_checkpointing": True},
        {"kind": "t2i_adapter", "fairness": {"mode": "output", "every": 2, "limit": -1.0}},
        {"kind": "t2i_adapter", "fairness": {"mode": "ema", "every": 2, "limit": -1.0}, "precision": "fp16"},
    ],
    ids=lambda values: " ".join(map(str, values.values()))[:40],
)
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(make: MakeRecipe, values: dict[str, Any]) -> None:
    whole, broken = (make(name, without=3, **values) for name in ("whole", "broken"))
    train(whole)
    with pytest.raises(RuntimeError, match="crash"):
        train(broken, [Crash(3)])
    assert train(broken).finished
    for name in ("diffusion_pytorch_model.safetensors", "config.json", "conditions.json"):
        ours, theirs = ((recipe.out / values["kind"] / name).read_bytes() for recipe in (broken, whole))
        assert ours == theirs, name
    assert metrics_without_times(broken.out) == metrics_without_times(whole.out)
    if whole.validation.every:
        assert (broken.out / "validation.jsonl").read_text() == (whole.out / "validation.jsonl").read_text()


def test_a_run_writes_a_diffusers_folder_that_can_be_a_start(make: MakeRecipe) -> None:
    for kind, plain in zip(KINDS, (ControlNetModel, T2IAdapter), strict=True):
        run = train(make(kind, kind, steps=2))
        loaded = plain.from_pretrained(run.recipe.out / kind).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in run.model.trainable_state().items())
        later = make(f"later-{kind}", kind, steps=1, **{kind: {"start": str(run.recipe.out / kind)}})
        model = build_model(later, torch.device("cpu"))
        assert all(torch.equal(loaded[name], tensor) for name, tensor in model.trainable_state().items())
        fresh = build_model(make("fresh", kind), torch.device("cpu")).trainable_state()
        assert any(not torch.equal(loaded[name], tensor) for name, tensor in fresh.items())


def test_rows_without_a_condition_count_as_dropped(make: MakeRecipe) -> None:
    recipe = make("run", "t2i_adapter", without=6, batch_size=12, steps=2, t2i_adapter={"condition_dropout": 0.5})
    train(recipe)
    rows = [json.loads(line) for line in (recipe.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["condition_known/pose"] for row in rows] == [0.5, 0.5], "an epoch each"
    assert all(0 < row["condition_shown/pose"] < 0.5 for row in rows)


def test_a_condition_that_cannot_be_used_is_noted_once(make: MakeRecipe, tmp_path: Path) -> None:
    """Each of three epochs comes to it, and so does a run that goes on."""

    class Spoils(Crash):
        def on_start(self, run: Run) -> None:
            pose.write_bytes(b"not a picture")

        def on_data_notes(self, run: Run, notes: Sequence[Note]) -> None:
            told.extend(map(str, notes))

    told: list[str] = []
    recipe = make("run", "t2i_adapter", batch_size=6, steps=6, checkpoint_every=3)
    pose, rows = tmp_path / "posed-0" / "pose.png", read_lines(tmp_path / "posed-0" / "metadata.jsonl")
    rows[0]["pose"] = pose.name
    (tmp_path / "posed-0" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.new("RGB", (64, 64)).save(pose)
    with pytest.raises(RuntimeError, match="crash"):
        train(recipe, [Spoils(4)])
    Image.new("RGB", (64, 64)).save(pose)
    assert train(recipe, [Spoils(0)]).finished
    counts = json.loads((recipe.out / "data_report.json").read_text(encoding="utf-8"))["counts"]
    assert (len(told), counts) == (1, {"dropped": {"not a picture": 1}})


def test_a_condition_that_no_record_has_is_an_error_that_names_it(make: MakeRecipe) -> None:
    with pytest.raises(DataError, match=r"controlnet.conditions has depth, but no record to train on has one"):
        load_data(make("run", "controlnet", controlnet={"conditions": ["pose", "depth"]}), LoadReport())


def test_a_colour_picture_in_the_place_of_depth_is_an_error_that_says_so(make: MakeRecipe, people: Path) -> None:
    depth = {"depth": str(next((people / "images").iterdir()))}
    recipe = make("run", "controlnet", others=depth, controlnet={"conditions": ["depth"]}, source={})
    with pytest.raises(DataError, match="depth"):
        load_data(recipe, LoadReport())


def test_pose_and_depth_are_trained_together(make: MakeRecipe, people: Path, tmp_path: Path) -> None:
    folder = posed(people, tmp_path / "both", depth="depth.png", depth_kind="relative")
    ramp = (np.arange(64 * 64).reshape(64, 64) * 15).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "depth.png")
    recipe = make("run", "controlnet", data=str(folder), steps=1, controlnet={"conditions": ["pose", "depth"]})
    run = train(recipe)
    assert run.model.trainable_state()["controlnet_cond_embedding.conv_in.weight"].shape[1] == 4
    assert json.loads((recipe.out / "controlnet" / "conditions.json").read_text())["conditions"] == {
        "pose": 3,
        "depth": 1,
    }


def test_conditions_inside_a_table_are_copied_like_its_pictures(
    make: MakeRecipe, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairhuman.train.data.with_arrow_copies", partial(with_arrow_copies, small=0))
    depth = tmp_path / "depth.png"
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 15).astype(np.uint16)).save(depth)
    rows = [json.loads(line) for line in (people / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["image"] = {"bytes": (people / row.pop("file_name")).read_bytes(), "path": None}
        row["depth"] = {"bytes": depth.read_bytes(), "path": None}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "people.parquet")
    copies, table = (
        load_data(
            make(
                "run",
                "controlnet",
                data=str(tmp_path / "people.parquet"),
                controlnet={"conditions": ["depth"]},
                source={"cache": cache},
                validation={"every": 1, "share": 0.3},
            ),
            LoadReport(),
        )
        for cache in (str(tmp_path / "copies"), False)
    )
    for part in (copies.train, copies.held_out):
        assert part is not None
        assert all(isinstance(record.depth, CopiedCell) for record in part.records)
    assert copies.train[0].conditions["depth"].equal(table.train[0].conditions["depth"])


@both
def test_recipes_select_estimators(make: MakeRecipe, kind: str) -> None:
    model = build_model(make("run", kind), torch.device("cpu"))
    found = build_estimator(make("run", kind, fairness={"mode": "output"}), model)
    assert isinstance(found, FallbackEstimator)
    assert [type(one) for one in found.estimators] == [OutputEstimator, ExactEstimator]
    with pytest.raises(ModelError, match=r"fairness.mode tail: no trained parameter.*modes exact, ema and output"):
        build_estimator(make("run", kind, fairness={"mode": "tail"}), model)


@both
def test_previews_and_the_report_of_a_run_show_what_is_followed(make: MakeRecipe, kind: str) -> None:
    held_out = {"every": 1, "share": 0.3}
    recipe = make("run", kind, steps=1, learning_rate=0.1, validation=held_out, preview={"count": 2, "steps": 2})
    run = train(recipe, [Previews()])
    index = json.loads((recipe.out / "previews" / "index.json").read_text())
    for row in index["rows"]:
        for way in ("caption", "photo"):
            before, after = (recipe.out / row["steps"][step][way] for step in ("0", "1"))
            assert before.read_bytes() != after.read_bytes()
    assert run.data.held_out is not None
    assert all(run.data.held_out[number].shown_conditions["pose"] for number in range(3)), "nothing is dropped there"
    with Image.open(recipe.out / "previews" / index["rows"][0]["conditions"]["pose"].rpartition("/")[2]) as pose:
        assert np.ptp(np.asarray(pose)) > 100
    page = write_training_report(recipe.out).read_text(encoding="utf-8")
    assert page.count('alt="pose"') == 2 * len(index["rows"]), "beside the photos, and beside what captions gave"
