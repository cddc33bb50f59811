"""Load a trained LoRA into a pipeline for sampling."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairhuman.bases.base import Base, base_of, quiet
from fairhuman.bases.sdxl import SDXL
from fairhuman.errors import ModelError
from fairhuman.models.frozen_linear import has_frozen_layers
from fairhuman.models.locations import check_lora_weight, find_lora
from fairhuman.models.lora import shape_mismatches
from fairhuman.models.lora_file import loadable, read_lora, to_peft
from fairhuman.models.mole import is_mole
from fairhuman.models.weights import check_finite

_ADAPTER = "fairhuman"


@dataclass(frozen=True, slots=True)
class Lora:
    """A loaded LoRA: its file and weight."""

    path: Path
    weight: float


def load_lora(pipeline: Any, path: Path, weight: float = 1.0, fuse: bool | None = None) -> Lora:
    """Load a LoRA (a file, or a folder with `pytorch_lora_weights.safetensors`) into the pipeline.

    With `fuse`, W is replaced by W + weight (alpha / rank) B A, which needs no more memory or time than the base.
    Otherwise the updates run beside W, and their weight can be changed. None: fused if W is in float32: in half
    precision the sum loses a part of the update (of one of 1 % of W about 2 % in fp16 and 17 % in bf16), and there is
    no sum with quantised or offloaded weights.

    Raises:
        RecipeError: `weight` isn't finite.
        ModelError: there is no such file, it doesn't fit the pipeline, a weight in it isn't finite, or it is to be
            fused into a quantised or an offloaded network.
    """
    check_lora_weight(weight)
    file = find_lora(path)
    base = base_of(pipeline)
    frozen = has_frozen_layers(base.network)
    fuse = base.dtype == torch.float32 and not frozen if fuse is None else fuse
    if fuse and frozen:
        raise ModelError(
            f"LoRA {str(file)!r}: can't be fused into a quantised network or an offloaded one, it runs beside it"
        )
    if is_mole(file):
        raise ModelError(f"LoRA {str(file)!r}: is a MoLE, whose gates can't be fused; use --mole or load_mole")
    try:
        source: Path | dict[str, Tensor] = file.parent
        named = {"weight_name": file.name}
        if isinstance(base, SDXL):
            source, named = to_peft(read_lora(file, pipeline)), {}
        else:  # diffusers converts the names of other trainers
            _check_fits(pipeline.lora_state_dict(source, **named), base, file)
        with quiet():
            pipeline.load_lora_weights(source, adapter_name=_ADAPTER, **named)
    except ModelError:
        raise
    except Exception as error:  # a file may hold anything, and the libraries check little of it
        reason = " ".join(str(error).split())[:400]
        raise ModelError(
            f"LoRA {str(file)!r}: expected one for this {base.called}, loading failed: {reason}"
        ) from error
    if not any(_ADAPTER in names for names in pipeline.get_list_adapters().values()):
        raise ModelError(f"LoRA {str(file)!r}: expected weights for the {base.called}, found none")
    if fuse:
        # FLUX.1's own default leaves out the text encoder
        pipeline.fuse_lora(loadable(pipeline), lora_scale=weight, adapter_names=[_ADAPTER])
        pipeline.unload_lora_weights()
    else:
        pipeline.set_adapters([_ADAPTER], [weight])
    return Lora(file, weight)


def _check_fits(found: Any, base: Base, file: Path) -> None:
    """Check what diffusers reads of a LoRA file against the base's network.

    Raises:
        ModelError: a weight isn't finite, or tensors don't fit.
    """
    state = found[0] if isinstance(found, tuple) else found
    check_finite(state, f"LoRA {str(file)!r}")
    wrong = shape_mismatches(base.network, state, base.part)
    if wrong:
        raise ModelError(
            f"LoRA {str(file)!r}: expected one for this {base.called}, but {len(wrong)} of its {len(state)} "
            f"tensors don't fit: {'; '.join(wrong[:2])}"
        )
