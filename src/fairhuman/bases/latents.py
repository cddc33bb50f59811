"""Latents of an AutoencoderKL, which most bases have: pictures to latents and back, in float32."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from fairhuman.errors import ModelError

VAE_OVERFLOWS = "its weights overflow; use madebyollin/sdxl-vae-fp16-fix, or a VAE saved in float32"


def vae_factor(vae: AutoencoderKL) -> int:
    """Return the pixels per latent cell and side: 8 for SDXL, 4 for the small SDXL."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def encode_pictures(vae: AutoencoderKL, pictures_bchw: Tensor, noise_bchw: Tensor | None = None) -> Tensor:
    """Encode pictures in [-1, 1] to latents: mean + std · noise, from `latent_moments`.

    `noise_bchw` is standard normal in the latents' shape; None: return the mean.

    Raises:
        ModelError: as in `latent_moments`.
    """
    mean_bchw, std_bchw = latent_moments(vae, pictures_bchw)
    return mean_bchw if noise_bchw is None else mean_bchw + std_bchw * noise_bchw.float()


def latent_moments(vae: AutoencoderKL, pictures_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std of latents for pictures in [-1, 1], shifted and scaled, float32.

    Raises:
        ModelError: as in `posterior_moments`.
    """
    mean_bchw, std_bchw = posterior_moments(vae, pictures_bchw, vae_factor(vae))
    shift, scale = _shift_and_scale(vae)
    return (mean_bchw - shift) * scale, std_bchw * scale


def posterior_moments(vae: Any, pictures: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return mean and std of what the VAE encodes pictures in [-1, 1] to, float32.

    The VAE runs (and is left) as `ready` has it.

    Args:
        vae: any with an `encode` to a normal distribution.
        pictures: [B, 3, H, W], or [B, 3, 1, H, W] for a VAE of videos.
        factor: pixels per latent cell and side.

    Raises:
        ModelError: a picture side isn't a multiple of the VAE's factor, or a latent isn't finite.
    """
    if pictures.ndim < 4 or pictures.shape[1] != 3 or any(s % factor for s in pictures.shape[-2:]):
        raise ModelError(
            f"pictures must be [B, 3, H, W] with H and W multiples of the VAE's factor {factor}, "
            f"found {list(pictures.shape)}"
        )
    ready(vae)
    with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
        posterior = vae.encode(pictures.float()).latent_dist
    check_finite(posterior.mean + posterior.std, "the VAE's latents", VAE_OVERFLOWS)
    return posterior.mean, posterior.std


def decode_latents(vae: AutoencoderKL, latents_bchw: Tensor) -> Tensor:
    """Decode latents to pictures [B, 3, H, W] in [-1, 1]; undoes the mean of `latent_moments`.

    Raises:
        ModelError: a decoded value isn't finite.
    """
    shift, scale = _shift_and_scale(vae)
    return decoded(vae, latents_bchw.float() / scale + shift)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Return the VAE's pictures in [-1, 1] of its own latents; undoes the mean of `posterior_moments`.

    The VAE runs (and is left) as `ready` has it.

    Raises:
        ModelError: a decoded value isn't finite.
    """
    ready(vae)
    with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
        pictures: Tensor = vae.decode(latents.float()).sample
    check_finite(pictures, "the VAE's pictures", VAE_OVERFLOWS)
    return pictures.clamp(-1, 1)


def ready(vae: Any) -> None:
    """Have the VAE in float32, and let it take one picture of a batch at a time.

    A float32 batch could need more memory than everything else: 3 GiB for each picture of 1024 x 1024.
    """
    cast(vae, torch.float32)
    vae.enable_slicing()


def check_finite(tensor: Tensor, name: str, advice: str) -> None:
    """Check that all values of `tensor` are finite; the message has `name` and `advice` on what to do.

    Raises:
        ModelError: a value is infinite or NaN.
    """
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ModelError(f"{name}: {bad} of {tensor.numel()} values aren't finite: {advice}")


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast in place if needed, with `nn.Module.to`, as diffusers' own `to` warns about every cast."""
    if any(parameter.dtype != dtype for parameter in module.parameters()):
        nn.Module.to(module, dtype)


def _shift_and_scale(vae: AutoencoderKL) -> tuple[float, float]:
    return float(vae.config.shift_factor or 0.0), float(vae.config.scaling_factor)
