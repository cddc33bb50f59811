"""Settings of sampling."""

from pydantic import Field

from fairhuman.bases.names import BaseName
from fairhuman.config import Settings


class SampleSettings(Settings):
    """Settings of sampling."""

    steps: int = Field(default=30, ge=1, description="UniPC steps")
    guidance: float | None = Field(
        default=None, ge=1, description="as the base means it, 1 of SDXL: none; None: the base's own, 7.5 of SDXL"
    )
    height: int | None = Field(default=None, ge=8, multiple_of=8, description="None: the model's own size")
    width: int | None = Field(default=None, ge=8, multiple_of=8, description="pixels; None: the model's own size")
    prompt_suffix: str = Field(
        default="", description="text added to every prompt as it is typed, such as ', high quality'; nothing else is"
    )
    negative_prompt: str = Field(default="", description="what guidance steers away from")
    images_per_prompt: int = Field(default=1, ge=1, description="pictures per prompt")
    batch_size: int = Field(default=4, ge=1, description="pictures per batch; changes the speed, not the noise")
    seed: int = Field(default=0, ge=0, description="seed of the noise")

    @property
    def scale(self) -> float:
        """The guidance, which `of_base` has set."""
        assert self.guidance is not None
        return self.guidance

    def of_base(self, name: BaseName) -> "SampleSettings":
        """Return the settings with the base's own guidance if none is given."""
        return self if self.guidance is not None else self.model_copy(update={"guidance": name.guidance})
