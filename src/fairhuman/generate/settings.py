"""Settings of sampling."""

from pydantic import Field

from fairhuman.config import Settings


class SampleSettings(Settings):
    """Settings of sampling; prompts are used unchanged."""

    steps: int = Field(default=30, ge=1)
    guidance: float = Field(default=7.5, ge=1, description="classifier-free guidance scale; 1: none")
    height: int | None = Field(default=None, ge=8, multiple_of=8, description="None: the model's own size")
    width: int | None = Field(default=None, ge=8, multiple_of=8)
    negative_prompt: str = ""
    images_per_prompt: int = Field(default=1, ge=1)
    batch_size: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
