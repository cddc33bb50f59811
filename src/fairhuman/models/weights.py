"""Weights by name: read and checked, copied to and from a checkpoint's state."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fairhuman.errors import ModelError
from fairhuman.fairness.distributed import shard_of


def read_finite(file: Path, name: str) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file.

    Args:
        file: the file.
        name: what it is to the user, for messages, such as `LoRA 'x.safetensors'`.

    Raises:
        ModelError: it can't be read, or a tensor holds NaN or an infinite number; names the tensor.
    """
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{name}: can't be read: {error}") from error
    check_finite(tensors, name)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Check that weights are numbers: one NaN makes every picture and every later weight NaN.

    Raises:
        ModelError: a tensor holds NaN or an infinite number; names the first such tensor after `name`.
    """
    for key, tensor in tensors.items():
        if not tensor.float().isfinite().all():
            raise ModelError(
                f"{name}: every weight must be a finite number, but the tensor {key} holds NaN or infinite ones; the "
                "training that made it failed, or the file is damaged: take another checkpoint or copy"
            )


def copy_state(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return exact copies of the parameters on the CPU; sharded ones are returned as they are."""
    return {
        name: parameter.detach() if isinstance(parameter, DTensor) else parameter.detach().cpu().clone()
        for name, parameter in named.items()
    }


def load_state(named: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
    """Copy `state` into parameters of the same names and shapes; a sharded one gets its shard.

    Raises:
        ModelError: a missing or unknown name, or another shape; names the first.
    """
    for name in sorted(named.keys() ^ state.keys()):
        where = "is missing in the state" if name in named else "is not a parameter of this model"
        raise ModelError(f"trainable state: {name!r} {where} ({len(state)} tensors for {len(named)} parameters)")
    for name, parameter in named.items():
        if state[name].shape != parameter.shape:
            raise ModelError(
                f"trainable state: {name!r} must have shape {list(parameter.shape)}, found {list(state[name].shape)}"
            )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(shard_of(state[name], parameter))
