"""What ControlNet and T2I-adapter share: conditions as one picture of several channels, and a frozen U-Net.

    picture = cat of the conditions' channels, in the order that `conditions.json` beside the weights states
    e       = U-Net(noisy, t, captions, time ids, + residuals(picture))

A dropped or missing condition is a picture of zeros, in training as in sampling.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import ControlNetModel, ModelMixin, StableDiffusionXLPipeline
from torch import Tensor, nn

from fairhuman import __version__
from fairhuman.data.samples.batch import Batch
from fairhuman.data.samples.conditions import CONDITIONS
from fairhuman.errors import ModelError
from fairhuman.models.full import predict_noise
from fairhuman.models.locations import is_hub_id
from fairhuman.models.weights import NamedWeights
from fairhuman.utils.files import write_atomically, write_json

CONDITIONS_FILE = "conditions.json"


class Control(ABC):
    """A network that steers a U-Net by conditions; one for training and for sampling.

    Attributes:
        network: its weights.
        conditions: names, in the order of the channels.
        channels: that the network takes.

    """

    KIND: ClassVar[str]  # in messages
    NETWORK: ClassVar[type[ModelMixin]]
    CHANNELS: ClassVar[str]  # name of that setting of the network

    def __init__(self, network: ModelMixin, conditions: Sequence[str], channels: int) -> None:
        self.network = network
        self.conditions = tuple(conditions)
        self.channels = channels

    @classmethod
    @abstractmethod
    def new(cls, pipeline: StableDiffusionXLPipeline, conditions: Sequence[str], seed: int) -> Self:
        """Return an untrained one that fits the pipeline; what is random in it comes from `seed` alone."""

    @staticmethod
    @abstractmethod
    def check_fits(place: str, config: Mapping[str, Any], pipeline: StableDiffusionXLPipeline) -> None:
        """Check a network's configuration against the pipeline.

        Raises:
            ModelError: it is for another family, another width, or another VAE; says which.

        """

    @classmethod
    def load(cls, place: str, pipeline: StableDiffusionXLPipeline, conditions: Sequence[str] | None) -> Self:
        """Return that of a folder or hub id, in float32; None: of the conditions that its folder states.

        Raises:
            ModelError: nothing there, or it doesn't fit the pipeline or the conditions; says what it is for.

        """
        config = load_control_config(cls, place)
        cls.check_fits(place, config, pipeline)
        channels = int(config.get(cls.CHANNELS, 3))
        names = resolve_conditions(cls.KIND, place, conditions, channels)
        return cls(_weights(cls, place), names, channels)

    @abstractmethod
    def residuals(
        self,
        latents_bchw: Tensor,
        timesteps_b: Tensor,
        given: Mapping[str, Any],
        picture_bchw: Tensor,
        strength: float = 1.0,
    ) -> dict[str, Any]:
        """Return what the U-Net is to add inside, as further arguments of its `forward`, in its type.

        Args:
            latents_bchw: what the U-Net is given, in its own type.
            timesteps_b: likewise.
            given: encoder_hidden_states and added_cond_kwargs of the U-Net.
            picture_bchw: from `picture`.
            strength: factor of all residuals.

        """

    def picture(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """Join conditions [B, C, H, W] in 0..1 to the network's input; grey is spread over three channels.

        Raises:
            ModelError: one that the network follows isn't there; names it.

        """
        missing = [name for name in self.conditions if name not in conditions]
        if missing:
            raise ModelError(f"{self.KIND}: follows {', '.join(self.conditions)}, the batch has no {missing[0]}")
        joined_bchw = torch.cat([conditions[name] for name in self.conditions], dim=1)
        return joined_bchw.expand(-1, self.channels, -1, -1) if joined_bchw.shape[1] == 1 else joined_bchw


class ControlModel(NamedWeights):
    """The base is frozen, a ControlNet or T2I-adapter beside it is trained in float32.

    Args:
        pipeline: stays as it is, in its precision.
        control: is trained in place.
        gradient_checkpointing: less memory, about a third more time.

    """

    def __init__(
        self, pipeline: StableDiffusionXLPipeline, control: Control, gradient_checkpointing: bool = False
    ) -> None:
        self.pipeline = pipeline
        self.control = control
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        control.network.to(pipeline.unet.device).float().requires_grad_(True).train()
        if gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
            if isinstance(control.network, ControlNetModel):  # an adapter's activations are few
                control.network.enable_gradient_checkpointing()

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the steered U-Net's prediction, float32."""
        picture_bchw = self.control.picture(batch.conditions)

        def residuals(latents_bchw: Tensor, given: Mapping[str, Any]) -> dict[str, Any]:
            return self.control.residuals(latents_bchw, timesteps_b, given, picture_bchw)

        return predict_noise(self.pipeline, batch, noisy_latents_bchw, timesteps_b, residuals=residuals)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return all weights of the network."""
        return dict(self.control.network.named_parameters())

    def save(self, folder: Path) -> None:
        """Write a folder that diffusers' `from_pretrained` reads, with `conditions.json` beside the weights."""

        def write(partial: Path) -> None:
            self.control.network.save_pretrained(partial)
            stated = {name: CONDITIONS[name] for name in self.control.conditions}
            write_json(partial / CONDITIONS_FILE, {"conditions": stated, "null": "zeros", "fairhuman": __version__})

        write_atomically(folder, write)


