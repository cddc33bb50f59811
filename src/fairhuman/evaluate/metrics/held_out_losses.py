"""Held-out denoising losses of models on the same noise: the cheapest sensitive metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fairhuman.bases.base import base_of, networks
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.sources import read_source
from fairhuman.errors import ModelError
from fairhuman.evaluate.settings import LossSettings
from fairhuman.generate.lora import load_lora
from fairhuman.models.locations import require_sdxl
from fairhuman.models.model import Model
from fairhuman.models.mole import load_mole
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.spec import ModelSpec, check_comparable
from fairhuman.models.streaming import forget
from fairhuman.regions.ignore import move_ignored
from fairhuman.stats.bootstrap import pooled_ratio, relative_change
from fairhuman.stats.estimate import Estimate
from fairhuman.stats.paired import holm, paired_difference
from fairhuman.train.data import fixed_dataset
from fairhuman.train.settings import NoiseSettings
from fairhuman.train.step import Objectives
from fairhuman.train.validation import HeldOutLosses, held_out_losses
from fairhuman.utils.files import write_json
from fairhuman.utils.torch_device import default_device, explain_out_of_memory, free_gpu_memory


@explain_out_of_memory("batch_size=1, precision=bf16, base.quantize=int8, or a lower resolution")
def measure_losses(models: Mapping[str, ModelSpec], data: Path, settings: LossSettings) -> dict[str, HeldOutLosses]:
    """Held-out errors of each model on the pictures of `data`, by name.

    Raises:
        DataError: the data can't be used.
        ModelError: a model, LoRA or MoLE can't be used, models are of different bases, or the device has too little
            memory.
        RecipeError: a weight is given for a MoLE.
    """
    check_comparable(models)
    regions = settings.regions
    records = read_source(data, regions.names, settings.source, LoadReport(), regions.ruled)[: settings.count]
    records = [move_ignored(record, regions.ignore) for record in records]
    size = (settings.resolution, settings.resolution)
    dataset = fixed_dataset(records, size, regions, settings.seed, settings.source.limits)
    device = default_device()
    found = {}
    for name, one in models.items():
        found[name] = _losses_of(one, dataset, settings, device)
        forget()
        free_gpu_memory()  # of this model, before the next one is loaded
    return found


def _losses_of(one: ModelSpec, dataset: PeopleDataset, settings: LossSettings, device: torch.device) -> HeldOutLosses:
    """Load a model and measure its errors; nothing of it stays in memory."""
    size = (settings.resolution, settings.resolution)
    precision = DTYPES[settings.precision]
    pipeline = load_pipeline(one.model, dtype=precision or torch.float32, base=settings.base)
    base = base_of(pipeline)
    grid = base.factor * base.patch
    if settings.resolution % grid:
        raise ModelError(f"resolution must be a multiple of {grid} for {one.model}, found {settings.resolution}")
    base.check_largest(size, "resolution")
    added = one.added_weights()
    if added is not None and added[1]:
        require_sdxl(one.model, "a MoLE")
        load_mole(pipeline.unet, added[0])
    elif added is not None:
        load_lora(pipeline, added[0], one.weight)
    for part in networks(pipeline):
        part.to(device)
    objectives = Objectives(Model(pipeline), settings.regions, NoiseSettings(), settings.seed, precision)
    return held_out_losses(objectives, dataset, settings.timesteps, settings.batch_size, device)


@dataclass(frozen=True)
class LossLine:
    """A model's loss for one objective.

    Attributes:
        model: name of the model.
        objective: name of the objective.
        loss: loss with its interval over pictures.
        change: relative change from the first model, paired by picture; None for the first model.
        p: two-sided p-value for exchangeability of both models within each picture, see `paired_difference`.
        p_holm: p after Holm's correction for all rows of the table.
    """

    model: str
    objective: str
    loss: Estimate
    change: Estimate | None = None
    p: float = math.nan
    p_holm: float = math.nan

    def plain(self) -> dict[str, Any]:
        """JSON representation; NaN becomes null."""
        tests = {name: None if math.isnan(p) else p for name, p in (("p", self.p), ("p_holm", self.p_holm))}
        change = self.change.plain() if self.change else None
        return {"model": self.model, "objective": self.objective, "loss": self.loss.plain(), "change": change, **tests}


def loss_table(found: Mapping[str, HeldOutLosses]) -> list[LossLine]:
    """Losses of all models, and their tested changes from the first model, paired by picture."""
    first = next(iter(found.values()))
    table = []
    for name, held_out in found.items():
        for objective in held_out.errors:
            own = _sums(held_out, objective)
            line = LossLine(name, objective, pooled_ratio(*own))
            if held_out is not first:
                reference = _sums(first, objective)
                change = relative_change(reference, own)
                p = paired_difference(own, reference, held_out.keys).p if math.isfinite(change.value) else math.nan
                line = replace(line, change=change, p=p)
            table.append(line)
    corrected = holm([line.p for line in table])
    return [replace(line, p_holm=p) for line, p in zip(table, corrected, strict=True)]


def write_losses(
    out: Path, settings: LossSettings, found: Mapping[str, HeldOutLosses], table: Sequence[LossLine]
) -> None:
    """Write settings, table, and the losses of every picture as JSON."""
    samples = {name: held_out.line() for name, held_out in found.items()}
    lines = [line.plain() for line in table]
    write_json(out, {"settings": settings.model_dump(mode="json"), "losses": lines, "samples": samples})


def _sums(held_out: HeldOutLosses, objective: str) -> tuple[Sequence[float], Sequence[float]]:
    return held_out.errors[objective], held_out.areas[objective]
