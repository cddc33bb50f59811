"""How latents are noised and what is predicted: DDPM (SDXL), or flow matching (all other bases).

A noise level is what the network is conditioned on: an int64 timestep for DDPM, σ in [0, 1] for flow matching, where
1 is pure noise. Levels of a batch have the shape [B].
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fairhuman.bases.settings import TimeSettings
from fairhuman.errors import ModelError, RecipeError

LEAST = 1e-6  # of σ and 1 - σ in the log SNR
LEAST_ALPHA = 2.0**-24


class Noising(ABC):
    """The noise process of a base. A training step calls all methods but `at`, which is the validation's.

    Levels come from `draw`, or by rank from `quantile` where `noise.density` is set.
    """

    @abstractmethod
    def draw(self, generator: torch.Generator, tokens: int) -> Tensor:
        """Return a random level of one sample, a scalar on the CPU; called after the sample's noise is drawn.

        `tokens` is the number of picture tokens, on which a shift may depend.
        """

    @abstractmethod
    def quantile(self, rank: float, tokens: int) -> Tensor:
        """Return the level that a share `rank` in [0, 1) of all draws is below, a scalar on the CPU.

        Of a uniform rank it has the distribution of `draw`.
        """

    @abstractmethod
    def at(self, share: float) -> Tensor:
        """Return the level at a share (0 to 1) of the schedule, a scalar on the CPU: the validation's fixed levels."""

    @abstractmethod
    def bands(self, levels_b: Tensor, count: int, tokens: int) -> Tensor:
        """Return the band [B], int64 in 0..count - 1, of each level; 0 has the least noise.

        Each holds 1/count of all draws: the band of `quantile(rank, tokens)` is ⌊rank · count⌋.
        """

    @abstractmethod
    def add(self, latents: Tensor, noise: Tensor, levels_b: Tensor) -> Tensor:
        """Return noisy latents [B, C, h, w]."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, levels_b: Tensor) -> Tensor:
        """Return what the network has to predict, [B, C, h, w]."""

    @abstractmethod
    def log_snr(self, levels_b: Tensor) -> Tensor:
        """Return the finite log SNR [B]: mode `output` learns by it how much of a gradient arrives."""

    @abstractmethod
    def weights(self, levels_b: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weights [B] of the squared error of `target`; ones if `gamma` is None."""


@dataclass(frozen=True)
class Ddpm(Noising):
    """x_t = √ᾱ x + √(1 - ᾱ) ε; the network predicts noise, velocity or the picture, as its scheduler states."""

    scheduler: DDPMScheduler

    @property
    def steps(self) -> int:
        """The number of timesteps."""
        return int(self.scheduler.config.num_train_timesteps)

    def draw(self, generator: torch.Generator, tokens: int) -> Tensor:  # noqa: ARG002 - uniform at every size
        """Return a uniformly random timestep."""
        return torch.randint(self.steps, (), generator=generator)

    def quantile(self, rank: float, tokens: int) -> Tensor:  # noqa: ARG002 - uniform at every size
        """Return the timestep ⌊rank · T⌋."""
        return torch.tensor(min(int(rank * self.steps), self.steps - 1))

    def at(self, share: float) -> Tensor:
        """Return the timestep ⌊share · T⌋."""
        return torch.tensor(int(share * self.steps))

    def bands(self, levels_b: Tensor, count: int, tokens: int) -> Tensor:  # noqa: ARG002 - uniform at every size
        """Return ⌊t · count / T⌋."""
        return levels_b * count // self.steps

    def add(self, latents: Tensor, noise: Tensor, levels_b: Tensor) -> Tensor:
        """Return √ᾱ x + √(1 - ᾱ) ε."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, levels_b)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, levels_b: Tensor) -> Tensor:
        """Return the target for the scheduler's `prediction_type`: noise, velocity or the latents."""
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            velocity: Tensor = self.scheduler.get_velocity(latents, noise, levels_b)
            return velocity
        if kind == "sample":
            return latents
        raise ModelError(f"scheduler: prediction_type must be epsilon, v_prediction or sample, found {kind!r}")

    def snr(self, levels_b: Tensor) -> Tensor:
        """Return SNR = ᾱ / (1 - ᾱ) [B], more than 0.

        A schedule with zero terminal SNR has ᾱ = 0 at its last timestep; 2^-24 there, as in diffusers' samplers, keeps
        weights and log SNR finite. No other timestep of SDXL's schedule is below it.
        """
        alphas_b: Tensor = self.scheduler.alphas_cumprod.to(levels_b.device)[levels_b].clamp(min=LEAST_ALPHA)
        return alphas_b / (1.0 - alphas_b)

    def log_snr(self, levels_b: Tensor) -> Tensor:
        """Return log(ᾱ / (1 - ᾱ))."""
        return self.snr(levels_b).log()

    def weights(self, levels_b: Tensor, gamma: float | None) -> Tensor:
        """Return the min-SNR weights [B]; ones if `gamma` is None.

        With s = min(SNR, γ): s/SNR for epsilon, s/(SNR+1) for velocity, s for sample prediction.
        Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy, ICCV 2023.
        """
        if gamma is None:
            return torch.ones(levels_b.shape, device=levels_b.device)
        snr_b = self.snr(levels_b)
        clipped_b = snr_b.clamp(max=gamma)
        weights: dict[str, Tensor] = {
            "epsilon": clipped_b / snr_b,
            "v_prediction": clipped_b / (snr_b + 1.0),
            "sample": clipped_b,
        }
        return weights[self.scheduler.config.prediction_type]


