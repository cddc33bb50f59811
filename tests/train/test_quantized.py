"""Runs on quantised weights: as any other in what they write, resume and measure."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairhuman import config
from fairhuman.cli.watch import Previews
from fairhuman.errors import RecipeError
from fairhuman.models.frozen_linear import FrozenLinear
from fairhuman.models.sdxl import load_pipeline
from fairhuman.report.run_folder import read_json
from fairhuman.train.loop import train
from fairhuman.train.memory import memory_of, weight_bytes
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from helpers.places import RECIPES

MakeRecipe = Callable[..., TrainRecipe]
INT8 = {"quantize": "int8"}


def test_a_run_resumes_with_equal_bits_and_draws_and_measures(make_recipe: MakeRecipe) -> None:
    more = {"preview": {"count": 1, "steps": 2}, "validation": {"every": 2, "share": 0.3}, "cache": {"text": True}}
    files = []
    for out, steps in (("one", (4,)), ("two", (2, 4))):
        for number in steps:
            recipe = make_recipe(out, steps=number, precision="bf16", gradient_checkpointing=True, base=INT8, **more)
            run = train(recipe, [Previews()])
        files.append((recipe.product / "pytorch_lora_weights.safetensors").read_bytes())
        assert read_json(recipe.out / "previews/index.json")["rows"][0]["steps"].keys() == {"0", *map(str, steps)}
        assert len((recipe.out / "validation.jsonl").read_text().splitlines()) == 3
    assert files[0] == files[1]
    assert any(isinstance(layer, FrozenLinear) for layer in run.model.pipeline.text_encoder_2.modules())
    with pytest.raises(RecipeError, match=r"base\.quantize: 'int8' there, 'none' now"):
        train(make_recipe("two", steps=4, precision="bf16", gradient_checkpointing=True, **more))


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter", "mole"])
def test_frozen_kinds_train_beside_quantised_weights(make_recipe: MakeRecipe, kind: str) -> None:
    """A new ControlNet begins as a copy of the whole weights, not of the rounded ones."""
    recipe = make_recipe(kind=kind, base={"quantize": "nf4"}, mole={"rank": 4})
    model = build_model(recipe, torch.device("cpu"))
    assert any(isinstance(layer, FrozenLinear) for layer in model.pipeline.unet.modules())
    assert all(parameter.dtype == torch.float32 for parameter in model.trainable_parameters())
    if kind == "controlnet":
        whole = load_pipeline("small").unet.state_dict()
        copied = {name: weight for name, weight in model.trainable_state().items() if name.endswith("to_q.weight")}
        assert copied
        assert all(torch.equal(weight, whole[name]) for name, weight in copied.items())


def test_quantised_weights_need_less_memory(make_recipe: MakeRecipe) -> None:
    needs = [weight_bytes(make_recipe(base={"quantize": kind})) for kind in ("none", "int8", "nf4")]
    assert needs[0].frozen > needs[1].frozen > needs[2].frozen
    network = load_pipeline("small")
    layers = [
        layer.weight.numel()
        for part in (network.unet, network.text_encoder, network.text_encoder_2)
        for name, layer in part.named_modules()
        if isinstance(layer, torch.nn.Linear) and (".transformer_blocks." in name or ".layers." in name)
    ]
    rows = needs[1].frozen - needs[0].frozen + 3 * sum(layers)
    assert 0 < rows < sum(layers) / 8, "a float32 scale for each row"
    assert needs[1].frozen - needs[2].frozen == sum(layers) // 2 + rows - sum(layers) // 16


RECIPE = RECIPES / "lora-sdxl-8gb.yaml"
OF_PHOTOS = RECIPES / "photos-sdxl.yaml"


@pytest.mark.parametrize(
    ("path", "changes"), [(RECIPE, ()), (OF_PHOTOS, ("base.quantize=int8",))], ids=["8gb", "photos"]
)
def test_recipes_for_8_gb_run_on_the_small_base(
    people: Path, tmp_path: Path, path: Path, changes: tuple[str, ...]
) -> None:
    small = ("model=small", "resolution=32", "steps=2", "source.workers=0", "preview.count=0", f"data={people}")
    run = train(config.load(TrainRecipe, path, [*small, *changes, f"out={tmp_path / 'run'}"]))
    assert run.finished
    assert run.objectives.texts is not None
    assert any(isinstance(layer, FrozenLinear) for layer in run.model.pipeline.unet.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "changes", "most"),
    [(RECIPE, (), 8e9), (OF_PHOTOS, ("base.quantize=int8",), 8e9), (OF_PHOTOS, (), 11 * 2**30)],
    ids=["8gb", "photos-8gb", "photos-12gb"],
)
def test_recipes_need_no_more_than_they_say(people: Path, path: Path, changes: tuple[str, ...], most: float) -> None:
    assert memory_of(config.load(TrainRecipe, path, ["model=sdxl", f"data={people}", *changes])).needed < most


def test_trained_weights_are_not_quantised(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"base\.quantize needs frozen weights, which kind full trains"):
        make_recipe(kind="full", base=INT8)


def test_pictures_are_drawn_with_quantised_weights(
    make_recipe: MakeRecipe, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    run = train(make_recipe("run", base=INT8, steps=1, learning_rate=0.1))
    asked = ("--prompt", "a person", "--steps", 2, "--height", 32, "--width", 32, "--lora", run.recipe.product)
    drawn = {}
    for quantize in ("none", "int8"):
        code, said, errors = typed("sample", tmp_path / quantize, *asked, "--quantize", quantize)
        assert code == 0, said + errors
        drawn[quantize] = next((tmp_path / quantize).glob("*.png")).read_bytes()
    assert drawn["none"] != drawn["int8"]
    code, _, errors = typed("sample", tmp_path / "int8", *asked, "--quantize", "nf4")
    assert (code, "drawn with quantize 'int8', not 'nf4'" in errors) == (1, True), errors
    code, _, errors = typed("sample", tmp_path / "new", *asked, "--quantize", "int8", "--fuse")
    assert "can't be fused into a quantised network" in errors
