"""Full fine-tuning of the network and, of SDXL, optionally the text encoders."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fairhuman.bases.base import base_of, networks
from fairhuman.data.samples.batch import Batch
from fairhuman.models.model import TrainableModel
from fairhuman.utils.files import write_atomically
from fairhuman.utils.hub import without_bars


class FullModel(TrainableModel):
    """Trains all weights of the network in float32; use autocast for half precision.

    Args:
        pipeline: its network (and text encoders) are trained in place.
        text_encoders: of SDXL: train them too, except the layers after the one whose output SDXL reads.
        gradient_checkpointing: less memory, about a third more time.
    """

    def __init__(self, pipeline: Any, text_encoders: bool = False, gradient_checkpointing: bool = False) -> None:
        super().__init__(pipeline)
        self._base = base_of(pipeline)
        self._train_text = text_encoders
        network = self._base.network
        for part in networks(pipeline):
            part.requires_grad_(False)
        network.float().requires_grad_(True).train()
        if text_encoders:
            for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
                encoder.requires_grad_(True)
                encoder.float().train()
            _freeze_unread_layers(pipeline)
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the network's prediction, float32."""
        return self._base.prediction(batch, noisy_latents_bchw, timesteps_b, self._train_text)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return all weights of the network, then the trained ones of the text encoders."""
        parts = (self._base.part, *self._base.encoders) if self._train_text else (self._base.part,)
        return {
            f"{part}.{name}": parameter
            for part in parts
            for name, parameter in getattr(self.pipeline, part).named_parameters()
            if parameter.requires_grad
        }

    def save(self, folder: Path) -> None:
        """Write the whole pipeline to `folder`, atomically."""
        with without_bars():
            write_atomically(folder, self.pipeline.save_pretrained)


def _freeze_unread_layers(pipeline: Any) -> None:
    """Freeze layers without a gradient: SDXL reads the first encoder's penultimate hidden state."""
    for name, parameter in pipeline.text_encoder.named_parameters():
        last = f"layers.{pipeline.text_encoder.config.num_hidden_layers - 1}."
        if last in name or "final_layer_norm" in name:
            parameter.requires_grad_(False)
