"""The protocol of trainable models, all that a training step knows about them."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from fairhuman.data.samples.batch import Batch


class Model(Protocol):
    """A pipeline of a base with a prediction for noisy latents."""

    pipeline: Any

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the prediction [B, C, H, W], float32, for the captions of `batch`, at noise levels [B] of the base."""
        ...


class TrainableModel(Model, Protocol):
    """A model with trainable weights."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters, float32, always in the same order."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Return exact CPU copies of the trained tensors by name, for a checkpoint."""
        ...

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore a state exactly; names and shapes must match this model."""
        ...

    def save(self, folder: Path) -> None:
        """Write the trained weights to `folder`, atomically."""
        ...
