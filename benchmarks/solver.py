"""Speed and accuracy of the weights: our solver, SciPy as in the published code, torchjd's FairGrad. K = 3, α = 2.

.venv/bin/python benchmarks/solver.py [--quick]
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchjd.aggregation import FairGradWeighting

from common import arguments, one_thread, save, spread
from fairhuman.fairness import solve, solve_info
from reference import reference_weights

SCALES = (1000.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9)
Solver = Callable[[torch.Tensor], np.ndarray]


def problems(count: int, scale: float, seed: int) -> list[torch.Tensor]:
    """Return Gram matrices of 3 random gradients of 20 values, with norms within a factor of 10, times `scale`."""
    generator = np.random.default_rng(seed)
    lengths = 10.0 ** generator.uniform(-0.5, 0.5, (count, 3, 1))
    gradients = scale * lengths * generator.standard_normal((count, 3, 20)) / np.sqrt(20.0)
    return [torch.from_numpy(g @ g.T) for g in gradients]


def quality(gram: torch.Tensor, weights: np.ndarray) -> tuple[float, float]:
    """Return the residual max |(M w)_i √w_i - 1| and the cosine to the direction of the exact weights."""
    matrix = gram.numpy()
    exact = solve_info(gram).weights.numpy()
    residual = float(np.abs((matrix @ weights) * np.sqrt(weights) - 1.0).max())
    product = weights @ matrix @ exact
    return residual, float(product / np.sqrt((weights @ matrix @ weights) * (exact @ matrix @ exact)))


def main() -> None:
    options = arguments(__doc__)
    one_thread()
    count = 5 if options.quick else 100
    torchjd = FairGradWeighting(alpha=2.0)
    solvers: dict[str, Solver] = {
        "fairhuman": lambda gram: solve(gram).numpy(),
        "scipy least_squares from 1/K": lambda gram: reference_weights(gram.numpy()),
        "torchjd FairGrad": lambda gram: torchjd(gram).numpy(),
    }
    results: dict[str, Any] = {}
    for scale in SCALES:
        grams = problems(count, scale, seed=0)
        rows: dict[str, Any] = {}
        for name, solver in solvers.items():
            seconds, residuals, cosines = [], [], []
            for gram in grams:
                start = time.process_time_ns()
                weights = solver(gram)
                seconds.append((time.process_time_ns() - start) * 1e-3)
                residual, cosine = quality(gram, weights)
                residuals.append(residual)
                cosines.append(cosine)
            rows[name] = {
                "cpu_us": spread(seconds),
                "residual": spread(residuals),
                "share with residual > 1e-3": float(np.mean(np.array(residuals) > 1e-3)),
                "cosine": {"mean": float(np.mean(cosines)), "min": min(cosines)},
            }
            print(
                f"scale {scale:7.0e}  {name:29} {rows[name]['cpu_us']['median']:7.0f} us"
                f"  residual {rows[name]['residual']['median']:8.1e} (max {rows[name]['residual']['max']:8.1e})"
                f"  cosine {rows[name]['cosine']['mean']:.3f} (min {min(cosines):.3f})"
            )
        results[f"{scale:g}"] = rows
    save("solver", {"objectives": 3, "alpha": 2.0, "problems a scale": count}, {"gradient scale": results}, options)


if __name__ == "__main__":
    main()
