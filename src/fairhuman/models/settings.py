"""Settings of the base model, LoRA, ControlNet, T2I-adapter and MoLE."""

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from fairhuman.config import Settings

EXPERTS = ("face", "hand")
AUTO = "auto"  # precision of sampling: fp16 on a GPU, fp32 on a CPU
PRECISIONS = ("fp32", "bf16", "fp16")  # the names of fairhuman.models.registry.DTYPES, which needs torch


class Expert(NamedTuple):
    """Rank and alpha of an expert; its output is scaled by alpha / rank."""

    rank: int
    alpha: float


class BaseSettings(Settings):
    """How the base model is read."""

    vae: str | None = Field(
        default=None,
        description="folder, .safetensors file or hub id of a VAE in place of the model's own; None: its own",
    )
    prediction: Literal["auto", "epsilon", "v"] = Field(
        default="auto", description="what the U-Net predicts: noise or velocity; auto: as the model states, else noise"
    )
    zero_snr: bool | Literal["auto"] = Field(
        default="auto",
        description="noise schedule that ends in pure noise (zero terminal SNR), for models trained with one; needs "
        "v-prediction; auto: as the model states, else false",
    )
    quantize: Literal["none", "int8", "fp8", "nf4"] = Field(
        default="none",
        description="bits of the linear layers of frozen network and text encoders: int8 and fp8 8, nf4 4; less "
        "memory, more time",
    )
    offload: bool = Field(
        default=False,
        description="keep these layers' weights in main memory and bring each to the GPU for its product; least "
        "memory, most time",
    )

    @property
    def whole(self) -> "BaseSettings":
        """The same with linear layers as they are: neither quantised nor offloaded, which only frozen ones can be."""
        return self.model_copy(update={"quantize": "none", "offload": False})

    @model_validator(mode="after")
    def _noise_alone_tells_nothing(self) -> "BaseSettings":
        if self.zero_snr is True and self.prediction == "epsilon":
            raise ValueError(
                "base.zero_snr=true needs base.prediction=v: in pure noise, predicted noise says nothing about the "
                f"picture; found {self.prediction}"
            )
        return self


class LoraSettings(Settings):
    """Read by `kind: lora`: low-rank updates of the base's layers."""

    rank: int = Field(default=64, ge=1, description="rank of every update")
    alpha: float | None = Field(default=None, gt=0, description="updates are scaled by alpha / rank; None: by 1")
    targets: Literal["attention", "attention+conv", "attention+ff"] | list[str] = Field(
        default="attention",
        description="'attention': q, k, v, out; 'attention+conv', of SDXL: also residual blocks' convolutions; "
        "'attention+ff', of FLUX.1: also feed-forward layers; or name endings",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="dropout on the input of every update; its draws depend on how a step is divided",
    )
    init: Literal["kaiming", "gaussian"] = Field(
        default="kaiming",
        description="new values of A: kaiming: uniform, as in peft; gaussian: standard deviation 1 / rank; B is 0",
    )
    start: Path | None = Field(
        default=None,
        description="LoRA file to start from, of diffusers' or kohya's kind, or a folder of a run's LoRA; None: new",
    )
    kohya_precision: Literal["fp16", "bf16", "fp32"] = Field(
        default="fp16", description="of the file for kohya, ComfyUI and A1111; the file for diffusers is always fp32"
    )
    title: str | None = Field(
        default=None,
        description="name that the file for kohya, ComfyUI and A1111 states; None: that of the recipe's file",
    )

    @property
    def strength(self) -> float:
        """The factor alpha / rank of the update."""
        return (self.alpha or self.rank) / self.rank


class ControlSettings(Settings):
    """Read by `kind: controlnet` and `kind: t2i_adapter`: a network that follows a pose or a depth map."""

    conditions: tuple[Literal["pose", "depth"], ...] = Field(
        default=("pose",), min_length=1, description="their channels (pose 3, depth 1) are concatenated in this order"
    )
    start: str | None = Field(default=None, description="folder or hub id of a checkpoint to start from; None: new")
    condition_dropout: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="probability that a sample's condition is replaced by zeros, for each condition",
    )

    @field_validator("conditions")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("must name each condition once")
        return names


class Alphas(Settings):
    """alpha of each expert; its output is scaled by alpha / rank."""

    face: float = Field(default=64.0, gt=0, description="alpha of the face expert")
    hand: float = Field(default=128.0, gt=0, description="alpha of the hand expert")


class MoleSettings(Settings):
    """Read by `kind: mole`: experts for faces and hands, and their gates."""

    stage: Literal["face", "hand", "gates"] = Field(
        default="face", description="train one expert alone, without gates; or the gates, with both experts frozen"
    )
    rank: int = Field(default=256, ge=1, description="of both experts")
    alphas: Alphas = Alphas()
    start_face: Path | None = Field(default=None, description="for stage gates: file or folder of stage face")
    start_hand: Path | None = Field(default=None, description="for stage gates: file or folder of stage hand")

    @model_validator(mode="after")
    def _experts_come_first(self) -> "MoleSettings":
        for name, place in self.starts.items():
            if (place is None) is (self.stage == "gates"):
                rule = "needs the file of stage " + name if place is None else "applies to stage gates only"
                raise ValueError(f"mole.start_{name} {rule}, found {place} with stage {self.stage}")
        return self

    @property
    def starts(self) -> dict[str, Path | None]:
        """The file or folder of each expert, for stage gates."""
        return {"face": self.start_face, "hand": self.start_hand}

    @property
    def experts(self) -> dict[str, Expert]:
        """The experts of the stage."""
        names = EXPERTS if self.stage == "gates" else (self.stage,)
        return {name: Expert(self.rank, getattr(self.alphas, name)) for name in names}
