"""Dynamic weight average (DWA): more weight where the loss falls more slowly."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairhuman.fairness.strategy import LossWeighting


class DynamicWeightAverage(LossWeighting):
    """w_i = K softmax_i(r_i / T), r_i = L_i(t-1) / L_i(t-2), with L_i(t) the mean loss of window t.

    r_i = 1 until objective i has been present in two windows. Liu, Johns, Davison, End-to-End Multi-Task
    Learning with Attention, CVPR 2019, Eq. 7, where a window is an epoch.

    Args:
        temperature: T > 0; 2 in theirs.
        window: steps in a window, ≥ 1.
    """

    def __init__(self, temperature: float = 2.0, window: int = 100) -> None:
        if not temperature > 0.0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        if window < 1:
            raise ValueError(f"window must be >= 1, got {window}")
        self.temperature = temperature
        self.window = window
        self._step = 0
        self._sums: list[float] = []
        self._counts: list[int] = []
        self._means: list[list[float]] = []  # the last two window means of each objective

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return K softmax(r / T)."""
        ratios = [pair[1] / pair[0] if len(pair) == 2 else 1.0 for pair in self._means] or [1.0] * len(losses)
        top = max(ratios)
        exponentials = [math.exp((ratio - top) / self.temperature) for ratio in ratios]
        return [len(losses) * value / sum(exponentials) for value in exponentials]

    def observe(self, losses: Sequence[float | None]) -> None:
        """Add the losses to the current window; close it after `window` steps."""
        if not self._means:
            self._sums, self._counts, self._means = [0.0] * len(losses), [0] * len(losses), [[] for _ in losses]
        for i, loss in enumerate(losses):
            if loss is not None:
                self._sums[i] += loss
                self._counts[i] += 1
        self._step += 1
        if self._step % self.window == 0:
            for i, (total, count) in enumerate(zip(self._sums, self._counts, strict=True)):
                if total > 0.0:
                    self._means[i] = [*self._means[i], total / count][-2:]
                self._sums[i], self._counts[i] = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the current window and the last two means."""
        return {
            "step": self._step,
            "sums": list(self._sums),
            "counts": list(self._counts),
            "means": [list(pair) for pair in self._means],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._step = state["step"]
        self._sums = list(state["sums"])
        self._counts = list(state["counts"])
        self._means = [list(pair) for pair in state["means"]]