@dataclass(frozen=True)
class Flow(Noising):
    """x_σ = (1 - σ) x + σ ε; the network predicts ε - x.

    σ = s u / (1 + (s - 1) u) with u = sigmoid(mean + std N(0, 1)) and a shift s: a number, or a function of the number
    of tokens n: exp of the line through `(tokens, exponent)` and `(tokens, exponent)`.

    Source: diffusers, `examples/dreambooth/train_dreambooth_lora_sd3.py` and `train_dreambooth_lora_flux.py`; the line
    is `calculate_shift` of `pipelines/flux/pipeline_flux.py`.
    """

    mean: float = 0.0
    std: float = 1.0
    shift: float | tuple[tuple[int, float], tuple[int, float]] = 1.0

    @classmethod
    def of(cls, schedule: Mapping[str, Any], times: TimeSettings | None = None) -> "Flow":
        """Return the process of a FlowMatchEulerDiscreteScheduler's configuration.

        Raises:
            ModelError: the scheduler isn't a flow-matching one.
            RecipeError: shift `resolution`, but the scheduler's doesn't depend on it.
        """
        if "shift" not in schedule:
            raise ModelError(
                f"scheduler: expected a FlowMatchEulerDiscreteScheduler, found {schedule.get('_class_name')}"
            )
        times, dynamic = times or TimeSettings(), bool(schedule.get("use_dynamic_shifting"))
        if times.shift == "resolution":
            if not dynamic:
                raise RecipeError(
                    "noise.times.shift=resolution: the model's scheduler has one shift for all resolutions; take auto"
                )
            line = tuple(
                (int(schedule[f"{end}_image_seq_len"]), float(schedule[f"{end}_shift"])) for end in ("base", "max")
            )
            return cls(times.mean, times.std, (line[0], line[1]))
        own = 1.0 if dynamic else float(schedule["shift"])
        return cls(times.mean, times.std, own if times.shift == "auto" else times.shift)

    def draw(self, generator: torch.Generator, tokens: int) -> Tensor:
        """Return a random σ in (0, 1), float32."""
        return self._level(torch.randn((), generator=generator), tokens)

    def quantile(self, rank: float, tokens: int) -> Tensor:
        """Return the σ of the normal quantile of `rank`, float32."""
        return self._level(torch.special.ndtri(torch.tensor(rank, dtype=torch.float64)).float(), tokens)

    def _level(self, normal: Tensor, tokens: int) -> Tensor:
        u = torch.sigmoid(self.mean + self.std * normal)
        s = self.shift_at(tokens)
        return s * u / (1 + (s - 1) * u)

    def shift_at(self, tokens: int) -> float:
        """Return the shift s for a number of tokens."""
        if not isinstance(self.shift, tuple):
            return self.shift
        (few, low), (many, high) = self.shift
        return math.exp(low + (high - low) * (tokens - few) / (many - few))

    def at(self, share: float) -> Tensor:
        """Return σ = share, whatever the shift: so runs with other shifts are compared at equal noise."""
        return torch.tensor(float(share))

    def bands(self, levels_b: Tensor, count: int, tokens: int) -> Tensor:
        """Return how many of the quantiles 1/count, 2/count, ... of σ each level has reached."""
        edges = torch.stack([self.quantile(band / count, tokens) for band in range(1, count)])
        return torch.bucketize(levels_b, edges.to(levels_b), right=True)

    def add(self, latents: Tensor, noise: Tensor, levels_b: Tensor) -> Tensor:
        """Return (1 - σ) x + σ ε."""
        level_b111 = levels_b[:, None, None, None]
        return (1.0 - level_b111) * latents + level_b111 * noise

    def target(self, latents: Tensor, noise: Tensor, levels_b: Tensor) -> Tensor:  # noqa: ARG002 - at every level
        """Return ε - x."""
        return noise - latents

    def log_snr(self, levels_b: Tensor) -> Tensor:
        """Return 2 log((1 - σ) / σ), σ within [1e-6, 1 - 1e-6]."""
        sigma_b = levels_b.clamp(LEAST, 1.0 - LEAST)
        return 2.0 * (torch.log1p(-sigma_b) - sigma_b.log())

    def weights(self, levels_b: Tensor, gamma: float | None) -> Tensor:
        """Return σ² min(SNR, γ): min-SNR weighs the error of x, which is σ times the velocity's."""
        if gamma is None:
            return torch.ones(levels_b.shape, device=levels_b.device)
        return self.log_snr(levels_b).exp().clamp(max=gamma) * levels_b.square()
