"""Base of ControlNet and T2I-adapter: conditions as one multi-channel picture, and a frozen U-Net.

    picture = cat of the conditions' channels, in the order of `conditions.json` beside the weights
    e       = U-Net(noisy, t, captions, time ids, + residuals(picture))

A dropped or missing condition is all zeros, in training and sampling alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import ControlNetModel, ModelMixin, StableDiffusionXLPipeline
from torch import Tensor, nn

from fairhuman import __version__
from fairhuman.bases.base import base_of
from fairhuman.data.samples.batch import Batch
from fairhuman.errors import ModelError
from fairhuman.models.locations import is_hub_id
from fairhuman.models.model import TrainableModel
from fairhuman.record import CONDITIONS
from fairhuman.utils.files import write_atomically, write_json
from fairhuman.utils.hub import failure
from fairhuman.utils.parse import parse_json

CONDITIONS_FILE = "conditions.json"


class Control(ABC):
    """A network that controls a U-Net by conditions, used for training and for sampling.

    Attributes:
        network: the diffusers network.
        conditions: their names, in the order of the channels.
        channels: number of input channels of the network.
    """

    KIND: ClassVar[str]  # name in messages
    NETWORK: ClassVar[type[ModelMixin]]
    CHANNELS: ClassVar[str]  # the network's setting for its input channels

    def __init__(self, network: ModelMixin, conditions: Sequence[str], channels: int) -> None:
        self.network = network
        self.conditions = tuple(conditions)
        self.channels = channels

    @classmethod
    @abstractmethod
    def new(cls, pipeline: StableDiffusionXLPipeline, conditions: Sequence[str], seed: int) -> Self:
        """Return an untrained control for the pipeline; its random weights depend on `seed` alone."""

    @staticmethod
    @abstractmethod
    def check_fits(place: str, config: Mapping[str, Any], pipeline: StableDiffusionXLPipeline) -> None:
        """Check a network's configuration against the pipeline.

        Raises:
            ModelError: it is for another model family, width or VAE; says which.
        """

    @classmethod
    def load(cls, place: str, pipeline: StableDiffusionXLPipeline, conditions: Sequence[str] | None) -> Self:
        """Load a control from a folder or hub id, in float32; `conditions` None: those stated in its folder.

        Raises:
            ModelError: nothing found, or it doesn't fit the pipeline or the conditions; says what it is for.
        """
        config = load_control_config(cls, place)
        cls.check_fits(place, config, pipeline)
        channels = int(config.get(cls.CHANNELS, 3))
        names = resolve_conditions(cls.KIND, place, conditions, channels)
        return cls(_weights(cls, place), names, channels)

    @abstractmethod
    def residuals(
        self, latents_bchw: Tensor, timesteps_b: Tensor, given: Mapping[str, Any], read: Any, strength: float = 1.0
    ) -> dict[str, Any]:
        """Return the residuals for the U-Net as additional arguments of its `forward`, in its dtype.

        Args:
            latents_bchw: the U-Net's input, in its dtype.
            timesteps_b: the U-Net's timesteps.
            given: encoder_hidden_states and added_cond_kwargs of the U-Net.
            read: the result of `read` on the U-Net's device.
            strength: factor of all residuals.
        """

    def read(self, picture_bchw: Tensor, device: torch.device) -> Any:
        """Return what `residuals` needs of the result of `picture`, which is the same in all denoising steps."""
        return picture_bchw.to(device, self.network.dtype)

    def picture(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """Concatenate conditions [B, C, H, W] in 0..1 to the network's input; expand one channel to three if needed.

        Raises:
            ModelError: a condition of the network is missing; names it.
        """
        missing = [name for name in self.conditions if name not in conditions]
        if missing:
            raise ModelError(f"{self.KIND}: needs {', '.join(self.conditions)}, the batch has no {missing[0]}")
        joined_bchw = torch.cat([conditions[name] for name in self.conditions], dim=1)
        return joined_bchw.expand(-1, self.channels, -1, -1) if joined_bchw.shape[1] == 1 else joined_bchw


class ControlModel(TrainableModel):
    """Trains a ControlNet or T2I-adapter in float32, in place; the base is frozen and keeps its own precision."""

    def __init__(
        self, pipeline: StableDiffusionXLPipeline, control: Control, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__(pipeline)
        self.control = control
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        control.network.to(pipeline.unet.device).float().requires_grad_(True).train()
        if gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
            if isinstance(control.network, ControlNetModel):  # an adapter's activations are few
                control.network.enable_gradient_checkpointing()

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the prediction of the U-Net with the control's residuals, float32."""
        picture_bchw = self.control.picture(batch.conditions)

        def residuals(latents_bchw: Tensor, given: Mapping[str, Any]) -> dict[str, Any]:
            read = self.control.read(picture_bchw, latents_bchw.device)
            return self.control.residuals(latents_bchw, timesteps_b, given, read)

        return base_of(self.pipeline).prediction(batch, noisy_latents_bchw, timesteps_b, residuals=residuals)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return all weights of the network."""
        return dict(self.control.network.named_parameters())

    def save(self, folder: Path) -> None:
        """Write a folder for diffusers' `from_pretrained`, with `conditions.json` beside the weights."""

        def write(partial: Path) -> None:
            self.control.network.save_pretrained(partial)
            stated = {name: CONDITIONS[name] for name in self.control.conditions}
            write_json(partial / CONDITIONS_FILE, {"conditions": stated, "null": "zeros", "fairhuman": __version__})

        write_atomically(folder, write)


