"""Tiny pipelines of the true classes with a LoRA, and batches for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from fairhuman.bases.base import Base, base_class
from fairhuman.data.samples.batch import Batch
from fairhuman.models.frozen_linear import freeze_linear_
from fairhuman.models.locations import name_of
from fairhuman.models.lora import LoraModel
from fairhuman.models.settings import BaseSettings, LoraSettings
from fairhuman.regions.settings import RegionSettings
from fairhuman.regions.transforms import ViewDraw
from fairhuman.train.settings import NoiseSettings
from fairhuman.train.step import NoiseDraw, Objectives

CAPTIONS = ["a woman in a red shirt", "", "a man waving with both hands, in a park, wearing a blue hat and gloves"]
HEIGHT, WIDTH = 64, 96  # sides that differ show what is swapped
# What the suite has to know of a base's pipeline that training doesn't.
UNGUIDED = {"z_image": 0.0}  # the guidance that is none; others: 1
TAKES_LATENTS = {
    "flux": "_pack_latents",
    "qwen_image": "_pack_latents",
    "flux2": "_patchify_latents",
}  # others: as they are
# Arguments of the network that sampling pads, with the one that masks the padding.
MASKED = {"lumina2": ("encoder_hidden_states", "encoder_attention_mask")}
VIDEO_VAES = ("qwen_image",)
WITHOUT = {"small_flow": {"text_encoder_3": None, "tokenizer_3": None}}  # what a plain pipeline must be told it lacks


@dataclass
class Case:
    """A base with a LoRA whose updates aren't zero, as training has it after a while."""

    name: str
    folder: Path
    model: LoraModel
    objectives: Objectives

    @cached_property
    def base(self) -> Base:
        return self.objectives.base

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the latents."""
        return HEIGHT // self.base.factor, WIDTH // self.base.factor

    @property
    def parameters(self) -> list[nn.Parameter]:
        return self.model.trainable_parameters()

    def losses(self, batch: Batch) -> list[Tensor]:
        """The losses of a step of one batch."""
        masks, draw = self.objectives.masks_and_noise(batch)
        losses, _ = self.objectives.losses(batch, masks, draw, self.base.channels * masks.sum(dim=(0, 2, 3)))
        return [loss for loss in losses if loss is not None]

    def gradients(self, batch: Batch) -> Tensor:
        """G^T [K, P], float64, by K ordinary backward passes."""
        losses = self.losses(batch)
        rows = [torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True) for loss in losses]
        return torch.stack([flat(row, self.parameters) for row in rows])

    def direction(self) -> Tensor:
        """What `.grad` holds [P], float64; it is cleared."""
        found = flat([parameter.grad for parameter in self.parameters], self.parameters)
        for parameter in self.parameters:
            parameter.grad = None
        return found


def flat(gradients: Iterable[Tensor | None], parameters: list[nn.Parameter]) -> Tensor:
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).double().reshape(-1) for g, p in pairs])


def make_case(
    name: str,
    folder: Path,
    gradient_checkpointing: bool = False,
    alpha: float | None = None,
    precision: torch.dtype | None = None,
    quantize: str = "none",
) -> Case:
    """Load a base and add a LoRA to its attention."""
    kind = base_class(name_of(str(folder)))
    settings = LoraSettings(rank=4, alpha=alpha)
    pipeline = kind.load(str(folder), precision or torch.float32).pipeline
    freeze_linear_(pipeline, BaseSettings(quantize=quantize))
    model = LoraModel(pipeline, settings, 0, gradient_checkpointing, (HEIGHT, WIDTH))
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return Case(name, folder, model, Objectives(model, RegionSettings(), NoiseSettings(), 0, precision))


def batch_of(*positions: int) -> Batch:
    """Smooth random pictures with a face and a hand; a sample is a function of its position."""
    pictures, masks = [], torch.zeros(len(positions), 2, HEIGHT, WIDTH)
    for row, position in enumerate(positions):
        coarse = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(position))
        pictures.append(nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear").clamp(-1, 1)[0])
        masks[row, 0, 8:24, 8 + 8 * position : 32 + 8 * position] = 1.0
        masks[row, 1, 40:52, 60 - 4 * position : 76 - 4 * position] = 1.0
    return Batch(
        pictures_bchw=torch.stack(pictures),
        masks_brhw=masks,
        known_br=torch.ones(len(positions), 2, dtype=torch.bool),
        captions=[CAPTIONS[position] for position in positions],
        time_ids_b6=torch.tensor([[64.0, 96.0, 0.0, 0.0, 64.0, 96.0]]).repeat(len(positions), 1),
        keys=[str(position) for position in positions],
        draws=[ViewDraw((HEIGHT, WIDTH), 0, 0, False)] * len(positions),
        positions_b=torch.tensor(positions),
    )


def for_vae(case: Case, pictures_bchw: Tensor) -> Tensor:
    """Pictures as the VAE takes them."""
    return pictures_bchw[:, :, None] if case.name in VIDEO_VAES else pictures_bchw


def for_pipeline(case: Case, latents_bchw: Tensor) -> Tensor:
    """Latents as the pipeline takes them."""
    packing = TAKES_LATENTS.get(case.name)
    shape = latents_bchw.shape if packing == "_pack_latents" else ()
    return latents_bchw if packing is None else getattr(case.base.pipeline, packing)(latents_bchw, *shape)


def draw_of(case: Case, batch: Batch) -> NoiseDraw:
    """The step's noise, but the latents' mean."""
    drawn = case.objectives._draw(batch, case.grid)
    return drawn._replace(encoding_bchw=torch.zeros_like(drawn.encoding_bchw))
