"""Settings of the cost measurement and of the comparison with the paper."""

from typing import Literal

from pydantic import Field

from fairhuman.config import Settings

BASE, FUSED, UNFUSED, MOLE = "base", "LoRA, fused", "LoRA, not fused", "MoLE"  # what costs are measured of
VARIANTS = (BASE, FUSED, UNFUSED, MOLE)
MIB = 2**20
PAPER_RANK = 256  # of the paper's LoRA
SDXL_SHAPE = "sdxl-shape"


class CostSettings(Settings):
    """Settings of the cost measurement."""

    model: str = Field(
        default="small", description="'small', a folder or a hub id; 'sdxl-shape': full-size SDXL with random weights"
    )
    rank: int = Field(default=16, ge=1, description="rank of the LoRA and of both experts of the MoLE")
    size: int = Field(default=128, ge=8, description="height and width in pixels")
    steps: int = Field(default=30, ge=1, description="UniPC steps")
    repeats: int = Field(default=5, ge=1, description="measured rounds")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="precision of the networks; the VAE is always fp32"
    )


class SetupSettings(Settings):
    """Description of how the numbers of a table were obtained."""

    model: str = Field(min_length=1, description="model and how it was trained")
    data: str = Field(min_length=1, description="data for training and validation")
    scale: str = Field(min_length=1, description="steps, size in pixels, pictures, repeats or seeds, and device")
    metrics: str = Field(min_length=1, description="how the numbers were measured, their units and spread")


class SheetSettings(Settings):
    """Descriptions of our set-ups; required for each table in which we have numbers."""

    costs: SetupSettings | None = Field(default=None, description="set-up of our numbers in Table 1")
    evaluation: SetupSettings | None = Field(default=None, description="set-up of our numbers in Table 2")
