"""Held-out losses on the same pictures, crops, noise and timesteps at every evaluation, so that changes are paired."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairhuman.bases.base import evaluating
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.train.step import NoiseDraw, Objectives
from fairhuman.utils.randomness import Stream, seeded_generator


@dataclass(frozen=True)
class HeldOutLosses:
    """Errors Σ m_k e² and areas C Σ m_k of each held-out sample [n], summed over timesteps, by objective.

    The pooled loss, Σ error / Σ area, is the mean of e² over the region. It is always normalised by area and
    unweighted, independent of the run's loss, so that runs are comparable.
    """

    keys: list[str]
    errors: Mapping[str, list[float]]
    areas: Mapping[str, list[float]]

    def losses(self) -> dict[str, float | None]:
        """Return the pooled loss of each objective; None where no sample has the region."""
        totals = {name: sum(areas) for name, areas in self.areas.items()}
        return {name: sum(self.errors[name]) / total if total > 0 else None for name, total in totals.items()}

    def line(self) -> dict[str, object]:
        """Return the line of `validation.jsonl`, without the step."""
        objectives = {name: {"error": self.errors[name], "area": self.areas[name]} for name in self.errors}
        return {"keys": self.keys, "objectives": objectives}


@torch.no_grad()
def held_out_losses(
    objectives: Objectives,
    dataset: PeopleDataset,
    timesteps: Sequence[float],
    batch_size: int,
    device: torch.device,
    on_pass: Callable[[], object] = lambda: None,
) -> HeldOutLosses:
    """Evaluate all samples of `dataset` at each of `timesteps` (shares of the schedule, 0..1).

    `on_pass` is called before each pass of the network; an exception of its ends the evaluation.
    """
    names = objectives.regions.objectives
    keys: list[str] = [""] * len(dataset)
    sums_2nk = torch.zeros(2, len(dataset), len(names), dtype=torch.float64)
    with evaluating(objectives.model.pipeline):
        for positions in _alike(dataset, batch_size):
            batch = collate([dataset[i] for i in positions]).to(device)
            masks = objectives.masks(batch)
            errors_bk = torch.zeros(masks.shape[:2], dtype=torch.float64)
            batch, moments = objectives.encoded(batch)  # they are the same at each noise level
            for t, share in enumerate(timesteps):
                on_pass()
                draw = _noise_draw(objectives, batch, masks, t, share)
                squares_bhw = objectives.residual(batch, draw, moments).square().sum(dim=1)
                errors_bk += torch.einsum("bhw,bkhw->bk", squares_bhw, masks).double().cpu()
            channels = objectives.base.channels
            areas_bk = len(timesteps) * channels * masks.sum(dim=(2, 3)).double().cpu()
            sums_2nk[:, positions] = torch.stack([errors_bk, areas_bk])
            for position, key in zip(positions, batch.keys, strict=True):
                keys[position] = key
    errors_nk, areas_nk = sums_2nk
    return HeldOutLosses(
        keys,
        {name: errors_nk[:, k].tolist() for k, name in enumerate(names)},
        {name: areas_nk[:, k].tolist() for k, name in enumerate(names)},
    )


def _alike(dataset: PeopleDataset, most: int) -> Iterator[list[int]]:
    """Yield all positions in batches of one resolution, of up to `most`."""
    of_resolution: dict[tuple[int, int], list[int]] = {}
    for position in range(len(dataset)):
        of_resolution.setdefault(dataset.resolution(position), []).append(position)
    for positions in of_resolution.values():
        for start in range(0, len(positions), most):
            yield positions[start : start + most]


def _noise_draw(objectives: Objectives, batch: Batch, masks: Tensor, t: int, share: float) -> NoiseDraw:
    """Return noise seeded by (seed, sample, timestep); the latent is the mean of the encoding."""
    shape = (objectives.base.channels, *masks.shape[-2:])
    noises = [
        torch.randn(shape, generator=seeded_generator(objectives.seed, Stream.VALIDATION, position, t))
        for position in batch.positions_b.tolist()
    ]
    noise_bchw = torch.stack(noises).to(masks.device)
    levels_b = objectives.noising.at(share).to(masks.device).expand(len(noises))
    return NoiseDraw(torch.zeros_like(noise_bchw), noise_bchw, levels_b)
