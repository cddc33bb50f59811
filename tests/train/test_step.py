"""One step: the losses, the noise, and how a step may be divided."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler

from fairhuman.bases.latents import encode_pictures
from fairhuman.bases.noising import Ddpm
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.errors import ModelError
from fairhuman.fairness import EmaEstimator, FairBackward, MinimumPotentialDelay
from fairhuman.train.data import RunData, load_data
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import NoiseSettings
from fairhuman.train.step import NoiseDraw, Objectives, fair_step

MakeRecipe = Callable[..., TrainRecipe]


def parts(recipe: TrainRecipe) -> tuple[Objectives, RunData]:
    data = load_data(recipe, LoadReport())
    model = build_model(recipe, torch.device("cpu"))
    return Objectives(model, recipe.regions, recipe.noise, recipe.seed), data


def batch_of(data: RunData, *positions: int) -> Batch:
    return collate([data.train[position] for position in positions])


def test_min_snr_holds_for_every_objective(make_recipe: MakeRecipe) -> None:
    """Each loss is recomputed from residual, weights and masks, sample by sample."""
    objectives, data = parts(make_recipe(noise={"min_snr_gamma": 5.0, "offset": 0.1}))
    batch = batch_of(data, 0, 1, 2, 3)
    masks, chance = objectives.masks_and_noise(batch)
    areas = masks.sum(dim=(0, 2, 3))
    losses, output = objectives.losses(batch, masks, chance, 4 * areas)
    residual = objectives.residual(batch, chance).detach()
    assert torch.equal(output.prediction_b, residual)
    assert output.levels_b is not None
    assert torch.allclose(output.levels_b.exp(), Ddpm(objectives.noising.scheduler).snr(chance.levels_b))
    alphas = objectives.noising.scheduler.alphas_cumprod[chance.levels_b].tolist()
    for k in range(3):
        total = 0.0
        for b, alpha in enumerate(alphas):
            snr = alpha / (1 - alpha)
            total += min(snr, 5.0) / snr * float((masks[b, k] * residual[b].square().sum(0)).sum())
        loss = losses[k]
        assert loss is not None
        assert loss.item() == pytest.approx(total / (4 * float(areas[k])), rel=1e-4)


def test_micro_batches_give_the_direction_of_the_whole_batch(make_recipe: MakeRecipe) -> None:
    objectives, data = parts(make_recipe())
    parameters = objectives.model.trainable_parameters()
    for parameter in parameters:  # LoRA starts with B = 0, where half of the gradients vanish
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    directions = []
    for division in ([(0, 1, 2, 3)], [(0, 1), (2, 3)], [(3,), (0, 2), (1,)]):
        fair = FairBackward(parameters, MinimumPotentialDelay())
        step, areas = fair_step(objectives, fair, [batch_of(data, *positions) for positions in division])
        directions.append((torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]), step, areas))
        for parameter in parameters:
            parameter.grad = None
    whole, step, areas = directions[0]
    for other, other_step, other_areas in directions[1:]:
        assert torch.allclose(whole, other, rtol=0, atol=2e-6 * float(whole.norm()))
        assert torch.allclose(step.weights, other_step.weights, rtol=1e-4)
        assert torch.allclose(areas, other_areas)
        assert other_step.losses == pytest.approx(step.losses, rel=1e-5)


def test_noise_depends_on_the_position_alone(make_recipe: MakeRecipe) -> None:
    objectives, data = parts(make_recipe())
    one = objectives._draw(batch_of(data, 0, 5, 7), (8, 8))
    other = objectives._draw(batch_of(data, 7, 1, 5), (8, 8))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[1], b[2])
        assert torch.equal(a[2], b[0])
    assert not torch.equal(one.noise_bchw[0], one.noise_bchw[1])


def test_an_offset_shifts_a_channel_s_noise_by_a_constant(make_recipe: MakeRecipe) -> None:
    """ε + o n, with n ~ N(0, 1) of each sample and channel."""
    objectives, data = parts(make_recipe())
    batch = batch_of(data, *range(8))
    noises = [
        replace(objectives, noise=NoiseSettings(offset=offset))._draw(batch, (8, 8)).noise_bchw for offset in (0.0, 0.1)
    ]
    shift_bchw = noises[1] - noises[0]
    torch.testing.assert_close(shift_bchw, shift_bchw[..., :1, :1].expand_as(shift_bchw), rtol=0, atol=1e-6)
    shift_bc = shift_bchw[..., 0, 0]
    assert len(shift_bc.unique()) == shift_bc.numel()
    assert 0.07 < float(shift_bc.std()) < 0.13


def test_an_objective_that_no_sample_has_is_absent(make_recipe: MakeRecipe) -> None:
    objectives, data = parts(make_recipe())
    batch = batch_of(data, 0, 1)
    batch.masks_brhw[:, 1] = 0.0
    fair = FairBackward(objectives.model.trainable_parameters(), MinimumPotentialDelay())
    step, areas = fair_step(objectives, fair, [batch])
    assert step.present == (True, True, False)
    assert step.losses[2] is None
    assert step.weights[2] == 0
    assert areas[2] == 0


def test_an_accumulated_step_of_ema_leaves_an_absent_objective_out(make_recipe: MakeRecipe) -> None:
    objectives, data = parts(make_recipe())
    parameters = objectives.model.trainable_parameters()
    fair = FairBackward(parameters, MinimumPotentialDelay(), estimator=EmaEstimator(parameters))
    batches = [batch_of(data, 0, 1), batch_of(data, 2, 3)]
    whole, _ = fair_step(objectives, fair, batches)
    for batch in batches:
        batch.masks_brhw[:, 1] = 0.0
    step, _ = fair_step(objectives, fair, batches)
    assert (whole.exact, step.exact) == (True, False)
    assert whole.present == (True, True, True)
    assert step.present == (True, True, False)
    assert step.weights[2] == 0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_perfect_predictions_have_no_residual(kind: str) -> None:
    """From the noisy picture and the right target, both the noise and the picture can be recovered."""
    scheduler = DDPMScheduler(prediction_type=kind)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 3, 3, generator=generator), torch.randn(2, 4, 3, 3, generator=generator)
    steps = torch.tensor([20, 700])
    noisy = scheduler.add_noise(latents, noise, steps)
    target = Ddpm(scheduler).target(latents, noise, steps)
    for b, step in enumerate(steps):
        recovered = scheduler.step(target[b : b + 1], int(step), noisy[b : b + 1], generator=generator)
        assert torch.allclose(recovered.pred_original_sample.clamp(-1, 1), latents[b : b + 1].clamp(-1, 1), atol=1e-3)


def test_an_unknown_prediction_type_is_named() -> None:
    scheduler = DDPMScheduler()
    scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(ModelError, match="prediction_type must be epsilon, v_prediction or sample, found 'flow'"):
        Ddpm(scheduler).target(torch.zeros(1), torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights(kind: str) -> None:
    scheduler = DDPMScheduler(prediction_type=kind)
    steps = torch.arange(0, 1000, 37)
    weights = Ddpm(scheduler).weights(steps, 5.0)
    for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
        alpha = float(scheduler.alphas_cumprod[step])
        snr = alpha / (1 - alpha)
        expected = {"epsilon": min(snr, 5.0) / snr, "v_prediction": min(snr, 5.0) / (snr + 1), "sample": min(snr, 5.0)}[
            kind
        ]
        assert weight == pytest.approx(expected, rel=1e-4)
    assert torch.equal(Ddpm(scheduler).weights(steps, None), torch.ones(len(steps)))


def test_the_prediction_sees_captions_and_time_ids(make_recipe: MakeRecipe) -> None:
    objectives, data = parts(make_recipe())
    batch = batch_of(data, 0, 1)
    latents = encode_pictures(objectives.model.pipeline.vae, batch.pictures_bchw)
    steps = torch.tensor([500, 500])
    plain = objectives.model.predict(batch, latents, steps)
    other = collate([data.train[0], data.train[1]])
    other.captions[0] = "something else entirely"
    other.time_ids_b6[1, 2:4] += 7
    changed = objectives.model.predict(other, latents, steps)
    assert not torch.allclose(plain[0], changed[0], atol=1e-6)
    assert not torch.allclose(plain[1], changed[1], atol=1e-6)


def test_the_residual_is_that_of_the_noised_picture(make_recipe: MakeRecipe) -> None:
    objectives, data = parts(make_recipe())
    batch = batch_of(data, 0)
    zeros = torch.zeros(1, 4, 8, 8)
    chance = NoiseDraw(zeros, torch.ones_like(zeros), torch.tensor([300]))
    latents = encode_pictures(objectives.model.pipeline.vae, batch.pictures_bchw)
    alpha = float(objectives.noising.scheduler.alphas_cumprod[300])
    noisy = alpha**0.5 * latents + (1 - alpha) ** 0.5
    expected = objectives.model.predict(batch, noisy, torch.tensor([300])) - 1.0
    assert torch.allclose(objectives.residual(batch, chance), expected, atol=1e-5)
