"""Models: all that a training step knows about them."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fairhuman.bases.base import base_of
from fairhuman.data.samples.batch import Batch
from fairhuman.models.weights import copy_state, load_state


class Model:
    """A pipeline of a base with a prediction for noisy latents."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the prediction [B, C, H, W], float32, for the captions of `batch`, at noise levels [B] of the base."""
        return base_of(self.pipeline).prediction(batch, noisy_latents_bchw, timesteps_b)


class TrainableModel(Model, ABC):
    """A model with trainable weights, float32."""

    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained weights by name, always in the same order."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the trained weights."""
        return list(self.trained().values())

    def trainable_state(self) -> dict[str, Tensor]:
        """Return exact CPU copies of the trained weights by name, for a checkpoint; sharded ones as they are."""
        return copy_state(self.trained())

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore a state exactly; raises as `load_state` does."""
        load_state(self.trained(), state)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the trained weights to `folder`, atomically."""
