"""What tests of training runs share: crashes, stops, lines of JSON, and the direction that a step must take."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay, Strategy, solve
from fairhuman.train.metrics import Metrics
from fairhuman.train.run import Run, Watcher
from fairhuman.train.step import Objectives, fair_step

TIMES = ("images_per_s", "waiting", "peak_memory_mib")  # no two runs have the same ones


class Crash(Watcher):
    """Crashes a run after a step, before it is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, run: Run, metrics: Metrics) -> None:
        if run.step == self.step:
            raise RuntimeError("crash")


class Stop(Crash):
    """Requests a graceful stop, as a signal does."""

    def on_step(self, run: Run, metrics: Metrics) -> None:
        if run.step == self.step:
            run.stopped_by = 15


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics_without_times(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    rows = read_lines(run / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def direction_of(objectives: Objectives, batch: Batch, strategy: Strategy) -> tuple[Tensor, Tensor]:
    """What a strategy writes into `.grad`, joined, and its weights."""
    parameters = objectives.model.trainable_parameters()
    step, _ = fair_step(objectives, FairBackward(parameters, strategy), [batch])
    joined = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    for parameter in parameters:
        parameter.grad = None
    return joined.double(), step.weights


def check_direction(objectives: Objectives, batch: Batch, unlike_plain: float, unused: bool = False) -> None:
    """MPD's direction is that of the true Gram matrix, and not that of the plain sum: their cosine is less than this.

    g_i, M and w are stated once more, from plain autograd over all that is trained; `unused`: some of it has no
    gradient.
    """
    parameters = objectives.model.trainable_parameters()
    masks, draw = objectives.masks_and_noise(batch)
    losses, _ = objectives.losses(batch, masks, draw, 4 * masks.sum(dim=(0, 2, 3)))
    rows = []
    for loss in losses:
        assert loss is not None
        gradient = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=unused)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient, strict=True)]
        rows.append(torch.cat([g.flatten() for g in flat]).double())
    gradients_kp = torch.stack(rows)
    gram_kk = gradients_kp @ gradients_kp.T
    assert bool((gram_kk.diagonal() > 0).all()), "in the reference's trainers M is 0"
    weights_k = torch.as_tensor(solve(gram_kk, alpha=2.0))
    expected = weights_k @ gradients_kp
    found, found_weights = direction_of(objectives, batch, MinimumPotentialDelay())
    torch.testing.assert_close(found, expected / expected.norm(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found_weights / found_weights.sum(), weights_k / weights_k.sum(), rtol=1e-3, atol=0)
    plain, _ = direction_of(objectives, batch, LinearScalarization())
    assert float(plain @ found) < unlike_plain * float(plain.norm()), "MPD does something"
