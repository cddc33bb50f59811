"""Runs whose frozen weights stay in main memory: as any other in what they write, and smaller on a device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fairhuman.bases.base import networks
from fairhuman.errors import RecipeError
from fairhuman.models.frozen_linear import offloaded, product_bytes
from fairhuman.train import memory
from fairhuman.train.loop import train
from fairhuman.train.memory import combined_changes, memory_of, weight_bytes
from fairhuman.train.model import build_model
from fairhuman.train.preflight import findings
from fairhuman.train.recipe import TrainRecipe
from helpers.runs import metrics_without_times

MakeRecipe = Callable[..., TrainRecipe]
META = torch.device("meta")
AWAY = {"offload": True}


@pytest.mark.parametrize(
    "settings",
    [{}, {"model": "small-flow", "precision": "fp32"}, {"kind": "mole", "mole": {"rank": 4}}, {"kind": "controlnet"}],
    ids=str,
)
def test_all_else_is_on_the_device(make_recipe: MakeRecipe, settings: dict[str, Any]) -> None:
    """PyTorch's meta device stands for a GPU."""
    recipe = make_recipe(gradient_checkpointing=True, base=AWAY, **settings)
    trained = build_model(recipe, META)
    away = {id(one) for one in offloaded(networks(trained.pipeline))}
    assert away
    places = {(id(p) in away, p.device.type) for part in networks(trained.pipeline) for p in part.parameters()}
    assert places == {(True, "cpu"), (False, "meta")}


def test_a_run_has_the_same_result_and_may_go_on_without(make_recipe: MakeRecipe) -> None:
    more = {"preview": {"count": 1, "steps": 2}, "validation": {"every": 2, "share": 0.3}, "cache": {"text": True}}
    files = []
    for out, runs in (("one", ((4, False),)), ("two", ((2, True), (4, False))), ("three", ((4, True),))):
        for steps, offload in runs:
            base = {"offload": offload}
            recipe = make_recipe(out, steps=steps, precision="bf16", gradient_checkpointing=True, base=base, **more)
            train(recipe)
        files.append((recipe.product / "pytorch_lora_weights.safetensors").read_bytes())
    assert files[0] == files[1] == files[2]
    assert len(metrics_without_times(recipe.out)) == 4


def test_memory_counts_what_stays_in_main_memory(make_recipe: MakeRecipe) -> None:
    whole, away = (weight_bytes(make_recipe(base={"offload": offload})) for offload in (False, True))
    assert away.offloaded > 0 == whole.offloaded
    assert away.frozen + away.offloaded == whole.frozen
    assert away.trained == whole.trained
    model = build_model(make_recipe(base=AWAY), META)
    largest = max(one.nbytes for one in offloaded(networks(model.pipeline)))
    assert product_bytes(model.pipeline, None) == 2 * largest
    both = build_model(make_recipe(base={**AWAY, "quantize": "int8"}), META)
    assert product_bytes(both.pipeline, None) > 4 * max(one.nbytes for one in offloaded(networks(both.pipeline)))
    needs = [memory_of(make_recipe(base={"offload": offload})) for offload in (False, True)]
    assert needs[0].total - needs[1].total == away.offloaded - 2 * largest
    assert needs[1].on_cpu == needs[0].on_cpu + 2 * largest, "the weights themselves are in main memory both times"


def test_it_is_offered_where_it_can_be_had_and_the_dry_run_tells_of_it(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(base={"quantize": "int8"}, cache={"text": True}, fairness={"mode": "output"}, precision="bf16")
    away, nf4 = ("base.offload=true",), ("base.quantize=nf4",)
    offered = list(memory._options(recipe, False))
    assert offered.index(away) < offered.index(nf4)
    needed = memory_of(recipe).needed
    assert all(memory_of(memory._changed(recipe, option)).needed < needed for option in (away, nf4))
    for other in ({"kind": "full"}, {"compile": True}, {"base": AWAY}):
        assert away not in memory._options(make_recipe(**other), False)
    found = [one for one in findings(make_recipe(base=AWAY), device_memory=2**33) if one.what == "memory"]
    assert "GiB of weights stay in main memory" in found[0].text


def test_what_makes_it_faster_is_kept_beside_it(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though memory doesn't need it: otherwise the text encoders would be copied to the device at every step."""
    options = [("cache.text=true",), ("fairness.pairwise=true",), ("base.quantize=int8",), ("base.offload=true",)]
    monkeypatch.setattr(memory, "_options", lambda *_: options)
    limit = memory_of(make_recipe(base=AWAY)).needed
    before = make_recipe(cache={"text": True}, fairness={"pairwise": True}, base={"quantize": "int8"})
    assert limit < memory_of(before).needed
    together = combined_changes(make_recipe(), limit)
    assert together is not None
    assert together.overrides == ("cache.text=true", "base.quantize=int8", "base.offload=true")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "full"}, "base.offload needs frozen weights, which kind full trains: leave it out, found True"),
        ({"compile": True}, "base.offload brings weights by a stream that compile=true can't follow"),
    ],
)
def test_it_is_refused_where_it_has_no_sense(make_recipe: MakeRecipe, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(base=AWAY, **settings)


def test_pictures_are_drawn_with_offloaded_weights(
    make_recipe: MakeRecipe, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    run = train(make_recipe("run", steps=1, learning_rate=0.1))
    asked = ("--prompt", "a person", "--steps", 2, "--height", 32, "--width", 32, "--lora", run.recipe.product)
    pixels = []
    for name, option in (("whole", "--no-fuse"), ("away", "--offload")):
        code, said, errors = typed("sample", tmp_path / name, *asked, option)
        assert code == 0, said + errors
        with Image.open(next((tmp_path / name).glob("*.png"))) as picture:
            pixels.append(np.asarray(picture))
    np.testing.assert_array_equal(*pixels)