def channel_count(conditions: Sequence[str]) -> int:
    """Return the total number of channels of conditions."""
    return sum(CONDITIONS[name] for name in conditions)


def stated_conditions(kind: str, place: str) -> tuple[str, ...] | None:
    """Return the conditions stated in a folder's `conditions.json`; None if there is no such file.

    Raises:
        ModelError: the file is invalid.
    """
    file = Path(place) / CONDITIONS_FILE
    if not file.is_file():
        return None
    try:
        stated = tuple(parse_json(file.read_text(encoding="utf-8"))["conditions"])
        if not stated or not set(stated) <= CONDITIONS.keys():
            raise ValueError(f"conditions {stated}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: expected the conditions of a {kind}, found {error}") from error
    return stated


def resolve_conditions(kind: str, place: str, conditions: Sequence[str] | None, channels: int) -> tuple[str, ...]:
    """Return the conditions of a checkpoint with `channels` input channels.

    Checkpoints of this package state their conditions; for others they must be given as `conditions`.

    Raises:
        ModelError: unknown conditions, or given ones that contradict the stated ones or the channels; names both.
    """
    stated = stated_conditions(kind, place)
    chosen = tuple(conditions) if conditions is not None else stated
    if chosen is None:
        raise ModelError(f"{kind} {place!r}: doesn't state its conditions: give one of {', '.join(CONDITIONS)}")
    if stated is not None and chosen != stated:
        raise ModelError(f"{kind} {place!r}: is for {', '.join(stated)}, not {', '.join(chosen)}")
    if channel_count(chosen) != channels and (chosen, channels) != (("depth",), 3):
        raise ModelError(
            f"{kind} {place!r}: has {channels} input channels, {' and '.join(chosen)} need {channel_count(chosen)}"
        )
    return chosen


def load_control_config(kind: type[Control], place: str) -> dict[str, Any]:
    """Return the configuration of a checkpoint without loading its weights.

    Raises:
        ModelError: nothing found, or a network of another class.
    """
    expected = kind.NETWORK.__name__
    if not Path(place).is_dir() and not is_hub_id(place):
        raise ModelError(f"{kind.KIND} {place!r}: expected a folder or hub id of a {expected}, found no such folder")
    try:
        config = dict(kind.NETWORK.load_config(place))
    except (OSError, ValueError) as error:
        reason = failure(error, place)
        raise ModelError(f"{kind.KIND} {place!r}: expected a folder or hub id of a {expected}: {reason}") from error
    found = config.get("_class_name")
    if found != expected:
        raise ModelError(f"{kind.KIND} {place!r}: expected a {expected}, found {found}")
    return config


def _weights(kind: type[Control], place: str) -> ModelMixin:
    """Load a network in float32; only from safetensors, as pickles can run code.

    Raises:
        ModelError: the weights are missing, damaged, or don't match the configuration.
    """
    try:
        return kind.NETWORK.from_pretrained(place, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = failure(error, place).removeprefix("loading failed: ")
        raise ModelError(f"{kind.KIND} {place!r}: its weights can't be loaded: {reason}") from error
