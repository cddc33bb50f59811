"""`objectives.bands`: the global loss as several objectives, by noise level."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.errors import RecipeError
from fairhuman.fairness import FairBackward, FairStep, LinearScalarization, MinimumPotentialDelay, Strategy
from fairhuman.regions.objectives import denominators, split_by_band
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives, fair_step
from helpers.runs import metrics_without_times
from train.conftest import MakeRecipe

RECIPE = {"data": "people", "out": "run", "steps": 1, "batch_size": 16, "objectives": {"bands": 3}}
EXACT = "fairness.mode=exact"


def test_a_mask_is_split_by_the_bands_of_its_samples() -> None:
    masks = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    split = split_by_band(masks, torch.tensor([2, 0, 2, 1]), 3)
    assert split.shape == (4, 4, 3, 3)
    assert torch.equal(split[:, :3].sum(1), masks[:, 0])
    assert torch.equal(split[0, 2], masks[0, 0])
    assert torch.equal(split[:, 3], masks[:, 1])
    assert (split[:, :3].amax(dim=(2, 3)) > 0).tolist() == [
        [False, False, True],
        [True, False, False],
        [False, False, True],
        [False, True, False],
    ]


@pytest.mark.parametrize("normalize", ["area", "image"])
def test_bands_share_the_denominator_of_the_whole_picture(normalize: str) -> None:
    whole = denominators(torch.tensor([60.0, 6.0]), torch.tensor(64.0), 4, normalize)
    split = denominators(torch.tensor([10.0, 0.0, 50.0, 6.0]), torch.tensor(64.0), 4, normalize, bands=3)
    assert split.tolist() == [whole[0]] * 3 + [whole[1]]


class Split:
    """Steps of one model with the global loss in some number of bands."""

    def __init__(self, make_recipe: MakeRecipe) -> None:
        recipe = make_recipe()
        self.data = load_data(recipe, LoadReport())
        self.model = build_model(recipe, torch.device("cpu"))
        for parameter in self.model.trainable_parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        self.settings = (recipe.regions, recipe.noise, recipe.seed)

    def batch(self, *positions: int) -> Batch:
        return collate([self.data.train[position] for position in positions])

    def step(self, bands: int, strategy: Strategy, batches: Sequence[Batch]) -> tuple[FairStep, Tensor]:
        parameters = self.model.trainable_parameters()
        fair = FairBackward(parameters, strategy)
        step, _ = fair_step(Objectives(self.model, *self.settings, bands=bands), fair, batches, measure=True)
        direction = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        for parameter in parameters:
            parameter.grad = None
        return step, direction


def test_the_bands_of_a_step(make_recipe: MakeRecipe) -> None:
    """They add up to the global loss, and a step may be divided; a band without a sample is absent."""
    split = Split(make_recipe)
    batch = split.batch(*range(6))
    plain, direction = split.step(1, LinearScalarization(), [batch])
    banded, other = split.step(3, LinearScalarization(), [batch])
    assert banded.present[:3] == (True, True, True), "these positions have samples of each band"
    assert sum(banded.losses[:3]) == pytest.approx(plain.losses[0], rel=1e-5)  # type: ignore[arg-type]
    assert banded.losses[3:] == pytest.approx(plain.losses[1:], rel=1e-5)
    torch.testing.assert_close(other, direction, rtol=0, atol=1e-5)

    fair, direction = split.step(3, MinimumPotentialDelay(), [batch])
    divided, other = split.step(3, MinimumPotentialDelay(), [split.batch(0, 1, 2), split.batch(3, 4, 5)])
    assert divided.losses == pytest.approx(fair.losses, rel=1e-5)
    torch.testing.assert_close(divided.weights, fair.weights, rtol=1e-3, atol=0)
    torch.testing.assert_close(other, direction, rtol=0, atol=1e-5)

    alone, _ = split.step(3, MinimumPotentialDelay(), [split.batch(0)])
    assert sorted(alone.present[:3]) == [False, False, True]


def test_a_run_logs_its_bands_and_the_whole(make_recipe: MakeRecipe) -> None:
    values = {"batch_size": 4, "accumulate": 4, "steps": 1, "objectives": {"bands": 2}, "fairness": {"mode": "exact"}}
    recipe = make_recipe(**values, regions={"scale": {"global": 2.0}})
    train(recipe)
    (row,) = metrics_without_times(recipe.out)
    assert row["loss/global"] == pytest.approx(row["loss/global_1"] + row["loss/global_2"])
    assert sum(row[f"weight/{name}"] or 0.0 for name in recipe.objective_names) == pytest.approx(4.0)
    assert {"cos/global_1-global_2", "share/global_2", "area/face"} <= row.keys()
    assert not {"weight/global", "area/global_2"} & row.keys()
    assert 0.0 < row["area/face"] < 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [EXACT, "objectives.bands=4"],
            "objectives.bands needs at most 5 objectives of different names, found global_1",
        ),
        ([EXACT, "regions.names=[global_2]"], "of different names, found global_1, global_2, global_3, global_2"),
        ([EXACT, "batch_size=3", "accumulate=5"], "needs batch_size x accumulate of at least 16"),
        (["fairness.mode=output"], "objectives.bands needs fairness.mode=exact, as an estimate can't see"),
        (["fairness.mode=ema"], "found ema"),
        ([EXACT, "objectives.bands=5"], "objectives.bands: input should be less than or equal to 4, found 5"),
        (
            ["strategy=ls", "fairness.weights={global: 2}"],
            "fairness.weights names 'global', the objectives are global_1",
        ),
    ],
)
def test_what_a_recipe_may_not_say(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        config.build(TrainRecipe, RECIPE, overrides)
    assert message in str(error.value)


def test_what_a_recipe_may_say() -> None:
    names = config.build(TrainRecipe, RECIPE, [EXACT, "accumulate=16", "batch_size=1"]).objective_names
    assert names == ("global_1", "global_2", "global_3", "face", "hand")
    fixed = config.build(TrainRecipe, RECIPE, ["strategy=ls", "fairness.weights={global_2: 2}"])
    assert not fixed.amortised
    assert config.build(TrainRecipe, RECIPE, ["objectives.bands=null"]).objective_names == ("global", "face", "hand")
