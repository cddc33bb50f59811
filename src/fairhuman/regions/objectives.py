"""The objectives: K losses of one residual under K masks.

With e the residual of the diffusion model, v the weight of a sample (min-SNR, or 1), m_k the mask of objective k on the
latent grid (0..1) and C channels, over all samples of an optimiser step:

    area:   L_k = c_k Σ v m_k e² / (C Σ m_k)    mean over the region
    image:  L_k = c_k Σ v m_k e² / (C N)        the paper's masked error, averaged as its published code does

N is the number of latent cells of all samples. The global mask is 1, but 0 in close-ups, which count for their region
alone; the global loss is the mean over its mask under both.

The global loss may be split into bands of noise: L_b = c Σ_{samples of b} v m_global e² / (C Σ m_global), so that
Σ_b L_b = L_global. Bands are objectives like others, and absent where a step has no sample of theirs.

The region `ignore` counts for no objective: with i its mask, all masks are multiplied by 1 - i, and N is that of the
cells that count, Σ (1 - i).

With `regions.prior`, one more objective holds what lies outside of the regions to the frozen base: with ε_0 the base's
prediction without the LoRA, m_prior = m_global Π (1 - m_k) over the regions k, and ε - ε_0 in place of e,

    L_prior = c Σ v m_prior (ε - ε_0)² / (C Σ m_prior), or with `image` / (C N).

Both sums run over every micro-batch and process, so the result doesn't depend on how a step is divided. An objective
with Σ m_k = 0 is absent: it has no loss and doesn't enter an average as zero.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fairhuman.regions.masks import to_latent_grid
from fairhuman.regions.settings import Normalize


def objective_masks(masks_brhw: Tensor, factor: int, ignored_bhw: Tensor | None = None) -> Tensor:
    """Return m [B, K, h, w] on the latent grid: the global objective, then the regions, all average-pooled.

    Args:
        masks_brhw: the regions at image resolution, in 0..1, already without what is ignored (see `without`).
        factor: downscaling factor of the VAE.
        ignored_bhw: i at image resolution, in 0..1; None: nothing is ignored, so the global mask is all ones.
    """
    latent_brhw = to_latent_grid(masks_brhw, factor)
    ones = latent_brhw.new_ones(latent_brhw.shape[0], 1, *latent_brhw.shape[2:])
    counted_b1hw = ones if ignored_bhw is None else (ones - to_latent_grid(ignored_bhw[:, None], factor)).clamp_min(0.0)
    return torch.cat([counted_b1hw, latent_brhw], dim=1)


def with_prior(masks_bkhw: Tensor) -> Tensor:
    """Return m [B, K + 1, h, w]: the masks, then that of what counts and lies outside of all regions.

    Args:
        masks_bkhw: the global objective first.
    """
    outside_bhw = masks_bkhw[:, 0] * (1.0 - masks_bkhw[:, 1:]).prod(dim=1)
    return torch.cat([masks_bkhw, outside_bhw[:, None]], dim=1)


def split_by_band(masks_bkhw: Tensor, band_b: Tensor, bands: int) -> Tensor:
    """Return m [B, bands + K - 1, h, w]: the global mask as one of each band, zero in samples of others, then the rest.

    Args:
        masks_bkhw: the global objective first.
        band_b: the band of each sample, 0..bands - 1.
        bands: their number.
    """
    chosen_bn = torch.nn.functional.one_hot(band_b, bands).to(masks_bkhw.dtype)
    return torch.cat([chosen_bn[:, :, None, None] * masks_bkhw[:, :1], masks_bkhw[:, 1:]], dim=1)


def denominators(areas_k: Tensor, cells: Tensor, channels: int, normalize: Normalize, bands: int = 1) -> Tensor:
    """Return the denominator [K] of each objective, from sums over all samples of an optimiser step.

    Of `bands` objectives that the global one is split into, it is that of the global one, so their losses add up to it.

    Args:
        areas_k: Σ m.
        cells: N = Σ (1 - i), those of close-ups included, in which the global mask is zero; one element.
        channels: C.
        normalize: see the module.
        bands: number of objectives that the global one is split into.
    """
    whole = areas_k[:bands].sum()
    regions_r = areas_k[bands:] if normalize == "area" else cells.expand_as(areas_k[bands:])
    own_k = torch.cat([whole.expand(bands), regions_r])
    # an absent objective has no loss: 1, as a factor over 0 would be infinite, and its gradient NaN
    return channels * torch.where(own_k > 0.0, own_k, 1.0)


def masked_losses(
    residual_bchw: Tensor, weights_b: Tensor, masks_bkhw: Tensor, denominators_k: Tensor, factors_k: Tensor
) -> list[Tensor | None]:
    """Return a micro-batch's contribution to each L_k; None where the objective is absent from it.

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
    present_k = (masks_bkhw.sum(dim=(0, 2, 3)) > 0).tolist()
    return [losses_k[k] if present else None for k, present in enumerate(present_k)]


def coverage(present_br: Tensor, known_br: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return shares of samples: `coverage/NAME` with the region in view, `known/NAME` with the region annotated."""
    values = {}
    for r, name in enumerate(names):
        values[f"coverage/{name}"] = float(present_br[:, r].float().mean())
        values[f"known/{name}"] = float(known_br[:, r].float().mean())
    return values
