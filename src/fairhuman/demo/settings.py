"""All numbers of the demo."""

from typing import Literal

from pydantic import Field, model_validator

from fairhuman import config
from fairhuman.models.locations import SMALL


class DemoSettings(config.Settings):
    """All numbers of the demo, made for 10 minutes on two cores."""

    model: str = Field(default=SMALL, description="the base")
    targets: Literal["attention", "attention+conv"] = Field(default="attention", description="of the LoRA")
    people: int = Field(default=256, ge=1, description="trained on")
    held_out: int = Field(default=96, ge=2)
    size: int = Field(default=128, ge=64, description="pixels a side")
    seed: int = Field(default=21, ge=0, description="of the training people; the held-out ones have the next")
    steps: int = Field(default=200, ge=2)
    batch_size: int = Field(default=8, ge=1)
    rank: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    previews: int = Field(default=6, ge=0, description="held-out pictures that are noised and denoised")
    samples: int = Field(default=32, ge=1, description="pictures drawn from captions of held-out people")
    sample_steps: int = Field(default=20, ge=1)
    guidance: float = Field(default=2.5, ge=1.0)

    @model_validator(mode="after")
    def _enough_captions(self) -> "DemoSettings":
        if self.samples > self.held_out:
            raise ValueError(f"samples must be at most held_out = {self.held_out}, found {self.samples}")
        return self
