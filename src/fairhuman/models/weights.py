"""Trained weights by name: copy to and from a checkpoint's state."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fairhuman.errors import ModelError
from fairhuman.fairness.distributed import shard_of


class NamedWeights(ABC):
    """Base of models: checkpoint state from the trained weights by name."""

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
        """Restore a state exactly; raises as `load_state` does."""
        load_state(self.trained(), state)


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
