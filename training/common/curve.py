"""Compare how well models know pictures, whatever they predict, and how that grows over a run's core-hours.

    python training/common/curve.py --data runs/base/held-out --out runs/curve small runs/flow/base runs/flow/decay

A PLACE is a model, or a run's folder: of a run each kept checkpoint is measured, with the averaged weights if there
are any. Runs are given in the order in which they were trained; one that starts from the result of the run before it
adds to its core-hours. A run that had other work beside it is given its speed on idle cores (`--speed runs/unet=43`).
Writes `curve.json` and `curve.png`.

A noise prediction and a velocity have other errors, so both are converted into the picture that they mean: with noisy
latents z = a x + s e and a prediction p x + q e, x = (q z - s prediction) / (q a - s p). The error of a level is the
mean of (x - latents)^2 at equal log SNR, on the same noise. Levels are combined by the geometric mean: a model's share
of another's is then the same in errors of the picture, the noise and the velocity, which differ by a factor a level.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fairhuman import config
from fairhuman.bases.base import Base, base_of, evaluating
from fairhuman.bases.noising import Ddpm, Noising
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.models.sdxl import load_pipeline
from fairhuman.regions.settings import RegionSettings
from fairhuman.report.run_folder import read_json, read_metrics
from fairhuman.train.checkpoint import Checkpoints
from fairhuman.train.data import fixed_dataset
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import checkpoint_step
from fairhuman.utils.files import write_json

LOG_SNRS = (-4.0, -2.0, 0.0, 2.0, 4.0)


@dataclass(frozen=True)
class Point:
    """What was measured of one model.

    Attributes:
        place: a model, or a run's folder.
        step, pictures, core_hours: how far it was trained, this run's earlier ones included; None of a finished model.
        errors: mean squared error of the latents, by level.
    """

    place: str
    errors: tuple[float, ...]
    step: int | None = None
    pictures: int | None = None
    core_hours: float | None = None

    @property
    def error(self) -> float:
        """The geometric mean over the levels."""
        return float(np.exp(np.mean(np.log(self.errors))))


def level_at(noising: Noising, log_snr: float) -> Tensor:
    """Return the noise level with a log SNR: exact for flow matching, of a DDPM the timestep that is nearest."""
    if isinstance(noising, Ddpm):
        return (noising.log_snr(torch.arange(noising.steps)) - log_snr).abs().argmin()
    return torch.sigmoid(torch.tensor(-log_snr / 2))  # σ, with ((1 - σ) / σ)² the SNR


def clean(noising: Noising, noisy: Tensor, prediction: Tensor, level_1: Tensor) -> Tensor:
    """Return the latents that a prediction at a level [1] means, [B, C, h, w]; see above."""
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    a, s = noising.add(one, zero, level_1), noising.add(zero, one, level_1)
    p, q = noising.target(one, zero, level_1), noising.target(zero, one, level_1)
    return (q * noisy - s * prediction) / (q * a - s * p)


@torch.no_grad()
def errors_of(base: Base, batches: Sequence[Batch]) -> tuple[float, ...]:
    """Return the mean squared error of the latents at each of `LOG_SNRS`; noise is that of picture and level."""
    noising, sums, count = base.noising(), torch.zeros(len(LOG_SNRS), dtype=torch.float64), 0
    with evaluating(base.pipeline), torch.autocast("cpu", torch.bfloat16):
        for batch in batches:
            latents, _ = base.moments(batch.pictures_bchw)
            batch = replace(batch, texts=base.texts(batch.captions))
            for number, log_snr in enumerate(LOG_SNRS):
                noise = torch.stack([noise_of(position, number, latents[0].shape) for position in batch.positions_b])
                level_1 = level_at(noising, log_snr)[None]
                noisy = noising.add(latents, noise, level_1)
                prediction = base.prediction(batch, noisy, level_1.expand(len(latents)))
                found = clean(noising, noisy, prediction, level_1)
                sums[number] += (found - latents).square().sum().double()
            count += latents.numel()
    return tuple((sums / count).tolist())


def noise_of(position: Tensor, level: int, shape: Sequence[int]) -> Tensor:
    """Return the noise of a picture at a level."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(1000 * int(position) + level))


