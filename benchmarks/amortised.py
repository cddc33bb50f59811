"""Compare estimators of the Gram matrix: their cost, the accuracy of their directions, and where training ends.

    .venv/bin/python benchmarks/amortised.py [--quick] [--parts PART ...] [--photos FOLDER] [--work FOLDER]

- cost: forward and backward of a step, as a ratio of CPU time to the plain sum's, on SDXL-shaped U-Nets with a LoRA on
  all attention. "with audits" adds the exact steps in proportion.
- cosine: training by exact MPD on the small SDXL; at each step every estimator but `output` (see gains.py) gives its
  direction for the same batch, noise and weights, which is compared with the exact one by its cosine. Steps that an
  estimator takes exactly aren't counted. Each estimator has its own state and learns from its own audits alone. With
  --photos also on a folder of photos.
- variants: the same with large batches, with convolutions as targets, and with losses over the whole latent.
- distance: training with each estimator from the same start on the same batches; the distance of its final parameters
  to those of exact MPD, relative to the distance that exact MPD travelled.
- flow: cosines and distances of `output` and `ema` on the small flow base, as the others read a U-Net.

All with K = 3 (whole picture, faces, hands), area-normalised losses, one thread, float32. Each finished training run is
kept in the work folder; run the same command again to resume, or delete the folder to measure again.
"""

import argparse
import gc
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import arguments, compare, one_thread, save
from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch
from fairhuman.fairness import (
    EmaEstimator,
    Estimator,
    FairBackward,
    LinearScalarization,
    MinimumPotentialDelay,
    OutputEstimator,
    SplitEstimator,
    TailEstimator,
)
from fairhuman.fairness.estimators.cut import CutPoint
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.synth import run as synth
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.data import build_loader, load_data
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives, fair_step
from fairhuman.utils.files import write_json
from fairhuman.utils.shipped import SMALL_FLOW
from sdxl_shape import build_unet, three_losses

PARTS = ("cost", "cosine", "variants", "distance", "flow")
EVERY = {"output": 32, "split": 200, "tail": 200, "ema": 8}
TARGETS = {
    "output": {"cost": 1.05, "mean": 0.945, "p5": 0.83},
    "tail": {"cost": 1.40, "mean": 0.985, "p5": 0.95},
    "ema, batch 16": {"cost": 1.15, "mean": 0.97, "p5": 0.93},
    "split": {"cost": 1.12, "mean": 0.985, "p5": 0.94},
    "distance": 0.25,
}
STEPS, SEEDS = 300, (0, 1)


def estimators(model: TrainableModel) -> dict[str, Estimator]:
    """Return the estimators that the base has, with the settings that recipes use."""
    parameters = model.trainable_parameters()
    found: dict[str, Estimator] = {
        "output": OutputEstimator(parameters, EVERY["output"]),
        "ema": EmaEstimator(parameters, EVERY["ema"]),
    }
    unet = getattr(model.pipeline, "unet", None)
    if unet is None:
        return found
    found["tail"] = TailEstimator(unet, parameters, EVERY["tail"])
    try:
        found["split"] = SplitEstimator(unet, parameters, EVERY["split"])
    except ValueError as error:
        print(f"without split: {error}")
    return found


# --- cost ----------------------------------------------------------------------------------------------------------


def cost(quick: bool) -> dict[str, Any]:
    """Return ratios by network and batch size."""
    repeats = 2 if quick else 9
    found = {}
    for depths in ((1, 2, 4), (1, 2, 10)):
        for batch in (1, 4):
            name = f"depths {', '.join(map(str, depths))}, batch {batch}"
            found[name] = cost_of(build_unet(quick, depths), batch, repeats, quick)
            if quick:
                return found
    return found


