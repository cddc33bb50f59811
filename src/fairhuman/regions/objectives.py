"""The objectives: one residual, K masks, K losses.

With e the residual of the diffusion model, v the weight of a sample (min-SNR, or 1), m_k the mask of objective k on the
latent grid (0..1; all ones for the global objective) and C channels, over all samples of an optimiser step:

    area:   L_k = c_k Σ v m_k e² / (C Σ m_k)              mean over the region
    image:  L_k = c_k Σ v m_k e² / (values of the step)   the paper's form: small regions give small losses

Both sums run over every micro-batch and process, so how a step is divided changes nothing. An objective with Σ m_k = 0
is absent: it has no loss, it isn't averaged in as zero.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fairhuman.recipe import Settings
from fairhuman.regions.masks import MaskSettings, to_latent_grid

GLOBAL = "global"
Normalize = Literal["area", "image"]


class RegionSettings(Settings):
    """Which objectives there are beside the global one, and how their losses are measured."""

    names: tuple[str, ...] = Field(default=("face", "hand"), description="face, hand, or any annotated region")
    normalize: Normalize = "area"
    scale: Mapping[str, float] = Field(default_factory=dict, description="factor c of an objective's loss")
    mask: MaskSettings = MaskSettings()

    @field_validator("names")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if GLOBAL in names or len(set(names)) < len(names) or not all(names):
            raise ValueError(f"must be distinct, not empty and not {GLOBAL!r}")
        return names

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: Mapping[str, float]) -> Mapping[str, float]:
        if not all(value > 0.0 for value in scale.values()):
            raise ValueError("factors must be > 0")
        return scale

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives, the global one first."""
        return (GLOBAL, *self.names)

    def factors(self) -> Tensor:
        """Return c [K].

        Raises:
            ValueError: `scale` names an objective that there isn't.
        """
        unknown = sorted(set(self.scale) - set(self.objectives))
        if unknown:
            raise ValueError(f"regions.scale names {unknown[0]!r}, the objectives are {', '.join(self.objectives)}")
        return torch.tensor([self.scale.get(name, 1.0) for name in self.objectives])


def objective_masks(masks_brhw: Tensor, factor: int) -> Tensor:
    """Return m [B, K, h, w] on the latent grid: ones for the global objective, then the regions by area."""
    latent_brhw = to_latent_grid(masks_brhw, factor)
    ones = latent_brhw.new_ones(latent_brhw.shape[0], 1, *latent_brhw.shape[2:])
    return torch.cat([ones, latent_brhw], dim=1)


def denominators(areas_k: Tensor, channels: int, normalize: Normalize) -> Tensor:
    """Return what each objective's sum is divided by, from Σ m [K] over all samples of an optimiser step."""
    return channels * (areas_k if normalize == "area" else areas_k[:1].expand_as(areas_k))


def masked_losses(
    residual_bchw: Tensor, weights_b: Tensor, masks_bkhw: Tensor, denominators_k: Tensor, factors_k: Tensor
) -> list[Tensor | None]:
    """Return the share of a micro-batch in each L_k; None where the objective isn't in it.

    Args:
        residual_bchw: e, prediction minus target.
        weights_b: v.
        masks_bkhw: m.
        denominators_k: see `denominators`.
        factors_k: c.
    """
    squares_bhw = residual_bchw.square().sum(dim=1) * weights_b[:, None, None]
    sums_k = torch.einsum("bhw,bkhw->k", squares_bhw, masks_bkhw)
    losses_k = sums_k * (factors_k / denominators_k.clamp_min(torch.finfo(torch.float32).tiny))
    here = (masks_bkhw.sum(dim=(0, 2, 3)) > 0).tolist()
    return [losses_k[k] if present else None for k, present in enumerate(here)]


def coverage(present_br: Tensor, known_br: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return shares of samples, `coverage/NAME` with the region in view and `known/NAME` annotated at all."""
    values = {}
    for r, name in enumerate(names):
        values[f"coverage/{name}"] = float(present_br[:, r].float().mean())
        values[f"known/{name}"] = float(known_br[:, r].float().mean())
    return values
