"""Trained weights by name, into a checkpoint and back; and where a file of weights is."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fairhuman.errors import ModelError
from fairhuman.fairness.distributed import shard_of


class NamedWeights(ABC):
    """What every model does with its trained weights, given them by name."""

    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained weights by name, always in the same order."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the trained weights."""
        return list(self.trained().values())

    def trainable_state(self) -> dict[str, Tensor]:
        """Return copies of the trained weights by name."""
        return copy_state(self.trained())

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put a state back, exactly; errors as of `load_state`."""
        load_state(self.trained(), state)


def copy_state(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copy parameters to the CPU, exactly; a sharded one stays as it is."""
    return {
        name: parameter.detach() if isinstance(parameter, DTensor) else parameter.detach().cpu().clone()
        for name, parameter in named.items()
    }


def load_state(named: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
    """Copy `state` into parameters of the same names and shapes; into a sharded one its share.

    Raises:
        ModelError: names that are missing or too many, or another shape; names the first.
    """
    for name in sorted(named.keys() ^ state.keys()):
        where = "is missing in the state" if name in named else "of the state is no parameter of this model"
        raise ModelError(f"trainable state: {name!r} {where} ({len(state)} tensors for {len(named)} parameters)")
    for name, parameter in named.items():
        if state[name].shape != parameter.shape:
            raise ModelError(
                f"trainable state: {name!r} must have shape {list(parameter.shape)}, found {list(state[name].shape)}"
            )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(shard_of(state[name], parameter))


def find_weights_file(kind: str, place: Path, name: str) -> Path:
    """Return a file of weights, itself or that of this name in a folder, unread.

    Raises:
        ModelError: no such file.

    """
    file = place / name if place.is_dir() else place
    if not file.is_file():
        raise ModelError(f"{kind} {str(place)!r}: expected a file or a folder with {name}, found none")
    return file
