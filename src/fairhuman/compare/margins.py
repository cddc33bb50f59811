"""Settings: which differences count as none."""

from collections.abc import Mapping

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.regions.settings import GLOBAL


class Margins(Settings):
    """Differences that count as none."""

    margin: float = Field(
        default=0.1,
        gt=0.0,
        description="differences within ± this share of the effect of training are equal: of what the reference "
        "changes in that loss",
    )
    global_margin: float = Field(
        default=0.001,
        gt=0.0,
        description="differences of the global loss, which training may hardly change, within ± this share of the "
        "base's are equal",
    )

    def margins(self, effects: Mapping[str, float]) -> dict[str, float]:
        """The margin of each number, from the effect of training on it."""
        shares = {name: self.margin * abs(effect) for name, effect in effects.items()}
        return {**shares, **({GLOBAL: self.global_margin} if GLOBAL in effects else {})}
