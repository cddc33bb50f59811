"""What is ignored in a run counts for no loss, training or held out; repeats of records; what a run says of both."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import collate
from fairhuman.errors import DataError
from fairhuman.fairness import FairBackward, FairStep, MinimumPotentialDelay
from fairhuman.record import IGNORE
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives, fair_step
from fairhuman.train.validation import held_out_losses

MakeRecipe = Callable[..., TrainRecipe]
WHOLE, LEFT = [[0, 0, 64, 64]], [[0, 0, 32, 64]]


@pytest.fixture
def with_column(people: Path, tmp_path: Path) -> Callable[..., str]:
    """`with_column(name, function of the row's number)` copies the people and gives each row a value of its own."""

    def make(name: str, values: Callable[[int], Any], folder: str = "copy") -> str:
        copy = tmp_path / folder
        shutil.copytree(people, copy)
        path = copy / "metadata.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({**row, name: values(number)}) for number, row in enumerate(rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(copy)

    return make


def step_of(recipe: TrainRecipe, positions: list[int]) -> tuple[FairStep, torch.Tensor, list[torch.Tensor]]:
    data = load_data(recipe, LoadReport())
    model = build_model(recipe, torch.device("cpu"))
    parameters = model.trainable_parameters()
    for parameter in parameters:  # LoRA starts with B = 0, where half of the gradients vanish
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    objectives = Objectives(model, recipe.regions, recipe.noise, recipe.seed)
    batch = collate([data.train[position] for position in positions])
    step, areas_k = fair_step(objectives, FairBackward(parameters, MinimumPotentialDelay()), [batch])
    return step, areas_k, [parameter.grad for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize("normalize", ["area", "image"])
def test_a_picture_that_is_ignored_whole_changes_nothing(
    make_recipe: MakeRecipe, with_column: Callable[..., str], normalize: str
) -> None:
    """Of two pictures of a step one is ignored: the step is that of the other alone."""
    recipe = make_recipe(regions={"normalize": normalize})
    first, second = (load_data(recipe, LoadReport()).train.order.index(position) for position in (0, 1))
    data = with_column(IGNORE, lambda number: WHOLE if number == second else None)
    assert first != second
    ignoring = recipe.model_copy(update={"data": Path(data)})
    both, areas_both, found = step_of(ignoring, [0, 1])
    alone, areas_alone, expected = step_of(recipe, [0])
    assert torch.equal(areas_both, areas_alone)
    assert both.losses == pytest.approx(alone.losses, rel=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-7)


def test_a_step_in_which_all_is_ignored_does_nothing(make_recipe: MakeRecipe, with_column: Callable[..., str]) -> None:
    recipe = make_recipe(data=with_column(IGNORE, lambda _number: WHOLE))
    step, areas_k, gradients = step_of(recipe, [0, 1])
    assert areas_k.tolist() == [0.0, 0.0, 0.0]
    assert list(step.losses) == [None, None, None]
    assert all(not gradient.any() for gradient in gradients)


def test_an_empty_column_gives_the_same_bits(make_recipe: MakeRecipe, with_column: Callable[..., str]) -> None:
    train(make_recipe("plain", steps=2))
    train(make_recipe("empty", steps=2, data=with_column(IGNORE, lambda _number: [])))
    files = [make_recipe(name).product / "pytorch_lora_weights.safetensors" for name in ("plain", "empty")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_that_ignores_by_mask_box_and_rule(
    make_recipe: MakeRecipe, with_column: Callable[..., str], people: Path
) -> None:
    """The smaller hand of each figure, its left half, and a region of one's own; from caches, with held-out losses."""
    data = with_column(IGNORE, lambda number: LEFT if number % 2 else None)
    rows = Path(data) / "metadata.jsonl"
    lines = [json.loads(line) | {"logo": [[0, 56, 64, 64]]} for line in rows.read_text(encoding="utf-8").splitlines()]
    rows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    values = {
        "data": data,
        "regions": {"ignore": ["hands but the largest", "logo"]},
        "view": {"crop": "center", "keep_region": 0.0, "flip_probability": 0.0},
        "cache": {"latents": True},
        "validation": {"every": 2, "share": 0.25},
    }
    recipe = make_recipe(**values)
    run = train(recipe)
    assert all(len(record.boxes["hand"] or ()) == 1 for record in run.data.train.records)
    all_of_them = f"part of 9 of {len(run.data.train)} pictures"
    assert run.data.lines()[-1] == (
        f"ignore: part of 4 of 9 pictures by boxes, {all_of_them} by boxes of hands but the largest, {all_of_them} by "
        "boxes of logo; these parts count for no objective, the rest does"
    )
    metrics = [json.loads(line) for line in (recipe.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for step, line in enumerate(metrics):
        trained = collate([run.data.train[position] for position in (2 * step, 2 * step + 1)])
        assert trained.ignored_bhw is not None
        assert 0.125 < line["ignored"] < 0.7
        assert line["ignored"] == pytest.approx(float(trained.ignored_bhw.mean()))
    assert all(line["loss/global"] > 0 for line in metrics)
    held_out = run.data.held_out
    assert held_out is not None
    found = held_out_losses(run.objectives, held_out, [0.5], 4, torch.device("cpu"))
    batch = collate([held_out[position] for position in range(len(held_out))])
    assert batch.ignored_bhw is not None
    grid = run.objectives.masks(batch).shape[-2:].numel()
    channels = run.model.pipeline.vae.config.latent_channels
    counted_b = 1 - batch.ignored_bhw.mean(dim=(1, 2))
    assert found.areas["global"] == pytest.approx((counted_b * grid * channels).tolist(), rel=1e-5)
    again = train(make_recipe("again", **values | {"cache": {}}))
    whole = [json.loads(line) for line in (again.recipe.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["area/hand"] for line in whole] == [line["area/hand"] for line in metrics]


def test_a_rule_of_an_unknown_region_is_named(make_recipe: MakeRecipe) -> None:
    with pytest.raises(DataError, match=r"regions\.ignore names 'watermrak', which no record annotates"):
        load_data(make_recipe(regions={"ignore": "watermrak"}), LoadReport())


@pytest.mark.parametrize("view", [{}, {"bucket_aspect": 2.0, "bucket_step": 16}])
def test_repeats_of_records_are_those_of_their_source(
    make_recipe: MakeRecipe, with_column: Callable[..., str], people: Path, view: dict[str, Any]
) -> None:
    """A record repeated three times, in a source repeated twice, is drawn six times an epoch, in the same order."""
    column = with_column("repeats", lambda _number: 3)
    mixtures = [[{"path": column, "repeats": 2}], [{"path": str(people), "repeats": 6}]]
    loaded = [load_data(make_recipe(data=mixture, view=view), LoadReport()) for mixture in mixtures]
    orders = [[data.train.order.index(position) for position in range(144)] for data in loaded]
    assert orders[0] == orders[1]
    assert set(Counter(orders[0][:72]).values()) == {6}
    assert loaded[0].lines() == ["12 photos; repeats 3: 36 with repeats"]
    assert loaded[0].fingerprint != loaded[1].fingerprint


def test_repeats_may_differ(make_recipe: MakeRecipe, with_column: Callable[..., str]) -> None:
    data = load_data(make_recipe(data=with_column("repeats", lambda number: 1 + number % 2)), LoadReport())
    drawn = Counter(data.train.order.index(position) for position in range(18))
    assert sorted(drawn.items()) == [(number, 1 + number % 2) for number in range(12)]
    assert data.lines() == ["12 photos; repeats 1 to 2: 18 with repeats"]


def test_a_run_says_which_mask_is_empty(make_recipe: MakeRecipe, with_column: Callable[..., str]) -> None:
    data = Path(with_column("split", lambda _number: None))
    row = json.loads((data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[0])
    Image.open(data / row["file_name"]).convert("L").point(lambda _level: 0).save(data / "black.png")
    rows = (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.dumps({**row, "masks": {"subject": "black.png"}})
    (data / "metadata.jsonl").write_text("\n".join([first, *rows[1:]]), encoding="utf-8")
    recipe = make_recipe(data=str(data), regions={"names": ["face", "hand", "subject"]})
    assert load_data(recipe, LoadReport()).lines() == ["1 mask is empty: metadata.jsonl:1"]


def test_one_hand_of_two_is_told_where_pictures_are_mirrored(
    make_recipe: MakeRecipe, with_column: Callable[..., str]
) -> None:
    data = with_column("left_hand", lambda _number: [[1, 2, 30, 40]])
    rows = [json.loads(line) for line in (Path(data) / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({**row, "right_hand": [], "feet": []}) for row in rows]
    (Path(data) / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def told(*names: str, **view: float) -> list[str]:
        recipe = make_recipe(data=data, regions={"names": names}, view=view)
        return [line for line in load_data(recipe, LoadReport()).lines() if line.startswith("warning: a mirrored")]

    (line,) = told("left_hand", "feet")
    assert "shows a right_hand as left_hand: name both in regions.names, or set view.flip_probability=0" in line
    assert told("left_hand", "right_hand") == told("left_hand", flip_probability=0.0) == told("feet") == []
