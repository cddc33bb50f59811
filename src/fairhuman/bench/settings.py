"""Settings of the memory table."""

from typing import Literal

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.models.locations import SDXL


class MemoryTableSettings(Settings):
    """The runs of the table: all combinations of these settings."""

    model: str = Field(default=SDXL, description="'sdxl' (base 1.0, without weights), 'small', a folder or a hub id")
    resolution: int = Field(default=1024, ge=16)
    ranks: tuple[int, ...] = Field(default=(64, 128, 256), min_length=1, description="ranks of LoRA on attention")
    kinds: tuple[Literal["lora", "controlnet", "t2i_adapter", "full"], ...] = Field(
        default=("lora", "controlnet", "t2i_adapter"), min_length=1
    )
    batch_sizes: tuple[int, ...] = Field(default=(1, 4), min_length=1)
    precisions: tuple[str, ...] = Field(default=("bf16",), min_length=1)
    gradient_checkpointing: bool = True