def cost_of(unet: Any, batch: int, repeats: int, quick: bool) -> dict[str, Any]:
    """Return ratios of ordinary steps of each method; `compare` leaves out the first step, which is exact."""
    forward = three_losses(unet, quick, batch)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    never = 10**9
    last = len(unet.up_blocks) - 2  # the last up block has no attention
    attentions = len(unet.up_blocks[last].attentions)
    places = {
        "attention": CutPoint(last, attentions - 1),
        "two attentions": CutPoint(last, attentions - 2),
        "block": CutPoint(last),
        "two blocks": CutPoint(last - 1),
    }
    choices: dict[str, Estimator | None] = {
        "exact": None,
        "output": OutputEstimator(parameters, never, warm_up=1),
        **{
            f"tail from the last {name}": TailEstimator(unet, parameters, never, place=place)
            for name, place in places.items()
        },
        **{
            f"split from the last {name}": SplitEstimator(unet, parameters, never, place=place)
            for name, place in places.items()
        },
        "ema": EmaEstimator(parameters, never),
    }
    plain = FairBackward(parameters, LinearScalarization())
    ways: dict[str, Callable[[], object]] = {"plain": lambda: plain(forward()[0])}
    for name, estimator in choices.items():
        ways[name] = partial(take, FairBackward(parameters, MinimumPotentialDelay(), estimator=estimator), forward)

    def clear() -> None:
        for parameter in parameters:
            parameter.grad = None
        gc.collect()

    gc.disable()
    rows = compare(ways, "plain", repeats, clear)
    gc.enable()
    result: dict[str, Any] = {"parameters": sum(p.numel() for p in unet.parameters()), "ratio": {}, "with audits": {}}
    exact = rows["exact"]["ratio"]["median"]
    for name, row in rows.items():
        result["ratio"][name] = row["ratio"]
        if (every := EVERY.get(name.split(" ", maxsplit=1)[0])) is not None:
            result["with audits"][name] = row["ratio"]["median"] + (exact - row["ratio"]["median"]) / every
        print(f"  {name:32} {row['ratio']['min']:.3f} / {row['ratio']['median']:.3f} / {row['ratio']['max']:.3f}")
    return result


def take(fair: FairBackward, forward: Callable[[], tuple[list[Tensor], Any]]) -> None:
    losses, output = forward()
    fair(losses, output=output)


# --- training ------------------------------------------------------------------------------------------------------


def recipe_of(data: Path, seed: int, **values: Any) -> TrainRecipe:
    """Return the recipe of a run: the small SDXL with a LoRA of rank 16."""
    base = {
        "data": str(data),
        "out": str(data / "out"),  # nothing is written
        "seed": seed,
        "steps": STEPS,
        "batch_size": 4,
        "resolution": 128,
        "lora": {"rank": 16},
        "view": {"crop": "center"},
        "source": {"check": "header", "cache": False, "max_reject_share": 1.0},
        "validation": {"every": 0},
    }
    return config.build(TrainRecipe, config.merge(base, values))


def training(data: Path, seed: int, **values: Any) -> tuple[TrainableModel, Objectives, Iterator[Batch]]:
    """Return the parts of the run of `recipe_of`: the model, its losses, and its batches."""
    torch.manual_seed(seed)
    recipe = recipe_of(data, seed, **values)
    model = build_model(recipe, torch.device("cpu"))
    objectives = Objectives(model, recipe.regions, recipe.noise, recipe.seed, DTYPES[recipe.precision])
    batches = iter(build_loader(recipe, load_data(recipe, LoadReport()), 0, 1, 0))
    return model, objectives, batches


def adam(model: TrainableModel, learning_rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.trainable_parameters(), lr=learning_rate)


def take_steps(
    objectives: Objectives, fair: FairBackward, batches: Iterator[Batch], optimizer: torch.optim.Optimizer, steps: int
) -> None:
    """Train for `steps` batches."""
    for batch in islice(batches, steps):
        fair_step(objectives, fair, [batch])
        optimizer.step()
        optimizer.zero_grad()


