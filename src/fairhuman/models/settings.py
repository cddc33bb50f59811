"""Settings of what is trained: LoRA, ControlNet, T2I-adapter, MoLE."""

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from fairhuman.config import Settings

EXPERTS = ("face", "hand")


class Expert(NamedTuple):
    """Size and strength of an expert."""

    rank: int
    alpha: float


class LoraSettings(Settings):
    """What is trained, and how much of it."""

    rank: int = Field(default=64, ge=1, description="rank of every update")
    alpha: float | None = Field(default=None, gt=0, description="strength: alpha / rank; None = rank, strength 1")
    targets: Literal["attention", "attention+conv"] | list[str] = Field(
        default="attention",
        description="'attention': q, k, v, out; 'attention+conv': the residual blocks' too; or ends of names",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the input of every update, in training")

    @property
    def strength(self) -> float:
        """The factor alpha / rank of the update."""
        return (self.alpha or self.rank) / self.rank


class ControlSettings(Settings):
    """What a ControlNet or T2I-adapter is trained to follow."""

    conditions: tuple[Literal["pose", "depth"], ...] = Field(
        default=("pose",), min_length=1, description="their channels (pose 3, depth 1) are joined in this order"
    )
    start: str | None = Field(default=None, description="folder or hub id of a checkpoint; None: a new one")
    condition_dropout: float = Field(
        default=0.3, ge=0.0, le=1.0, description="chance of each condition of each sample to be zeros"
    )

    @field_validator("conditions")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("must name each condition once")
        return names


class Alphas(Settings):
    """Strength of each expert: alpha / rank."""

    face: float = Field(default=64.0, gt=0)
    hand: float = Field(default=128.0, gt=0)


class MoleSettings(Settings):
    """Which part of MoLE is trained."""

    stage: Literal["face", "hand", "gates"] = Field(
        default="face", description="one expert alone, without gates; or the gates, both experts frozen"
    )
    rank: int = Field(default=256, ge=1, description="of both experts")
    alphas: Alphas = Alphas()
    start_face: Path | None = Field(default=None, description="of stage gates: file or folder of stage face")
    start_hand: Path | None = Field(default=None, description="of stage gates: file or folder of stage hand")

    @model_validator(mode="after")
    def _experts_come_first(self) -> "MoleSettings":
        for name, place in self.starts.items():
            if (place is None) is (self.stage == "gates"):
                rule = "needs the file of stage " + name if place is None else "is of stage gates alone"
                raise ValueError(f"mole.start_{name} {rule}, found {place} with stage {self.stage}")
        return self

    @property
    def starts(self) -> dict[str, Path | None]:
        """Where each expert comes from."""
        return {"face": self.start_face, "hand": self.start_hand}

    @property
    def experts(self) -> dict[str, Expert]:
        """The experts of the stage."""
        names = EXPERTS if self.stage == "gates" else (self.stage,)
        return {name: Expert(self.rank, getattr(self.alphas, name)) for name in names}
