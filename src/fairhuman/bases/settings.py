"""Settings of bases. Needs no torch."""

from typing import Annotated, Literal

from pydantic import Field

from fairhuman.config import Settings


class TimeSettings(Settings):
    """Noise levels that a flow-matching base is trained at: σ = s u / (1 + (s - 1) u), u = sigmoid(mean + std N(0, 1)).

    Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", ICML 2024.
    """

    mean: float = Field(default=0.0, description="of the logit of u; above 0, there is more noise")
    std: float = Field(default=1.0, gt=0.0, description="standard deviation of the logit of u")
    shift: Annotated[float, Field(gt=0.0)] | Literal["auto", "resolution"] = Field(
        default="auto",
        description="s; auto: that of the model's scheduler, 1 if it depends on the resolution; "
        "resolution: as the model's scheduler has it for the resolution; not for FLUX.2 klein",
    )
