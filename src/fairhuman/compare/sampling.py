"""Settings of the pictures that trained models are compared by."""

from typing import ClassVar, Literal

from pydantic import Field

from fairhuman.generate.settings import SampleSettings


class PromptSampling(SampleSettings):
    """How pictures of a data set's captions are drawn, by all models from the same noise."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    data: str = Field(
        description="validation set, or name of one of `people`: its captions are the prompts, its pictures real ones"
    )
    count: int | None = Field(default=None, ge=2, description="use only the first prompts; None: all")
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="bf16", description="of the networks while sampling")
    batch_size: int = Field(default=8, ge=1, description="pictures per batch; changes the speed, not the noise")

    def size(self, trained: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels, of a model that was trained at `trained` where they aren't given."""
        return self.height or trained[0], self.width or trained[1]
