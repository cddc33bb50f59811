"""The metrics of a step, one line of `metrics.jsonl`."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.fairness import FairStep, RateFloor, Strategy
from fairhuman.fairness.distributed import world_size
from fairhuman.regions.objectives import coverage
from fairhuman.regions.settings import GLOBAL
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.steering import Steering

Metrics = dict[str, float | int | bool | None]


def step_metrics(
    number: int,
    recipe: TrainRecipe,
    processes: int,
    step: FairStep,
    areas_k: Tensor,
    batches: Sequence[Batch],
    rate: float,
    times: tuple[float, float],
) -> Metrics:
    """Return a step's metrics, JSON-ready; None where there is no value.

    `areas_k`: means of the masks [K] over all latent cells of the step.
    `rate`: the learning rate of the step.
    `times`: seconds of the whole step, and of waiting for data; `waiting` is their ratio.
    loss/NAME: of each objective, and of the whole picture where it is split into bands.
    weight/NAME: w, scaled so that Σ |w_i| is the number of objectives that took part.
    cos/A-B: cosine of two objectives' gradients.
    share/NAME: ‖w_i g_i‖ / Σ_j ‖w_j g_j‖; rate/NAME: cosine of g_i and the direction. Both are estimated in steps that
    aren't exact, and None in steps without a Gram matrix.
    area/NAME: mean of the mask over pictures, without what is ignored.
    close_ups: share of samples that are close-ups; left out if the recipe has none.
    ignored: share of the pictures that counts for no objective; left out if nothing in the data is ignored.
    coverage/NAME, known/NAME: shares of samples with the region in view, and with it annotated.
    whole/NAME: share of the region's boxes in the pictures of the step that are whole in view; None without boxes.
    condition_known/NAME, condition_shown/NAME: shares of samples whose record has the condition, and of samples trained
    with it (not dropped).
    grad_norm: ‖Σ w_i g_i‖ before scaling to the set length.
    exact: whether the Gram matrix is that of the K gradients.
    audit_cosine: cosine of the estimated and the exact direction.
    peak_memory_mib, which the loop adds: peak so far of the GPU or, on a CPU, of the main process.
    """
    names, bands = recipe.objective_names, recipe.objectives.bands or 1
    samples = recipe.samples(processes)
    metrics: Metrics = {"images": number * samples, "images_per_s": samples / times[0], "waiting": times[1] / times[0]}
    total = float(step.weights.abs().sum())
    share = sum(step.present) / total if total > 0 else 0.0
    seen, whole = _seen(recipe, batches)
    if bands > 1:
        metrics[f"loss/{GLOBAL}"] = _finite(sum(loss for loss in step.losses[:bands] if loss is not None))
    for k, name in enumerate(names):
        metrics[f"loss/{name}"] = _finite(step.losses[k])
        metrics[f"weight/{name}"] = float(step.weights[k]) * share if step.present[k] else None
        if k >= bands:
            metrics[f"area/{name}"] = float(areas_k[k])
        for what, values in (("share", step.shares), ("rate", step.rates)):
            metrics[f"{what}/{name}"] = None if values is None else _finite(float(values[k]))
    cosines = step.cosines if step.exact else None
    for i, a in enumerate(names):
        for j in range(i + 1, len(names)):
            metrics[f"cos/{a}-{names[j]}"] = None if cosines is None else _finite(float(cosines[i, j]))
    metrics.update(seen)
    metrics.update(whole)
    metrics["lr"] = rate
    metrics["grad_norm"] = _finite(step.norm)
    metrics["exact"] = step.exact
    metrics["audit_cosine"] = _finite(step.cosine)
    metrics["skipped"] = step.skipped
    metrics["stationary"] = step.stationary
    return metrics


def floor_metrics(strategy: Strategy, step: FairStep, steering: Steering | None) -> Metrics:
    """Return what the floor for the whole picture's rate did in a step; nothing without a floor.

    floor: the least rate that was asked for.
    floor_turn: degrees by which the strategy's direction was turned; 0 if the floor held by itself.
    steer_change: change of the whole picture's held-out loss in percent, at the latest measurement of a steered run.
    """
    if not isinstance(strategy, RateFloor):
        return {}
    found: Metrics = {"floor": strategy.floor, "floor_turn": step.turned}
    return found if steering is None else {**found, "steer_change": _finite(100.0 * steering.change)}


def _seen(recipe: TrainRecipe, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, float | None]]:
    """Return the shares of samples, means over processes, and `whole/NAME`; they take one collective."""
    names = recipe.regions.names
    present = torch.cat([batch.present_br for batch in batches])
    known = torch.cat([batch.known_br for batch in batches])
    values = coverage(present, known, names)
    for name in batches[0].conditions:
        for what in ("known", "shown"):
            flags_b = torch.cat([getattr(batch, f"{what}_conditions")[name] for batch in batches])
            values[f"condition_{what}/{name}"] = float(flags_b.float().mean())
    if recipe.view.close_up:
        close = [batch.area_scale_b < 1.0 for batch in batches if batch.area_scale_b is not None]
        values["close_ups"] = float(sum(flags_b.sum() for flags_b in close)) / len(present)
    ignored = [batch.ignored_bhw for batch in batches if batch.ignored_bhw is not None]
    if ignored:
        values["ignored"] = float(torch.stack([ignored_bhw.mean() for ignored_bhw in ignored]).mean())
    counts_r2 = torch.cat([batch.whole_br2 for batch in batches]).sum(dim=0)
    if world_size() > 1:
        # counts are whole numbers far below 2^24, which float32 adds exactly
        sums = torch.cat([torch.tensor(list(values.values()), device=present.device), counts_r2.flatten().float()])
        dist.all_reduce(sums)
        means = sums[: len(values)] / world_size()
        counts_r2 = sums[len(values) :].view_as(counts_r2)
        values = dict(zip(values, means.tolist(), strict=True))
    pairs = zip(names, counts_r2.tolist(), strict=True)
    return values, {f"whole/{name}": whole / boxes if boxes else None for name, (boxes, whole) in pairs}


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None
