"""Random loss weighting (RLW), a baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fairhuman.fairness.strategy import LossWeighting


class RandomLossWeighting(LossWeighting):
    """w = softmax(z), with z [K] standard normal, drawn anew at every step.

    Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022. All processes of a run need the same seed.

    Args:
        seed: of the strategy's own generator.
    """

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return softmax(z)."""
        normals = torch.randn(len(losses), generator=self._generator, dtype=torch.float64)
        weights: list[float] = normals.softmax(0).tolist()
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the generator's state."""
        self._generator.set_state(state["generator"].cpu())