def channel_count(conditions: Sequence[str]) -> int:
    """Return the channels of conditions together."""
    return sum(CONDITIONS[name] for name in conditions)


def stated_conditions(kind: str, place: str) -> tuple[str, ...] | None:
    """Return what a folder says that it follows; None where it doesn't, or isn't one.

    Raises:
        ModelError: its `conditions.json` isn't one.

    """
    file = Path(place) / CONDITIONS_FILE
    if not file.is_file():
        return None
    try:
        stated = tuple(json.loads(file.read_text(encoding="utf-8"))["conditions"])
        if not stated or not set(stated) <= CONDITIONS.keys():
            raise ValueError(f"conditions {stated}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: expected the conditions of a {kind}, found {error}") from error
    return stated


def resolve_conditions(kind: str, place: str, conditions: Sequence[str] | None, channels: int) -> tuple[str, ...]:
    """Return which conditions a checkpoint of so many input channels follows.

    Where its folder says so, that; a checkpoint from elsewhere doesn't, so it must be said in `conditions`.

    Raises:
        ModelError: it isn't known, or contradicts what is asked for, or the channels; names both.

    """
    stated = stated_conditions(kind, place)
    asked = tuple(conditions) if conditions is not None else stated
    if asked is None:
        raise ModelError(
            f"{kind} {place!r}: doesn't say which conditions it follows: give one of {', '.join(CONDITIONS)}"
        )
    if stated is not None and asked != stated:
        raise ModelError(f"{kind} {place!r}: follows {', '.join(stated)}, not {', '.join(asked)}")
    if channel_count(asked) != channels and (asked, channels) != (("depth",), 3):
        raise ModelError(
            f"{kind} {place!r}: takes {channels} channels, {' and '.join(asked)} have {channels_of(asked)}"
        )
    return asked


def load_control_config(kind: type[Control], place: str) -> dict[str, Any]:
    """Return the configuration of a checkpoint without its weights.

    Raises:
        ModelError: nothing there, or another class.

    """
    expected = kind.NETWORK.__name__
    if not Path(place).is_dir() and not is_hub_id(place):
        raise ModelError(f"{kind.KIND} {place!r}: expected a folder or hub id of a {expected}, found no such folder")
    try:
        config = dict(kind.NETWORK.load_config(place))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{kind.KIND} {place!r}: expected a folder or hub id of a {expected}: {reason}") from error
    found = config.get("_class_name")
    if found != expected:
        raise ModelError(f"{kind.KIND} {place!r}: expected a {expected}, found {found}")
    return config


def _weights(kind: type[Control], place: str) -> ModelMixin:
    """Load a network, float32; of a pickle nobody knows what it does, so only safetensors are read.

    Raises:
        ModelError: the weights are missing, damaged, or not those of the configuration.

    """
    try:
        return kind.NETWORK.from_pretrained(place, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{kind.KIND} {place!r}: its weights can't be loaded: {reason}") from error