def once(file: Path, measure: Callable[[], Any]) -> Any:
    """Return the content of `file` or, if missing, measure and save it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, measure())  # whole or not at all
    return json.loads(file.read_text(encoding="utf-8"))


def flat(tensors: list[Tensor | None]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors if tensor is not None]).double()


# --- cosine --------------------------------------------------------------------------------------------------------


def judge(data: Path, seed: int, steps: int, modes: Sequence[str], **values: Any) -> dict[str, Any]:
    """Return the cosines of estimators over a run of exact MPD."""
    model, objectives, batches = training(data, seed, **values)
    parameters = model.trainable_parameters()
    optimizer = adam(model)
    exact = FairBackward(parameters, MinimumPotentialDelay())
    judged = {
        name: FairBackward(parameters, MinimumPotentialDelay(), estimator=estimator)
        for name, estimator in estimators(model).items()
        if name in modes
    }
    judged["LS"] = FairBackward(parameters, LinearScalarization())
    cosines: dict[str, list[float]] = {name: [] for name in judged}
    for _ in range(steps):
        batch = next(batches)
        directions = {}
        for name, fair in {**judged, "exact": exact}.items():
            optimizer.zero_grad()
            step, _ = fair_step(objectives, fair, [batch])
            if name in ("LS", "exact") or not step.exact:
                directions[name] = flat([parameter.grad for parameter in parameters])
        for name, direction in directions.items():
            if name != "exact":
                cosines[name].append(float(torch.cosine_similarity(direction, directions["exact"], dim=0)))
        optimizer.step()  # the exact one came last
    found: dict[str, Any] = {name: summary(values) for name, values in cosines.items() if values}
    for name, fair in judged.items():
        if isinstance(fair.estimator, TailEstimator):
            found[f"{name}'s place"] = str(fair.estimator.place)
    return found


def summary(cosines: list[float]) -> dict[str, float]:
    """Return mean, 5th percentile and minimum."""
    values = torch.tensor(cosines, dtype=torch.float64)
    return {
        "steps": len(cosines),
        "mean": float(values.mean()),
        "p5": float(values.quantile(0.05)),
        "min": float(values.min()),
    }


Kind = tuple[Path, Mapping[str, Any], Sequence[str], Sequence[int]]  # data, settings, modes, seeds


def targeted(people: Path, photos: Path | None) -> dict[str, Kind]:
    """Return the kinds of run with targets: two seeds each, and one more run measured after the design was fixed.

    gains.py measures `output`.
    """
    modes = ("split", "tail", "ema")
    kinds = seen(people, photos, {}, modes)
    if photos is not None:
        kinds["photos, afterwards"] = (*kinds["photos"][:3], (2,))
    return kinds


def seen(people: Path, photos: Path | None, values: Mapping[str, Any], modes: Sequence[str]) -> dict[str, Kind]:
    """Return runs on people and, where they are given, on photos."""
    kinds: dict[str, Kind] = {"people": (people, values, modes, SEEDS)}
    if photos is not None:
        view = {"view": {"keep_region": 0.5, "crop": "random"}}
        kinds["photos"] = (photos, {**values, **view}, modes, SEEDS)
    return kinds


def flow(work: Path, people: Path, photos: Path | None, quick: bool) -> dict[str, Any]:
    """Return cosines and distances on the small flow base."""
    modes, values = ("output", "ema"), {"model": SMALL_FLOW, "lora": {"targets": "attention"}}
    kinds = {f"{SMALL_FLOW}, {kind}": runs for kind, runs in seen(people, photos, values, modes).items()}
    return {**cosine(work, kinds, quick), "distance": distance(work, people, quick, modes, **values)}


def variants(people: Path) -> dict[str, Kind]:
    """Return large batches with two seeds for `ema`, which is designed for them; each other variant with one seed."""
    return {
        "people, batch 16": (people, {"batch_size": 16}, ("ema",), SEEDS),
        "people, attention and convolutions": (
            people,
            {"lora": {"targets": "attention+conv"}},
            tuple(EVERY),
            SEEDS[:1],
        ),
        "people, losses over the whole latent": (people, {"regions": {"normalize": "image"}}, tuple(EVERY), SEEDS[:1]),
    }


def cosine(work: Path, kinds: Mapping[str, Kind], quick: bool) -> dict[str, Any]:
    """Return summaries by kind of run, seed and mode."""
    found: dict[str, Any] = {}
    for kind, (data, values, modes, seeds) in kinds.items():
        for seed in seeds[:1] if quick else seeds:
            if quick:
                values = {**values, "resolution": 64, "batch_size": 2}
            steps = 12 if quick else STEPS
            one = once(work / f"cosine, {kind}, seed {seed}.json", partial(judge, data, seed, steps, modes, **values))
            found.setdefault(kind, {})[f"seed {seed}"] = one
            print(f"{kind}, seed {seed}")
            for name, row in one.items():
                if isinstance(row, dict):
                    print(f"  {name:8} {row['mean']:.3f} / {row['p5']:.3f} / {row['min']:.3f}", flush=True)
    return found


# --- distance ------------------------------------------------------------------------------------------------------


def parameters_after(data: Path, seed: int, steps: int, mode: str, **values: Any) -> tuple[Tensor, Tensor]:
    """Return the trained parameters before and after a run."""
    model, objectives, batches = training(data, seed, **values)
    parameters = model.trainable_parameters()
    start = flat(list(parameters))
    strategy = LinearScalarization() if mode == "LS" else MinimumPotentialDelay()
    fair = FairBackward(parameters, strategy, estimator=estimators(model).get(mode))
    take_steps(objectives, fair, batches, adam(model), steps)
    return start, flat(list(parameters))


def distances(people: Path, seed: int, steps: int, modes: Sequence[str], **values: Any) -> dict[str, float]:
    """Return the distance to exact MPD's parameters by mode, relative to exact MPD's displacement."""
    start, exact = parameters_after(people, seed, steps, "exact", **values)
    found = {}
    for mode in (*modes, "LS"):
        _, ended = parameters_after(people, seed, steps, mode, **values)
        found[mode] = float((ended - exact).norm() / (exact - start).norm())
        print(f"seed {seed}: {mode} ends at {found[mode]:.3f} of exact MPD's displacement from it", flush=True)
    return found


def distance(
    work: Path, people: Path, quick: bool, modes: Sequence[str] = tuple(EVERY), **values: Any
) -> dict[str, Any]:
    """Return distances by mode and seed."""
    found: dict[str, Any] = {}
    kind = f"distance, {values['model']}" if "model" in values else "distance"
    for seed in SEEDS[:1] if quick else SEEDS:
        steps = 10 if quick else STEPS
        shares = once(work / f"{kind}, seed {seed}.json", partial(distances, people, seed, steps, modes, **values))
        for mode, share in shares.items():
            found.setdefault(mode, {})[f"seed {seed}"] = share
    for shares in found.values():
        shares["mean"] = statistics.mean(shares.values())
    return found


def work_folder(options: argparse.Namespace, name: str = "amortised") -> Path:
    """Return the folder for rendered people and finished runs of a benchmark."""
    folder: Path = options.work or Path("runs") / name
    return folder / ("quick" if options.quick else "full")


def render_people(folder: Path, quick: bool, count: int = 2000, seed: int = 41) -> None:
    """Render people; existing ones are kept."""
    settings = SynthSettings(count=16 if quick else count, size=64 if quick else 128, seed=seed)
    synth.render_people(folder, settings, ConsoleDisplay())


def main() -> None:
    options = arguments(
        __doc__,
        PARTS,
        photos="photos with boxes, for parts cosine and flow",
        work="where people are rendered and runs are kept (runs/amortised)",
    )
    one_thread()
    quick = options.quick
    work = work_folder(options)
    people = work / "people"
    if set(options.parts) != {"cost"}:
        render_people(people, quick)
    settings = {"every": EVERY, "steps": STEPS, "rank": 16, "batch": 4, "learning rate": 1e-3, "targets": TARGETS}
    for part in options.parts:
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "cost": partial(cost, quick),
            "cosine": partial(cosine, work, targeted(people, options.photos), quick),
            "variants": partial(cosine, work, variants(people), quick),
            "distance": partial(distance, work, people, quick),
            "flow": partial(flow, work, people, options.photos, quick),
        }
        save("amortised", settings, {part: ways[part]()}, options)


if __name__ == "__main__":
    main()
