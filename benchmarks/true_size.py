"""Random weights in the shapes of published models, without a download."""

from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin
from torch import nn

from fairhuman.bases.base import networks, quiet
from fairhuman.bases.latents import cast
from fairhuman.models.architecture import build_meta
from fairhuman.models.checkpoint_file import Architecture
from fairhuman.utils.files import write_atomically


def with_weights(part: Any, device: torch.device | str, dtype: torch.dtype, seed: int = 0) -> Any:
    """Build a network as its class does, with random weights of `dtype` from `seed`; `part` is the same on `meta`."""
    before, on = torch.get_default_dtype(), torch.device(device)
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []), on:
            torch.manual_seed(seed)
            kind = type(part)
            built: nn.Module = kind.from_config(part.config) if isinstance(part, ConfigMixin) else kind(part.config)
    finally:
        torch.set_default_dtype(before)
    cast(built, dtype)
    return built.eval()


def save_sdxl(
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    architecture: Architecture = "sdxl",
) -> Path:
    """Write a pipeline's folder with random weights, of SDXL 7 GB, network by network; the same again goes on.

    The peak of memory is that of the U-Net. CLIP's own tokenizers are in it.
    """
    if (folder / "model_index.json").is_file():
        return folder
    shape = build_meta(architecture)
    for name, part in shape.components.items():
        if part is not None and not (folder / name).exists():
            found = with_weights(part, device, dtype) if part in networks(shape) else part
            with quiet():
                write_atomically(folder / name, found.save_pretrained)
            del found
    shape.save_config(folder)
    return folder
