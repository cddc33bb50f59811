"""How many exact steps mode `output` needs to fit its gains.

    .venv/bin/python benchmarks/gains.py [--quick] [--photos FOLDER] [--work FOLDER]

Training by exact MPD (as in amortised.py, part cosine) is recorded: each step's products of the gradients at the
output, and the exact Gram matrix. Gains (`OutputGains`) are then fitted to the recording, as the mode would: from the
first n steps and every 32nd after. Reported is the cosine of the direction to the exact one, in the steps that aren't
exact for any n: by n; with the exact norms and the output's cosines; and with exact cosines and the gains' norms. Each
recording is kept in the work folder.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amortised import EVERY, STEPS, adam, once, render_people, summary, take_steps, targeted, training, work_folder
from common import arguments, one_thread, save
from fairhuman.fairness import FairBackward, MinimumPotentialDelay
from fairhuman.fairness.estimators.audited import direction_cosine
from fairhuman.fairness.estimators.estimator import MicroBatch, output_gradients
from fairhuman.fairness.estimators.output import OutputGains

WARM_UPS = (4, 8, 16, 32)


class _Recorder(FairBackward):
    """Records what mode `output` would see of each step, and the exact Gram matrix."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(parameters, MinimumPotentialDelay())
        self.seen: list[dict[str, Any]] = []

    def __call__(self, losses: Any, *, output: Any = None, **options: Any) -> Any:
        given, cotangents = output_gradients(MicroBatch(losses, output), "output")
        features = OutputGains().features(cotangents, given.levels_b)
        step = super().__call__(losses, **options)
        self.seen.append({"features": features.tolist(), "gram": step.gram.tolist()})
        return step


def record(data: Path, seed: int, steps: int, **values: Any) -> list[dict[str, Any]]:
    """Train by exact MPD; return the recording."""
    model, objectives, batches = training(data, seed, **values)
    fair = _Recorder(model.trainable_parameters())
    take_steps(objectives, fair, batches, adam(model), steps)
    return fair.seen


def replay(
    seen: Sequence[Mapping[str, Any]], first: int, mended: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """Return cosines of the directions of `mended`(estimate, exact), gains fitted to `first` steps, then every 32nd.

    Also return the geometric mean of the factor between estimated and exact norms.
    """
    gains, strategy = OutputGains(), MinimumPotentialDelay()
    cosines, logs = [], []
    for number, step in enumerate(seen):
        features, gram = (torch.tensor(step[name], dtype=torch.float64) for name in ("features", "gram"))
        if number < first or number % EVERY["output"] == 0:
            gains.update(features, gram)
        elif number >= max(WARM_UPS):
            guess = mended(gains.predict(features), gram)
            cosines.append(direction_cosine(strategy.weights(guess), strategy.weights(gram), gram))
            here = gram.diagonal() > 0.0
            logs.append(float((guess.diagonal()[here] / gram.diagonal()[here]).log().abs().mean() / 2.0))
    return {**summary(cosines), "norms are off by": math.exp(statistics.mean(logs))}


def norms_of(one: Tensor, cosines_of: Tensor) -> Tensor:
    """Return a Gram matrix with the norms of one and the cosines of another; absent objectives stay absent."""
    sides = torch.where(cosines_of.diagonal() > 0.0, one.diagonal() / cosines_of.diagonal(), 0.0).sqrt()
    return cosines_of * torch.outer(sides, sides)


def main() -> None:
    options = arguments(
        __doc__, photos="photos with boxes", work="where people are rendered and recordings are kept (runs/amortised)"
    )
    one_thread()
    quick = options.quick
    work = work_folder(options)
    render_people(work / "people", quick)
    found: dict[str, Any] = {}
    for kind, (data, values, _, seeds) in targeted(work / "people", options.photos).items():
        for seed in seeds[:1] if quick else seeds:
            if quick:  # shows that it works
                values = {**values, "resolution": 64, "batch_size": 2}
            steps = 40 if quick else STEPS
            seen = once(work / f"recording, {kind}, seed {seed}.json", partial(record, data, seed, steps, **values))
            rows = {f"{n} exact steps": replay(seen, n, lambda guess, _: guess) for n in WARM_UPS}
            rows["exact norms"] = replay(seen, WARM_UPS[0], lambda guess, exact: norms_of(exact, guess))
            rows["exact cosines, 16 exact steps"] = replay(seen, 16, norms_of)
            found.setdefault(kind, {})[f"seed {seed}"] = rows
            for name, row in rows.items():
                shown = f"{row['mean']:.3f} / {row['p5']:.3f} / {row['min']:.3f}, norms x {row['norms are off by']:.2f}"
                print(f"{kind}, seed {seed}: {name:30} {shown}", flush=True)
    save("gains", {"steps": STEPS, "every": EVERY["output"]}, found, options)


if __name__ == "__main__":
    main()
