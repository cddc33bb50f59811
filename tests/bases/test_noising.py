"""Noise levels, noise and targets of flow-matching bases, against diffusers' schedulers and the definitions."""

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_density_for_timestep_sampling

from fairhuman.bases.flux2 import Flux2Klein
from fairhuman.bases.noising import Ddpm, Flow, Noising
from fairhuman.bases.sdxl import SDXL
from fairhuman.bases.settings import TimeSettings
from fairhuman.errors import ModelError, RecipeError

LEVELS = torch.tensor([0.02, 0.3, 0.5, 0.8, 0.99], dtype=torch.float64)


def schedule(**values: Any) -> dict[str, Any]:
    return dict(FlowMatchEulerDiscreteScheduler(**values).config)


def drawn(noising: Noising, count: int, tokens: int = 1024) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([noising.draw(generator, tokens) for _ in range(count)])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 1.4)])
def test_times_are_logit_normal(mean: float, std: float) -> None:
    """u = sigmoid(mean + std n), from the same normals n."""
    found = drawn(Flow.of(schedule(), TimeSettings(mean=mean, std=std)), 4)
    generator = torch.Generator().manual_seed(0)
    normals = torch.stack([torch.randn((), generator=generator) for _ in range(4)])
    assert torch.allclose(found, torch.sigmoid(mean + std * normals))


def test_times_have_the_distribution_of_diffusers() -> None:
    ours = drawn(Flow.of(schedule()), 4000).sort().values
    theirs = compute_density_for_timestep_sampling(
        "logit_normal", 4000, 0.0, 1.0, generator=torch.Generator().manual_seed(1)
    )
    quantiles = torch.linspace(0.05, 0.95, 10)
    assert torch.allclose(ours.quantile(quantiles), theirs.quantile(quantiles), atol=0.03)
    assert float(ours.min()) > 0.0
    assert float(ours.max()) < 1.0


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_a_static_shift_is_the_scheduler_s(shift: float) -> None:
    """The scheduler's σ are the shifted 1, 0.999, ... 0.001."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    noising = Flow.of(dict(scheduler.config))
    assert noising.shift_at(100) == noising.shift_at(10_000) == shift
    plain, shifted = drawn(Flow.of(schedule()), 50).double(), drawn(noising, 50).double()
    sigmas = scheduler.sigmas.double().flip(0)
    places = plain * 1000
    low = places.floor().long()
    expected = torch.lerp(sigmas[low - 1], sigmas[low], places - low)  # between neighbours of the table
    assert torch.allclose(shifted, expected, atol=2e-5)


def test_a_dynamic_shift_counts_only_if_asked_for() -> None:
    """As in diffusers' scripts; `resolution` is sampling's: exp of μ, for the number of tokens."""
    values = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 0.9}
    config = schedule(**values, max_image_seq_len=8192)
    assert Flow.of(config).shift_at(4096) == 1.0
    resolution = Flow.of(config, TimeSettings(shift="resolution"))
    for tokens in (256, 1024, 4096):
        mu = calculate_shift(tokens, 256, 8192, 0.5, 0.9)
        assert resolution.shift_at(tokens) == pytest.approx(math.exp(mu))
        u = drawn(Flow.of(config), 1, tokens).item()
        expected = FlowMatchEulerDiscreteScheduler(**values).time_shift(mu, 1.0, u)
        assert drawn(resolution, 1, tokens).item() == pytest.approx(expected, rel=1e-5)


def test_a_shift_that_is_set_replaces_the_model_s() -> None:
    assert Flow.of(schedule(shift=6.0), TimeSettings(shift=2.0)).shift_at(100) == 2.0
    assert Flow.of(schedule(use_dynamic_shifting=True), TimeSettings(shift=2.2)).shift_at(100) == 2.2


def test_noise_and_target_are_the_ends_of_a_line() -> None:
    """From the noisy latents and the target both ends come back; the scheduler's noise is the same."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    flow = Flow()
    noisy, target = flow.add(latents, noise, LEVELS), flow.target(latents, noise, LEVELS)
    sigma = LEVELS[:, None, None, None]
    assert torch.allclose(noisy - sigma * target, latents)
    assert torch.allclose(noisy + (1 - sigma) * target, noise)
    scheduler = FlowMatchEulerDiscreteScheduler()
    steps = scheduler.timesteps[[100, 500, 900]]
    theirs = scheduler.scale_noise(latents[:3].float(), steps, noise[:3].float())
    assert torch.allclose(flow.add(latents[:3].float(), noise[:3].float(), steps / 1000), theirs, atol=1e-6)


