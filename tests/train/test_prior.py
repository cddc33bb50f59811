"""`regions.prior`: outside of the regions the prediction is held to that of the base without the LoRA."""

import pytest
import torch
from torch import Tensor

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.errors import RecipeError
from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay
from fairhuman.models.lora import LoraModel
from fairhuman.regions.objectives import with_prior
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.step import Objectives, fair_step
from helpers.runs import metrics_without_times
from train.conftest import MakeRecipe


def parts(make_recipe: MakeRecipe, *overrides: str, prior: bool = True) -> tuple[Objectives, Batch]:
    """A fresh model's objectives, and a batch."""
    recipe = make_recipe("run", f"regions.prior={str(prior).lower()}", *overrides)
    data, model = load_data(recipe, LoadReport()), build_model(recipe, torch.device("cpu"))
    batch = collate([data.train[position] for position in range(3)])
    return Objectives(model, recipe.regions, recipe.noise, recipe.seed, bands=recipe.objectives.bands or 1), batch


def moved(objectives: Objectives) -> None:
    """Move the LoRA away from its start, where its updates are 0."""
    for parameter in objectives.model.trainable_parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))


def losses_of(objectives: Objectives, batch: Batch) -> list[Tensor | None]:
    masks_bkhw, draw = objectives.masks_and_noise(batch)
    return objectives.losses(batch, masks_bkhw, draw, 4 * masks_bkhw.sum(dim=(0, 2, 3)))[0]


def test_the_prior_s_mask_is_what_counts_outside_of_all_regions() -> None:
    masks_bkhw = torch.rand(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    masks_bkhw[0, :, 0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    masks_bkhw[0, :, 0, 1] = torch.tensor([1.0, 0.25, 0.0, 0.5])
    masks_bkhw[0, :, 0, 2] = torch.tensor([0.5, 0.0, 0.0, 0.0])
    found_bkhw = with_prior(masks_bkhw)
    assert torch.equal(found_bkhw[:, :4], masks_bkhw)
    assert found_bkhw[0, 4, 0].tolist() == [1.0, 0.375, 0.5]


def test_other_losses_stay_and_the_prior_s_is_the_squared_drift(make_recipe: MakeRecipe) -> None:
    """Equal to the last bit; where the LoRA changes nothing yet, the drift is 0 and not a rounding error."""
    plain, batch = parts(make_recipe, "noise.min_snr_gamma=0.05", prior=False)
    held, _ = parts(make_recipe, "noise.min_snr_gamma=0.05", "regions.scale={prior: 3}")
    first = losses_of(held, batch)
    assert first[-1] is not None
    assert first[-1].item() == 0.0
    for objectives in (plain, held):
        moved(objectives)
    *others, prior = losses_of(held, batch)
    expected = losses_of(plain, batch)
    assert [None if one is None else one.item() for one in others] == [
        None if one is None else one.item() for one in expected
    ]
    masks_bkhw, draw = held.masks_and_noise(batch)
    assert isinstance(held.model, LoraModel)
    with torch.no_grad():
        with_lora = held.residual(batch, draw)
        with held.model.without_updates():
            drift_bchw = with_lora - held.residual(batch, draw)
    weights_b = held.noising.weights(draw.levels_b, 0.05)
    assert float(weights_b.min()) < 1.0
    total = torch.einsum("b,bchw,bhw->", weights_b, drift_bchw.square(), masks_bkhw[:, -1])
    assert prior is not None
    assert prior.item() == pytest.approx(float(3 * total / (4 * masks_bkhw[:, -1].sum())), rel=1e-4)
    assert prior.item() > 0


def test_the_lora_is_as_it_was_after_the_base_has_predicted(make_recipe: MakeRecipe) -> None:
    objectives, batch = parts(make_recipe)
    model = objectives.model
    assert isinstance(model, LoraModel)
    draw = objectives._draw(batch, objectives.masks(batch).shape[-2:])
    with torch.no_grad():
        untouched = objectives.residual(batch, draw)
        moved(objectives)
        before = objectives.residual(batch, draw)
        with model.without_updates():
            base = objectives.residual(batch, draw)
        assert torch.equal(base, untouched)
        assert torch.equal(objectives.residual(batch, draw), before)
        assert not torch.equal(before, base)
    assert all(parameter.requires_grad for parameter in model.trainable_parameters())


@pytest.mark.parametrize(
    ("strategy", "scale"), [pytest.param(LinearScalarization, 30, marks=pytest.mark.slow), (MinimumPotentialDelay, 1)]
)
def test_it_holds_what_lies_outside(make_recipe: MakeRecipe, strategy: type, scale: int) -> None:
    drifts = []
    for prior in (False, True):
        objectives, batch = parts(make_recipe, *([f"regions.scale={{prior: {scale}}}"] if prior else []), prior=prior)
        parameters = objectives.model.trainable_parameters()
        optimizer = torch.optim.Adam(parameters, 1e-2)
        fair = FairBackward(parameters, strategy())
        for _ in range(4):
            fair_step(objectives, fair, [batch])
            optimizer.step()
            optimizer.zero_grad()
        measured, _ = parts(make_recipe)
        measured = Objectives(objectives.model, measured.regions, measured.noise, measured.seed)
        drift = losses_of(measured, batch)[-1]
        assert drift is not None
        drifts.append(drift.item())
    assert 0 < drifts[1] < 0.7 * drifts[0]


@pytest.mark.parametrize("mode", [pytest.param("exact", marks=pytest.mark.slow), "output"])
def test_a_run_logs_it_and_goes_on(make_recipe: MakeRecipe, mode: str) -> None:
    options = ("regions.prior=true", f"fairness.mode={mode}")
    whole, halted = make_recipe("whole", *options), make_recipe("halted", *options)
    train(whole)
    train(halted.model_copy(update={"steps": 2}))
    train(halted)
    lines = metrics_without_times(whole.out)
    assert lines == metrics_without_times(halted.out)
    assert lines[0]["loss/prior"] == 0.0
    assert lines[-1]["loss/prior"] > 0
    assert 0 < lines[0]["area/prior"] < 1
    assert {"weight/prior", "cos/global-prior", "cos/hand-prior"} <= set(lines[-1])


def test_it_goes_with_bands(make_recipe: MakeRecipe) -> None:
    objectives, batch = parts(make_recipe, "objectives.bands=2", "batch_size=16", "fairness.mode=exact")
    moved(objectives)
    fair = FairBackward(objectives.model.trainable_parameters(), MinimumPotentialDelay())
    step, areas_k = fair_step(objectives, fair, [batch])
    assert len(step.losses) == len(areas_k) == 5
    assert step.losses[-1] is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("kind=full",), "regions.prior needs kind=lora"),
        (("strategy=si",), "regions.prior needs a strategy other than si"),
        (("regions.names=[]",), "names must have at least one region"),
        (("regions.names=[face, prior]",), "rename the region 'prior'"),
    ],
)
def test_what_it_can_t_be(make_recipe: MakeRecipe, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe("run", "regions.prior=true", *overrides)
