"""Runs with estimated weights: exact steps, resuming after a crash, falling back."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fairhuman.errors import ModelError, RecipeError
from fairhuman.fairness import (
    EmaEstimator,
    ExactEstimator,
    FallbackEstimator,
    OutputEstimator,
    PairwiseEstimator,
    SplitEstimator,
    TailEstimator,
)
from fairhuman.fairness.estimators.audited import AuditedEstimator
from fairhuman.train.fairness import build_estimator
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from helpers.runs import Crash, metrics_without_times

MakeRecipe = Callable[..., TrainRecipe]
MODES: dict[str, dict[str, Any]] = {
    "output": {"fairness": {"mode": "output", "every": 4, "limit": -1.0}, "steps": 26},
    "kept": {"fairness": {"mode": "output", "every": 4, "limit": -1.0, "gradients": "bf16"}, "steps": 26},
    "tail": {"fairness": {"mode": "tail", "every": 12, "limit": -1.0}, "steps": 38},
    "split": {"fairness": {"mode": "split", "every": 12, "limit": -1.0}, "steps": 38},
    "ema": {"fairness": {"mode": "ema", "every": 3, "limit": -1.0}, "accumulate": 2},
}
LONG = {"steps": 14, "checkpoint_every": 5, "batch_size": 1}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(make_recipe: MakeRecipe, mode: str) -> None:
    whole, broken = (make_recipe(name, **{**LONG, **MODES[mode]}) for name in ("whole", "broken"))
    train(whole)
    with pytest.raises(RuntimeError, match="crash"):
        train(broken, [Crash(whole.steps - 2)])
    assert train(broken).finished
    one, two = (recipe.out / "lora" / "pytorch_lora_weights.safetensors" for recipe in (whole, broken))
    assert one.read_bytes() == two.read_bytes()
    rows = metrics_without_times(whole.out)
    assert rows == metrics_without_times(broken.out)
    tail = {*range(1, 33), 37}
    output = {*range(1, 18), 21, 25}
    exact = {"output": output, "kept": output, "split": tail, "tail": tail, "ema": {1, 4, 7, 10, 13}}[mode]
    assert {number for number, row in enumerate(rows, start=1) if row["exact"]} == exact
    for row in rows:
        assert row["exact"] or row["audit_cosine"] is None
        assert row["exact"] or row["cos/global-face"] is None, "of exact Gram matrices alone"
    audited = [row["audit_cosine"] for row in rows if row["audit_cosine"] is not None]
    assert audited
    assert all(0.0 < cosine <= 1.0 + 1e-9 for cosine in audited)


def test_an_unreachable_limit_falls_back_to_the_exact_direction(make_recipe: MakeRecipe) -> None:
    strict = {"mode": "ema", "every": 1, "limit": 1.0}
    recipe, exact = (
        make_recipe("strict", steps=8, fairness=strict),
        make_recipe("exact", steps=8, fairness={"mode": "exact"}),
    )
    train(recipe)
    train(exact)
    ours, theirs = metrics_without_times(recipe.out), metrics_without_times(exact.out)
    assert [row["audit_cosine"] is None for row in ours] == [True, *[False] * 3, *[True] * 4]
    assert ours[-1]["loss/face"] == theirs[-1]["loss/face"]


def test_recipes_select_estimators(make_recipe: MakeRecipe) -> None:
    model = build_model(make_recipe(), torch.device("cpu"))

    def kinds(**values: Any) -> list[type]:
        found = build_estimator(make_recipe(**values), model)
        return [type(one) for one in (found.estimators if isinstance(found, FallbackEstimator) else [found])]

    assert kinds(fairness={"mode": "exact"}) == [ExactEstimator]
    assert kinds(fairness={"mode": "tail"}) == [TailEstimator, ExactEstimator]
    assert kinds(fairness={"mode": "split"}) == [SplitEstimator, TailEstimator, ExactEstimator]
    assert kinds() == [OutputEstimator, TailEstimator, ExactEstimator]
    assert kinds(fairness={"mode": "output"}, compile=True) == [OutputEstimator, TailEstimator, ExactEstimator]
    for mode in ("output", "split", "tail", "ema"):
        assert kinds(fairness={"mode": mode}, accumulate=2) == [EmaEstimator, ExactEstimator]


@pytest.mark.parametrize("pairwise", [False, True])
@pytest.mark.parametrize("mode", ["exact", "output"])
def test_exact_steps_keep_gradients_as_the_recipe_says(make_recipe: MakeRecipe, mode: str, pairwise: bool) -> None:
    recipe = make_recipe(
        fairness={"mode": mode, "pairwise": pairwise, "gradients": "bf16"}, gradient_checkpointing=True
    )
    found = build_estimator(recipe, build_model(recipe, torch.device("cpu")))
    kinds = found.estimators if isinstance(found, FallbackEstimator) else [found]
    exact = [one.exact if isinstance(one, AuditedEstimator) else one for one in kinds]
    assert [type(one) for one in exact] == [PairwiseEstimator if pairwise else ExactEstimator] * len(exact)
    assert {one.dtype for one in exact} == {torch.bfloat16}


def test_recipes_that_split_does_not_support(make_recipe: MakeRecipe) -> None:
    values = {"fairness": {"mode": "split"}, "lora": {"targets": "attention+conv", "rank": 2}}
    recipe = make_recipe(**values)
    model = build_model(recipe, torch.device("cpu"))
    with pytest.raises(ModelError, match=r"fairness.mode split: .* needs a LoRA on these alone, tail supports any"):
        build_estimator(recipe, model)
    with pytest.raises(RecipeError, match=r"fairness.mode=split hooks the network's layers and needs compile"):
        make_recipe(fairness={"mode": "split"}, compile=True)
