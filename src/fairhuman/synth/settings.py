"""Settings of synthetic people."""

from pydantic import Field

from fairhuman.config import Settings

SMALLEST_SIZE = 16
LARGEST_SIZE = 4096


class SynthSettings(Settings):
    """Settings of rendering.

    Attributes:
        count: number of pictures; a larger count later adds pictures to the same ones.
        size: pixels a side.
        seed: picture k depends on (seed, k).
        degraded: share of pictures, in [0, 1], whose faces and hands are blurred and warped.
    """

    count: int = Field(ge=1, le=10_000_000)
    size: int = Field(default=256, ge=SMALLEST_SIZE, le=LARGEST_SIZE)
    seed: int = Field(default=0, ge=0)
    degraded: float = Field(default=0.0, ge=0, le=1)
