"""Settings of synthetic people."""

from typing import Any, Literal

from pydantic import Field

from fairhuman.config import Settings

SMALLEST_SIZE = 16
LARGEST_SIZE = 4096
Framing = Literal["half_body", "full_body"]


class SynthSettings(Settings):
    """Settings of rendering.

    Attributes:
        count: number of pictures; a larger count later adds pictures to the same ones.
        size: pixels a side.
        seed: picture k depends on (seed, k).
        degraded: share of pictures, in [0, 1], whose faces and hands are blurred and warped.
        framing: half_body: from the head to below the hands; full_body: from head to foot, so that a face's box takes
            about 0.8 % of the picture and a hand's 0.5 %.
        parts: also masks of head, upper body, legs, feet, eyes and mouth.
    """

    count: int = Field(ge=1, le=10_000_000)
    size: int = Field(default=256, ge=SMALLEST_SIZE, le=LARGEST_SIZE)
    seed: int = Field(default=0, ge=0)
    degraded: float = Field(default=0.0, ge=0, le=1)
    framing: Framing = "half_body"
    parts: bool = False

    def decisive(self) -> dict[str, Any]:
        """All values; half-body framing and no parts are left out, as in results that are older than the settings."""
        values = super().decisive()
        if not self.parts:
            del values["parts"]
        if self.framing == "half_body":
            del values["framing"]
        return values
