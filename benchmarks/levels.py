"""At which noise levels the gradients of the whole picture, faces and hands are long: the densities of `noise.density`.

    .venv/bin/python benchmarks/levels.py [--quick] [--work FOLDER]

The small SDXL with a LoRA of rank 16 on attention, 128 pixels, rendered people. The weights stay, new and after 100
steps of exact MPD. In each of 10 bins of noise levels the three gradients of 32 single pictures are taken, the same
pictures with the same noise in all bins. The estimate of a loss's gradient varies least for a density proportional to
the root mean square of the gradient's length in a bin; that is `density`, scaled to a mean of 1. `gain` is the sum of
the mean squared lengths under uniform draws over that under this density alone, the whole picture's uniform one not
mixed in: as if a step had so many times more samples. Each measurement is kept in the work folder, so the same command
goes on where it was stopped. About 5 minutes on one core.
"""

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from amortised import adam, once, render_people, take_steps, training, work_folder
from common import arguments, one_thread, save
from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay
from fairhuman.train.settings import NoiseSettings
from fairhuman.train.step import Objectives, fair_step

NAMES = ("global", "face", "hand")
STATES = {"new": 0, "trained": 100}  # steps before the measurement
BINS, PICTURES, BATCH_SIZE, LEARNING_RATE = 10, 32, 8, 1e-3
ELSEWHERE = 1e-9  # density outside of the bin that is measured


def measure(data: Path, steps: int, pictures: int, bins: int, **values: Any) -> list[list[list[float | None]]]:
    """Return the squared lengths [bins][pictures][K] of single pictures' gradients; None where a region is absent."""
    model, objectives, batches = training(data, 0, batch_size=BATCH_SIZE, **values)
    parameters = model.trainable_parameters()
    mpd, plain = (FairBackward(parameters, strategy()) for strategy in (MinimumPotentialDelay, LinearScalarization))
    optimizer = adam(model, LEARNING_RATE)
    take_steps(objectives, mpd, batches, optimizer, steps)
    _, _, singles = training(data, 1, batch_size=1, **values)
    shown = list(islice(singles, pictures))
    found: list[list[list[float | None]]] = []
    for number in range(bins):
        inside = tuple(1.0 if one == number else ELSEWHERE for one in range(bins))
        noise = NoiseSettings(density=dict.fromkeys(NAMES, inside))
        within = Objectives(model, objectives.regions, noise, objectives.seed)
        found.append([])
        for batch in shown:
            step, _ = fair_step(within, plain, [batch], measure=True)
            optimizer.zero_grad()
            assert step.gram is not None
            squares = step.gram.diagonal().tolist()
            found[-1].append([one if there else None for one, there in zip(squares, step.present, strict=True)])
    return found


def summary(measured: list[list[list[float | None]]]) -> dict[str, Any]:
    """The density of each objective, and what it gains."""
    result: dict[str, Any] = {}
    for k, name in enumerate(NAMES):
        rows = [[one[k] for one in pictures if one[k] is not None] for pictures in measured]
        squares = torch.tensor([sum(row) / len(row) if row else 0.0 for row in rows], dtype=torch.float64)
        roots = squares.sqrt()
        density = roots / roots.mean()
        gain = float(squares.mean() / roots.mean() ** 2)
        result[name] = {"density": [round(one, 2) for one in density.tolist()], "gain": round(gain, 3)}
    return result


def main() -> None:
    """Measure both states."""
    options = arguments(__doc__, work="where people are rendered and measurements are kept (runs/levels)")
    one_thread()
    quick: bool = options.quick
    work = work_folder(options, "levels")
    render_people(work / "people", quick, count=400, seed=62)
    values = {"resolution": 64} if quick else {}
    results: dict[str, Any] = {}
    for state, steps in STATES.items():
        sizes = (min(steps, 1), 2, 3) if quick else (steps, PICTURES, BINS)
        measured = once(work / f"{state}.json", partial(measure, work / "people", *sizes, **values))
        results[state] = summary(measured)
        for name, row in results[state].items():
            print(f"{state:8}{name:8}gain {row['gain']:.2f}  {row['density']}", flush=True)
    settings = {"pictures": PICTURES, "bins": BINS, "rank": 16, "size": 128, "steps": STATES, "rate": LEARNING_RATE}
    save("levels", settings, results, options)


if __name__ == "__main__":
    main()
