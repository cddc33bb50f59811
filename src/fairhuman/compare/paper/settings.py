"""Settings of the cost table and of the sheet beside the paper."""

from typing import Literal

from pydantic import Field

from fairhuman.config import Settings


class CostSettings(Settings):
    """What is measured."""

    model: str = Field(
        default="small", description="'small', a folder or a hub id; 'sdxl-shape': SDXL's true shape, random weights"
    )
    rank: int = Field(default=16, ge=1, description="of the LoRA and of both experts of the MoLE")
    size: int = Field(default=128, ge=8, description="height and width in pixels")
    steps: int = Field(default=30, ge=1, description="of UniPC")
    repeats: int = Field(default=5, ge=1, description="rounds that count")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


class SetupSettings(Settings):
    """How our numbers of a table came about, in words."""

    model: str = Field(min_length=1)
    data: str = Field(min_length=1)
    scale: str = Field(min_length=1)
    metrics: str = Field(min_length=1)


class SheetSettings(Settings):
    """What is said of our own numbers; needed for each table in which we have any."""

    costs: SetupSettings | None = Field(default=None, description="of Table 1")
    evaluation: SetupSettings | None = Field(default=None, description="of Table 2")
