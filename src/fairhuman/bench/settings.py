"""Settings of the memory table."""

from typing import Literal

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.models.locations import SDXL


class MemoryTableSettings(Settings):
    """The runs of the table: all combinations of these settings."""

    model: str = Field(
        default=SDXL,
        description="'sdxl' (base 1.0, without weights), 'small', a folder, or a hub id of any base; 'all': SDXL and "
        "each published base whose shape is known",
    )
    resolution: int = Field(default=1024, ge=16, description="width and height of training pictures in pixels")
    ranks: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="ranks of LoRA on attention; None: 64, 128 and 256 on SDXL, 16 on other bases",
    )
    kinds: tuple[Literal["lora", "controlnet", "t2i_adapter", "full"], ...] | None = Field(
        default=None,
        min_length=1,
        description="kinds of training, as `kind` of a training recipe; None: lora, and of SDXL also controlnet and "
        "t2i_adapter",
    )
    batch_sizes: tuple[int, ...] = Field(default=(1, 4), min_length=1, description="pictures per micro-batch")
    precisions: tuple[str, ...] = Field(
        default=("bf16",), min_length=1, description="fp32, bf16 or fp16, as `precision` of a training recipe"
    )
    quantize: tuple[Literal["none", "int8", "fp8", "nf4"], ...] = Field(
        default=("none",), min_length=1, description="as `base.quantize` of a training recipe"
    )
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations in the backward pass: less memory, about a third more time"
    )
