"""Settings of the demo."""

from typing import Literal

from pydantic import Field, model_validator

from fairhuman import config
from fairhuman.utils.shipped import SMALL


class DemoSettings(config.Settings):
    """Settings of the demo."""

    model: str = Field(default=SMALL, description="base model")
    targets: Literal["attention", "attention+conv"] = Field(default="attention", description="layers with a LoRA")
    people: int = Field(default=256, ge=1, description="rendered people to train on")
    held_out: int = Field(default=96, ge=2, description="rendered people for validation")
    size: int = Field(default=128, ge=64, description="width and height of pictures in pixels")
    seed: int = Field(default=21, ge=0, description="seed of the training people; held-out people use seed + 1")
    steps: int = Field(default=200, ge=2, description="optimiser steps of each run")
    batch_size: int = Field(default=8, ge=1, description="pictures per optimiser step")
    rank: int = Field(default=16, ge=1, description="rank of the LoRA")
    learning_rate: float = Field(default=1e-3, gt=0.0, description="maximum of a cosine schedule with warm-up")
    previews: int = Field(default=6, ge=0, description="held-out pictures that are noised halfway and denoised")
    samples: int = Field(default=32, ge=1, description="pictures sampled from captions of held-out people")
    sample_steps: int = Field(
        default=20, ge=1, description="denoising steps: UniPC for SDXL, the model's own scheduler for other bases"
    )
    guidance: float = Field(default=2.5, ge=1.0, description="classifier-free guidance; 1 = none")

    @model_validator(mode="after")
    def _enough_captions(self) -> "DemoSettings":
        if self.samples > self.held_out:
            raise ValueError(f"samples must be at most held_out = {self.held_out}, found {self.samples}")
        return self