def held_out(data: Path, count: int, size: int) -> list[Batch]:
    """Return the first pictures of a data set as batches of 16."""
    records = read_source(data, (), SourceSettings(), LoadReport())[:count]
    settings = RegionSettings(names=())
    dataset = fixed_dataset(records, (size, size), settings, 0, SourceSettings().limits)
    return [
        collate([dataset[i] for i in range(start, min(start + 16, len(dataset)))])
        for start in range(0, len(dataset), 16)
    ]


def measure(
    places: Sequence[str], batches: Sequence[Batch], speeds: Mapping[str, float] = MappingProxyType({})
) -> Iterator[Point]:
    """Yield a point for each model and each checkpoint, as it is measured; `speeds`: of runs on idle cores."""
    spent: dict[str, tuple[int, int, float]] = {}  # by result: steps, pictures and core-hours
    for place in places:
        if not (Path(place) / "recipe.yaml").is_file():
            yield Point(place, errors_of(base_of(load_pipeline(place)), batches))
            continue
        recipe = config.load(TrainRecipe, Path(place) / "recipe.yaml")
        before = spent.get(str(Path(recipe.model).absolute()), (0, 0, 0.0))
        checkpoints = Checkpoints(Path(place) / "checkpoints", recipe.keep_checkpoints)
        model: Any = build_model(recipe, torch.device("cpu"))
        for folder in checkpoints.list():
            trainable, state = checkpoints.read(folder)
            model.load_trainable_state(trainable)
            if state["average"] is not None:
                averages = state["average"]["shadow_params"]
                for parameter, average in zip(model.trainable_parameters(), averages, strict=True):
                    parameter.data.copy_(average)
            steps, pictures, hours = spent_until(Path(place), checkpoint_step(folder), speeds.get(place))
            whole = before[0] + steps, before[1] + pictures, before[2] + hours
            spent[str((Path(place) / "model").absolute())] = whole
            yield Point(place, errors_of(base_of(model.pipeline), batches), *whole)


def spent_until(run: Path, step: int, speed: float | None) -> tuple[int, int, float]:
    """Return steps, pictures and core-hours of a run up to a step: a process has one core. `speed`: pictures a second
    instead of those that the run had.
    """
    metrics, processes = read_metrics(run), int(read_json(run / "summary.json").get("processes", 1))
    until = metrics.steps_n <= step
    images, rates = (metrics.columns[name][until] for name in ("images", "images_per_s"))
    seconds = np.diff(images, prepend=0.0) / (rates if speed is None else speed)
    return step, int(images[-1]), float(seconds.sum() * processes / 3600)


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw error over core-hours: a line a chain of runs, a dashed level a finished model."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for place in dict.fromkeys(point.place for point in points):
        own = [point for point in points if point.place == place]
        if own[0].core_hours is None:
            axes.axhline(own[0].error, linestyle="--", color="0.5")
            axes.annotate(place, (1, own[0].error), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        else:
            axes.plot([point.core_hours for point in own], [point.error for point in own], marker=".", label=place)
    axes.set(xlabel="core-hours", ylabel="error of the latents, geometric mean", yscale="log")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="PLACE", help="a model, or a run's folder")
    parser.add_argument("--data", type=Path, required=True, help="pictures that no model was trained on")
    parser.add_argument("--out", type=Path, required=True, help="folder for curve.json and curve.png")
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--size", type=int, default=128, help="pixels per side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speed", action="append", default=[], metavar="RUN=N", help="pictures a second on idle cores")
    args = parser.parse_args()
    speeds = {run: float(number) for run, _, number in (given.rpartition("=") for given in args.speed)}
    torch.set_num_threads(args.threads)
    batches, points = held_out(args.data, args.count, args.size), []
    for point in measure(args.places, batches, speeds):
        points.append(point)
        so_far = "" if point.core_hours is None else f" step {point.step}, {point.core_hours:.2f} core-hours"
        levels = " ".join(f"{error:.4f}" for error in point.errors)
        print(f"{point.place}{so_far}: {point.error:.4f} [{levels}]", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [{**vars(point), "error": point.error} for point in points]
    write_json(args.out / "curve.json", {"log_snrs": LOG_SNRS, "pictures": args.count, "points": rows})
    draw(points, args.out / "curve.png")


if __name__ == "__main__":
    main()
