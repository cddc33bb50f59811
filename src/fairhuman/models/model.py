"""The protocol of every model that can be trained: a step knows nothing else about it."""

from pathlib import Path
from typing import Protocol

from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from fairhuman.data.samples.batch import Batch


class Model(Protocol):
    """An SDXL pipeline that says what noise it sees."""

    pipeline: StableDiffusionXLPipeline

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the U-Net's prediction [B, C, H, W], float32, for the captions and time ids of `batch`."""
        ...


class TrainableModel(Model, Protocol):
    """One of which some weights are trained."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters to train, float32, always in the same order; a list, to be read many times."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Return copies of the trained tensors by name, for a checkpoint: on the CPU, exact."""
        ...

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put a state back, exactly; names and shapes must be those of this model."""
        ...

    def save(self, folder: Path) -> None:
        """Write the product into `folder`, atomically."""
        ...