def test_log_snr_is_that_of_signal_and_noise() -> None:
    expected = [2 * math.log((1 - sigma) / sigma) for sigma in LEVELS.tolist()]
    assert Flow().log_snr(LEVELS).tolist() == pytest.approx(expected)
    assert bool(Flow().log_snr(torch.tensor([0.0, 1.0])).isfinite().all())


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weighs_the_error_of_the_picture(gamma: float) -> None:
    """A velocity that is off by e puts the picture off by σ e: weight · e² = min(SNR, γ) (σ e)²."""
    generator = torch.Generator().manual_seed(0)
    latents, noise, off = torch.randn(3, 5, 2, 3, 3, generator=generator, dtype=torch.float64)
    flow, sigma = Flow(), LEVELS[:, None, None, None]
    noisy, velocity = flow.add(latents, noise, LEVELS), flow.target(latents, noise, LEVELS) + off
    picture_error = (noisy - sigma * velocity - latents).square().flatten(1).sum(dim=1)
    snr = ((1 - LEVELS) / LEVELS).square()
    weights = flow.weights(LEVELS, gamma)
    assert torch.allclose(weights * off.square().flatten(1).sum(dim=1), snr.clamp(max=gamma) * picture_error)
    assert torch.equal(flow.weights(LEVELS, None), torch.ones(5))


def test_validation_levels_are_the_same_whatever_the_shift() -> None:
    shifted = Flow.of(schedule(shift=3.0))
    assert [shifted.at(share).item() for share in (0.0, 0.25, 0.5)] == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0, "resolution"])
def test_bands_hold_equal_shares_of_the_draws(shift: float | str) -> None:
    """At any number of tokens; an edge belongs to the upper band."""
    noising = Flow.of(schedule(use_dynamic_shifting=True), TimeSettings(shift=shift, mean=-0.5))
    for tokens in (256, 4096):
        shares = noising.bands(drawn(noising, 1000, tokens), 3, tokens).bincount(minlength=3) / 1000
        assert torch.allclose(shares, torch.full((3,), 1 / 3), atol=0.05)
        levels = torch.stack([torch.tensor(0.0), noising.quantile(0.25, tokens), torch.tensor(1.0)])
        assert noising.bands(levels, 4, tokens).tolist() == [0, 1, 3]


def test_settings_without_sense_for_a_base_are_errors() -> None:
    with pytest.raises(RecipeError, match=r"noise\.times\.shift=resolution: the model's scheduler has one shift"):
        Flow.of(schedule(shift=3.0), TimeSettings(shift="resolution"))
    with pytest.raises(ModelError, match="expected a FlowMatchEulerDiscreteScheduler, found DDPMScheduler"):
        Flow.of({"_class_name": "DDPMScheduler"})
    with pytest.raises(RecipeError, match=r"noise\.times is for flow-matching bases"):
        SDXL(None).noising(TimeSettings(mean=1.0))
    with pytest.raises(RecipeError, match=r"FLUX\.2 klein samples with a shift that depends on the number of steps"):
        Flux2Klein(None).noising(TimeSettings(shift="resolution"))


def test_ddpm_s_levels_are_timesteps() -> None:
    noising = Ddpm(DDPMScheduler())
    assert noising.at(0.5).item() == 500
    levels = drawn(noising, 20)
    assert levels.dtype == torch.int64
    assert 0 <= int(levels.min()) <= int(levels.max()) < 1000
    assert noising.bands(torch.tensor([0, 333, 334, 666, 667, 999]), 3, 1024).tolist() == [0, 0, 1, 1, 2, 2]
