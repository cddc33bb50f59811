"""`noise.density`: noise levels by importance sampling, which changes no loss's expectation."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from fairhuman import config
from fairhuman.bases.noising import Ddpm, Flow
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import collate
from fairhuman.errors import RecipeError
from fairhuman.train.data import load_data
from fairhuman.train.densities import LevelDensities
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import NoiseSettings
from fairhuman.train.step import Objectives
from helpers.runs import metrics_without_times
from train.conftest import MakeRecipe

OBJECTIVES = ("global", "face", "hand")
DENSITIES = LevelDensities({"face": (1.0, 3.0), "hand": (8.0, 1.0, 0.5, 0.5)}, OBJECTIVES)
RECIPE = {"data": "people", "out": "run", "steps": 1}


def drawn(seen: Sequence[bool], count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(1)
    ranks, weights = zip(*(DENSITIES.draw(generator, seen) for _ in range(count)), strict=True)
    return np.array(ranks), np.array(weights)


def mixture(ranks: np.ndarray, seen: Sequence[bool]) -> np.ndarray:
    """p(r), stated once more."""
    face = np.where(ranks < 0.5, 0.5, 1.5)
    hand = np.array([3.2, 0.4, 0.2, 0.2])[np.minimum(ranks * 4, 3).astype(int)]
    present = [one for one, there in zip((np.ones_like(ranks), face, hand), seen, strict=True) if there]
    return np.mean(present, axis=0)


@pytest.mark.parametrize("seen", [(True, True, True), (True, False, True), (True, False, False), (False, False, True)])
def test_ranks_have_the_density_of_the_objectives_in_view_and_weights_undo_it(seen: tuple[bool, ...]) -> None:
    ranks, weights = drawn(seen)
    assert weights == pytest.approx(1.0 / mixture(ranks, seen))
    if seen[0]:
        assert weights.max() <= sum(seen)
    grid = np.linspace(0.0, 1.0, 20_001)
    cumulative = np.concatenate([[0.0], np.cumsum(mixture(grid[:-1] + 0.5e-4 / 2, seen)) / 20_000])
    assert kstest(ranks, lambda r: np.interp(r, grid, cumulative)).pvalue > 1e-3
    losses = {"constant": (lambda r: 1.0 + 0.0 * r, 1.0), "square": (np.square, 1.0 / 3.0)}
    losses["little noise"] = (lambda r: (r < 0.1) * 1.0, 0.1)
    for name, (loss, expected) in losses.items():
        values = weights * loss(ranks)
        assert abs(values.mean() - expected) < 4.0 * values.std() / np.sqrt(len(values)) + 1e-12, name


def test_a_sample_without_any_objective_is_uniform() -> None:
    ranks, weights = drawn((False, False, False), 2_000)
    assert (weights == 1.0).all()
    assert kstest(ranks, "uniform").pvalue > 1e-3


def test_a_density_where_gradients_are_long_lowers_the_variance() -> None:
    """The reason for it: with q proportional to the loss, the region's estimate varies less."""
    proportional = LevelDensities({"hand": (8.0, 2.0, 1.0, 1.0)}, OBJECTIVES)
    generator = torch.Generator().manual_seed(2)
    ranks, weights = np.array([proportional.draw(generator, (True, False, True)) for _ in range(5_000)]).T
    plain = np.random.default_rng(3).random(5_000)

    def loss(r: np.ndarray) -> np.ndarray:
        return np.array([8.0, 2.0, 1.0, 1.0])[(r * 4).astype(int)]

    assert np.mean(weights * loss(ranks)) == pytest.approx(3.0, rel=0.05)
    assert np.std(weights * loss(ranks)) < 0.5 * np.std(loss(plain))


def test_uniform_ranks_give_the_levels_of_the_base() -> None:
    generator = torch.Generator().manual_seed(4)
    ranks = torch.rand(4_000, generator=generator, dtype=torch.float64).tolist()
    flow = Flow(mean=0.3, std=0.8, shift=3.0)
    levels = [float(flow.quantile(rank, 64)) for rank in ranks]
    own = [float(flow.draw(generator, 64)) for _ in range(4_000)]
    assert kstest(levels, own).pvalue > 1e-3
    assert float(flow.quantile(0.1, 64)) < float(flow.quantile(0.9, 64))

    class Scheduler:
        class config:  # noqa: N801 - as in diffusers
            num_train_timesteps = 1000

    ddpm = Ddpm(Scheduler())  # type: ignore[arg-type]
    assert [int(ddpm.quantile(rank, 64)) for rank in (0.0, 0.0009, 0.001, 0.5, 1.0 - 2.0**-53)] == [0, 0, 1, 500, 999]


def test_the_losses_of_a_step_are_weighted_and_keep_their_expectation(make_recipe: MakeRecipe) -> None:
    """A step's loss is the sum of its samples' with weight 1/p; without densities the draws are those of before."""
    recipe = make_recipe()
    data, model = load_data(recipe, LoadReport()).train, build_model(recipe, torch.device("cpu"))
    drawn_by = NoiseSettings(density={"hand": (3.0, 1.0)})
    plain, tilted = (Objectives(model, recipe.regions, noise, recipe.seed) for noise in (recipe.noise, drawn_by))
    batch = collate([data[position] for position in range(4)])
    masks = plain.masks(batch)
    size = masks.shape[-2:]
    before, after = plain._draw(batch, size), tilted._draw(batch, size, tilted._seen(masks))
    assert before.weights_b.tolist() == [1.0] * 4
    assert torch.equal(before.noise_bchw, after.noise_bchw)
    seen = masks.sum(dim=(2, 3)) > 0
    first_half = after.levels_b < 500
    n_b = seen.sum(dim=1)
    p_b = (n_b - seen[:, 2].float() + seen[:, 2] * torch.where(first_half, 1.5, 0.5)) / n_b
    torch.testing.assert_close(after.weights_b, 1.0 / p_b)
    residual = tilted.residual(batch, after)
    losses, _ = tilted.losses(batch, masks, after, 4 * masks.sum(dim=(0, 2, 3)))
    expected = torch.einsum("b,bchw,bkhw->k", 1.0 / p_b, residual.square(), masks) / (4 * masks.sum(dim=(0, 2, 3)))
    torch.testing.assert_close(torch.stack([loss for loss in losses if loss is not None]), expected)


def test_a_run_with_densities(make_recipe: MakeRecipe) -> None:
    train(make_recipe("a", steps=1, noise={"density": {"face": [1.0, 2.0, 1.0]}}))
    train(make_recipe("b", steps=1, batch_size=1, accumulate=2, noise={"density": {"face": [1.0, 2.0, 1.0]}}))
    (one,), (other,) = (metrics_without_times(make_recipe(name).out) for name in ("a", "b"))
    for name in OBJECTIVES:
        assert one[f"loss/{name}"] == pytest.approx(other[f"loss/{name}"], rel=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{feet: [1, 2]}", "noise.density names 'feet', the objectives are global, face, hand"),
        ("{hand: [1]}", "noise.density.hand"),
        ("{hand: [1, 0]}", "noise.density.hand.1: input should be greater than 0, found 0"),
        ("{hand: [1, .inf]}", "noise.density.hand.1: input should be a finite number"),
    ],
)
def test_a_wrong_density_is_named(given: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        config.build(TrainRecipe, RECIPE, [f"noise.density={given}"])
    assert message in str(error.value)
