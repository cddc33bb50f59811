"""Who decides the direction: shares and rates of the whole picture, faces and hands, by strategy and normalisation.

    .venv/bin/python benchmarks/shares.py [--quick] [--photos FOLDER] [--work FOLDER]

The small SDXL with a LoRA of rank 16 on attention, 128 pixels, batches of 8 pictures, 400 rendered people and 400 of
the photos. The weights stay, and the exact Gram matrix of the three gradients is measured on 50 batches, at two states:
new, and after 100 steps of exact MPD (`area`). Batches that lack a face or a hand are left out and counted. One
measurement serves all rows: a region's loss under `image` is its loss under `area` times its share of the step's latent
cells, so the Gram matrix of `image` follows from that of `area`. Reported are medians over batches, and quartiles, of

- `relative`: ‖w_i g_i‖ / ‖w_1 g_1‖, what an objective contributes to the direction, relative to the whole picture;
- `share`: the same as parts of their sum (`share/NAME` of a run);
- `rate`: g_iᵀd / (‖g_i‖ ‖d‖) (`rate/NAME` of a run).

Nothing is estimated here; a run with an amortised mode estimates both between its audits. Each of the four measurements
is kept in the work folder, so the same command goes on where it was stopped. About 15 minutes on one core.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amortised import adam, once, render_people, take_steps, training, work_folder
from common import arguments, one_thread, save
from fairhuman.fairness import (
    AlphaFair,
    FairBackward,
    FairStep,
    GradientBalancing,
    LinearScalarization,
    MinimumPotentialDelay,
    NashMTL,
)
from fairhuman.train.step import fair_step

NAMES = ("global", "face", "hand")
STRATEGIES: dict[str, GradientBalancing | None] = {
    "LS": None,
    "alpha 0.5": AlphaFair(0.5),
    "Nash-MTL": NashMTL(),
    "MPD": MinimumPotentialDelay(),
    "alpha 4": AlphaFair(4.0),
}
NORMALISATIONS = {"area": None, "image": 1.0, "image x25": 25.0}  # the factor of face and hand under `image`
STATES = {"new": 0, "trained": 100}  # steps before the measurement
BATCHES, BATCH_SIZE, LEARNING_RATE = 50, 8, 3e-4

Measured = list[dict[str, Any]]  # of each batch: gram [K][K] under `area`, areas [K] as shares of the latent; or {}


def measure(data: Path, steps: int, batches_n: int, **values: Any) -> Measured:
    """Train `steps` steps by exact MPD, then measure the Gram matrix of further batches at those weights."""
    model, objectives, batches = training(data, 0, batch_size=BATCH_SIZE, **values)
    parameters = model.trainable_parameters()
    mpd, plain = (FairBackward(parameters, strategy()) for strategy in (MinimumPotentialDelay, LinearScalarization))
    optimizer = adam(model, LEARNING_RATE)
    take_steps(objectives, mpd, batches, optimizer, steps)
    _, _, batches = training(data, 1, batch_size=BATCH_SIZE, **values)
    found: Measured = []
    for _ in range(batches_n):
        step, areas_k = fair_step(objectives, plain, [next(batches)], measure=True)
        optimizer.zero_grad()
        assert step.gram is not None
        whole = all(step.present)
        found.append({"gram": step.gram.tolist(), "areas": (areas_k / areas_k[0]).tolist()} if whole else {})
    return found


def normalised(gram_kk: Tensor, areas_k: Tensor, factor: float | None) -> Tensor:
    """The Gram matrix under `image` with a factor of the regions' losses, from that under `area`; None: as it is."""
    if factor is None:
        return gram_kk
    scale_k = areas_k * factor
    scale_k[0] = 1.0
    return gram_kk * torch.outer(scale_k, scale_k)


def step_of(gram_kk: Tensor, strategy: GradientBalancing | None) -> FairStep:
    """The step that a strategy takes; None: LS."""
    weights = torch.ones(len(gram_kk)) if strategy is None else torch.tensor(strategy.weights(gram_kk))
    weights = weights.double()
    norm = float((weights @ gram_kk @ weights).sqrt())
    return FairStep(weights, (None,) * len(gram_kk), (True,) * len(gram_kk), gram_kk, norm, 1.0 / norm)


def summary(measured: Measured) -> dict[str, Any]:
    """Medians and quartiles over batches, by normalisation, strategy, quantity and objective."""
    kept = [one for one in measured if one]
    grams = [torch.tensor(one["gram"], dtype=torch.float64) for one in kept]
    areas = [torch.tensor(one["areas"], dtype=torch.float64) for one in kept]
    result: dict[str, Any] = {
        "batches": len(measured),
        "left out": len(measured) - len(kept),
        "share of the latent": by_name(torch.stack(areas)),
    }
    for normalisation, factor in NORMALISATIONS.items():
        for name, strategy in STRATEGIES.items():
            steps = [step_of(normalised(m, a, factor), strategy) for m, a in zip(grams, areas, strict=True)]
            shares, rates = (torch.stack([getattr(step, what) for step in steps]) for what in ("shares", "rates"))
            quantities = {"relative": shares / shares[:, :1], "share": shares, "rate": rates}
            result.setdefault(normalisation, {})[name] = {what: by_name(q) for what, q in quantities.items()}
    return result


def by_name(values_nk: Tensor) -> dict[str, list[float]]:
    """Lower quartile, median and upper quartile over batches, of each objective."""
    quartiles = values_nk.quantile(values_nk.new_tensor([0.25, 0.5, 0.75]), dim=0).T.tolist()
    return dict(zip(NAMES, quartiles, strict=True))


def show(title: str, found: Mapping[str, Any]) -> None:
    """Print the table of one state on one data set."""
    print(f"{title}: {found['batches'] - found['left out']} of {found['batches']} batches")
    for normalisation in NORMALISATIONS:
        for name, row in found[normalisation].items():
            relative, rate = ([row[what][one][1] for one in NAMES] for what in ("relative", "rate"))
            print(f"  {normalisation:10}{name:10}{_row(relative)}   rates {_row(rate)}", flush=True)


def _row(values: Sequence[float]) -> str:
    return " : ".join(f"{value:.2f}" for value in values)


def main() -> None:
    """Measure people, and photos where they are given."""
    options = arguments(
        __doc__,
        photos="photos with boxes of faces and hands",
        work="where people are rendered and measurements are kept (runs/shares)",
    )
    one_thread()
    quick: bool = options.quick
    work = work_folder(options, "shares")
    render_people(work / "people", quick, count=400, seed=61)
    data = {"people": work / "people", **({"photos": options.photos} if options.photos else {})}
    values = {"resolution": 64} if quick else {}
    results: dict[str, Any] = {}
    for name, folder in data.items():
        for state, steps in STATES.items():
            sizes = (min(steps, 1), 2) if quick else (steps, BATCHES)
            measured = once(work / f"{name}, {state}.json", partial(measure, folder, *sizes, **values))
            found = results.setdefault(name, {})[state] = summary(measured)
            show(f"{name}, {state}", found)
    settings = {"batch": BATCH_SIZE, "rank": 16, "size": 128, "learning rate": LEARNING_RATE, "steps": STATES}
    save("shares", settings, results, options)


if __name__ == "__main__":
    main()
