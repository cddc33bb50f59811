"""The strategy, the estimator and the `FairBackward` of a run, from its recipe."""

import difflib
import inspect
from collections.abc import Mapping

import torch

from fairhuman.bases.base import base_of
from fairhuman.errors import ModelError, PluginError, RecipeError
from fairhuman.fairness import (
    AlphaFair,
    DynamicWeightAverage,
    EmaEstimator,
    Estimator,
    ExactEstimator,
    FairBackward,
    FallbackEstimator,
    GradientBalancing,
    LinearScalarization,
    MinimumPotentialDelay,
    NashMTL,
    OutputEstimator,
    PairwiseEstimator,
    RandomLossWeighting,
    RateFloor,
    SplitEstimator,
    Strategy,
    TailEstimator,
    UncertaintyWeighting,
    strategy_named,
)
from fairhuman.fairness.estimators.audited import Exact
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.regions.settings import by_objective
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import AUDITS, TORCHJD, TRIAL, WARM_UP
from fairhuman.utils.randomness import Stream, mixed_seed


def build_strategy(recipe: TrainRecipe, device: torch.device) -> Strategy:
    """Return the recipe's strategy, with its settings; with a floor for the whole picture's rate if one is asked for.

    Raises:
        PluginError: it is another package's, and can't be loaded.
        RecipeError: `fairness.options` don't fit it.
    """
    strategy, floor = _strategy(recipe), recipe.fairness.floor
    for parameter in strategy.parameters():
        parameter.data = parameter.data.to(device)
    floored = floor is not None or recipe.steer.at_most is not None
    if not floored or not isinstance(strategy, GradientBalancing):
        return strategy
    return RateFloor(strategy, floor or 0.0, recipe.objectives.bands or 1)


def _strategy(recipe: TrainRecipe) -> Strategy:
    fairness = recipe.fairness
    try:
        kind = strategy_named(recipe.strategy)
    except (ImportError, TypeError, ValueError) as error:
        raise PluginError(str(error)) from error
    if kind is LinearScalarization and fairness.weights:
        return LinearScalarization(by_objective("fairness.weights", fairness.weights, recipe.objective_names))
    if kind is AlphaFair:
        return AlphaFair(fairness.alpha, fairness.ridge)
    if kind is MinimumPotentialDelay or kind is NashMTL:
        return kind(fairness.ridge)
    if kind is DynamicWeightAverage:
        return DynamicWeightAverage(fairness.dwa_temperature, fairness.dwa_window)
    if kind is RandomLossWeighting:
        return RandomLossWeighting(mixed_seed(recipe.seed, Stream.STRATEGY))
    if kind is UncertaintyWeighting:
        return UncertaintyWeighting(len(recipe.objective_names))
    if recipe.strategy.startswith(TORCHJD):
        settings = {**fairness.torchjd.model_dump(), "seed": mixed_seed(recipe.seed, Stream.STRATEGY)}
        return kind(**{name: settings[name] for name in inspect.signature(kind).parameters})
    return _with_options(kind, recipe.strategy, fairness.options) if recipe.added_strategy else kind()


def _with_options(kind: type[Strategy], name: str, options: Mapping[str, bool | int | float | str]) -> Strategy:
    """A strategy of another package, made with the arguments that the recipe names."""
    known = list(inspect.signature(kind).parameters)
    if options and not known:
        raise RecipeError(f"fairness.options: the strategy {name!r} takes no options, found {', '.join(options)}")
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise RecipeError(f"fairness.options: the strategy {name!r} has no option {option!r}; {hint}")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"fairness.options of the strategy {name!r}: {error}") from error


def build_fair_backward(
    recipe: TrainRecipe, model: TrainableModel, strategy: Strategy, scaler: torch.amp.GradScaler | None
) -> FairBackward:
    """Return the run's `FairBackward`."""
    return FairBackward(
        model.trainable_parameters(),
        strategy,
        length=recipe.fairness.length,
        radius=recipe.fairness.radius,
        batched=batched(recipe),
        estimator=build_estimator(recipe, model),
        scaler=scaler,
        names=recipe.objective_names,
    )


def batched(recipe: TrainRecipe) -> bool:
    """Whether an exact step computes its K gradients in one batched pass.

    With gradient checkpointing that recomputes activations once; it doesn't support compile, dropout or sharding, and
    returns K gradients in float32.
    """
    dropout = recipe.kind == "lora" and recipe.lora.dropout > 0.0
    whole = recipe.processes.sharding == "none"
    wide = recipe.fairness.gradients == "fp32"
    return recipe.gradient_checkpointing and not recipe.compile and not dropout and whole and wide


def build_estimator(recipe: TrainRecipe, model: TrainableModel) -> Estimator:
    """Return the recipe's estimator, with the more expensive ones that replace it if its audits are bad."""
    fairness, parameters = recipe.fairness, model.trainable_parameters()
    mode, every = fairness.mode, fairness.every
    kept = DTYPES[fairness.gradients]
    exact = ExactEstimator(parameters, batched(recipe), kept)
    last: Exact = PairwiseEstimator(parameters, kept) if fairness.pairwise else exact
    if mode == "exact":
        return last
    if mode == "ema" or recipe.accumulate > 1:
        return FallbackEstimator([EmaEstimator(parameters, every or AUDITS["ema"], last), last], fairness.limit)
    ladder: list[Estimator] = [last]
    if not fairness.pairwise and recipe.processes.sharding == "none":
        kinds: dict[str, type[TailEstimator]] = {"tail": TailEstimator}
        if mode == "split":  # only on request: it ends runs whose regions overlap
            kinds["split"] = SplitEstimator
        network = base_of(model.pipeline).network
        for name, kind in kinds.items():
            try:
                ladder.insert(0, kind(network, parameters, every or AUDITS[name], exact, trial=TRIAL))
            except ValueError as error:
                if mode == name:
                    raise ModelError(f"fairness.mode {mode}: {error}") from error
    if mode == "output":
        ladder.insert(0, OutputEstimator(parameters, every or AUDITS["output"], last, WARM_UP))
    return FallbackEstimator(ladder, fairness.limit)
