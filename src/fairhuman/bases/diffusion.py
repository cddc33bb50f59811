"""Prediction targets and sample weights of diffusion models, for each prediction type."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fairhuman.errors import ModelError

LEAST_ALPHA = 2.0**-24


def prediction_target(scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps_b: Tensor) -> Tensor:
    """Return the target for the scheduler's `prediction_type`: noise, velocity or the latents."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps_b)
        return velocity
    if kind == "sample":
        return latents
    raise ModelError(f"scheduler: prediction_type must be epsilon, v_prediction or sample, found {kind!r}")


def signal_to_noise(scheduler: DDPMScheduler, timesteps_b: Tensor) -> Tensor:
    """Return SNR = ᾱ / (1 - ᾱ) [B], more than 0.

    A schedule with zero terminal SNR has ᾱ = 0 at its last timestep; 2^-24 there, as in diffusers' samplers, keeps
    weights and log SNR finite. No other timestep of SDXL's schedule is below it.
    """
    alphas_b: Tensor = scheduler.alphas_cumprod.to(timesteps_b.device)[timesteps_b].clamp(min=LEAST_ALPHA)
    return alphas_b / (1.0 - alphas_b)


def sample_weights(scheduler: DDPMScheduler, timesteps_b: Tensor, gamma: float | None) -> Tensor:
    """Return v [B], the min-SNR weight of each sample; ones if `gamma` is None.

    With s = min(SNR, γ): s/SNR for epsilon, s/(SNR+1) for velocity, s for sample prediction.
    Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy, ICCV 2023.
    """
    if gamma is None:
        return torch.ones(timesteps_b.shape, device=timesteps_b.device)
    snr_b = signal_to_noise(scheduler, timesteps_b)
    clipped_b = snr_b.clamp(max=gamma)
    weights: dict[str, Tensor] = {
        "epsilon": clipped_b / snr_b,
        "v_prediction": clipped_b / (snr_b + 1.0),
        "sample": clipped_b,
    }
    return weights[scheduler.config.prediction_type]
