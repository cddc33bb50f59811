"""The published implementation, for comparison: K backward passes, a flat P × K buffer, SciPy from w = 1/K."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor, nn


def reference_weights(gram: np.ndarray, alpha: float = 2.0) -> np.ndarray:
    """Return w of M w = w^(-1/α) from `least_squares` with default tolerances, as FairGrad and FairHuman do."""

    def residual(w: np.ndarray) -> np.ndarray:
        return gram @ w - np.power(w, -1.0 / alpha)

    weights: np.ndarray = least_squares(residual, np.full(len(gram), 1.0 / len(gram)), bounds=(0.0, np.inf)).x
    return weights


def reference_backward(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter], radius: float = 1.0) -> None:
    """Write the direction into `.grad`: K × Σ w_i g_i, clipped to norm `radius`."""
    sizes = [parameter.numel() for parameter in parameters]
    buffer = torch.zeros(sum(sizes), len(losses))
    for i, loss in enumerate(losses):
        loss.backward(retain_graph=i + 1 < len(losses))
        buffer[:, i] = torch.cat([p.grad.reshape(-1) for p in parameters])  # type: ignore[union-attr]
        for parameter in parameters:
            parameter.grad = None
    weights = torch.from_numpy(reference_weights((buffer.T @ buffer).numpy().astype(np.float64))).float()
    direction = len(losses) * (buffer @ weights)
    for parameter, part in zip(parameters, direction.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter).clone()
    torch.nn.utils.clip_grad_norm_(parameters, radius)
