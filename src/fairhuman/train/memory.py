"""What a training run needs of a device's memory, from its shapes alone: nothing is loaded or computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from fairhuman import config
from fairhuman.data.samples.batch import Batch
from fairhuman.data.samples.conditions import CONDITIONS
from fairhuman.fairness.estimators.estimator import weighted_sum
from fairhuman.models.architecture import build_sdxl_shape, build_shape, cast
from fairhuman.models.control import ControlModel
from fairhuman.models.locations import SDXL, SMALL, SMALL_FOLDER, UNTRAINED
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import networks, vae_factor
from fairhuman.train.fairness import batched
from fairhuman.train.live_bytes import LiveBytes, bytes_of, fake_tensors
from fairhuman.train.model import make_trainable
from fairhuman.train.recipe import TrainRecipe

# Bytes of optimizer state a trained value.
STATE_BYTES: Mapping[str, int] = {"adam": 8, "adamw": 8, "adamw8bit": 2, "sgd": 4}
# Of PyTorch's own libraries and its allocator's gaps on a GPU: context 0.5 GiB, fragmentation some percent.
CONTEXT, GAPS = 2**29, 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, by what they hold.

    Attributes:
        frozen: weights that aren't trained.
        trained: float32 weights that are.
        optimizer: its state, and a moving average of the weights.
        encode: peak of pictures to latents, activations alone.
        step: peak of an ordinary step: activations, gradients, combinations of them.
        audit: peak of an exact step of an amortised mode; None where there is none.
        update: gradients, and what the optimizer makes for a moment.
    """

    frozen: int
    trained: int
    optimizer: int
    encode: int
    step: int
    audit: int | None
    update: int

    @property
    def total(self) -> int:
        """The peak of the whole run."""
        return self.frozen + self.trained + self.optimizer + max(self.encode, self.step, self.audit or 0, self.update)

    @property
    def needed(self) -> int:
        """What a GPU must have: the peak, PyTorch's context and gaps between blocks."""
        return int(self.total * (1 + GAPS)) + CONTEXT


def memory_of(recipe: TrainRecipe) -> Memory:
    """Compute what a run needs; model `sdxl` means SDXL base 1.0, without any file of it.

    All operations of a step are run on tensors that have shapes alone (`live_bytes`), K backward passes included; what
    is alive at a time is summed. Left out: cuDNN's workspaces, data in flight, previews.

    Raises:
        OSError: the model's configurations can't be read.
    """
    dtype = DTYPES[recipe.precision] if recipe.kind != "full" else None
    pipeline = _shape(recipe.model)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        cast(part, dtype or torch.float32)
    with torch.device("meta"):
        model = make_trainable(recipe, pipeline)
    changing = {id(parameter) for parameter in model.trainable_parameters()}
    frozen = bytes_of(p for whole in _networks(model) for p in whole.parameters() if id(p) not in changing)
    trained = sum(4 * p.numel() for p in model.trainable_parameters())
    optimizer = STATE_BYTES[recipe.optimizer.name] * trained // 4 + (trained if recipe.ema.decay else 0)
    if recipe.optimizer.name == "sgd" and recipe.optimizer.momentum == 0.0:
        optimizer = 0
    encode, step, *audits = _peaks(recipe, model, [False, True] if recipe.amortised else [True])
    return Memory(frozen, trained, optimizer, encode, step, next(iter(audits), None), update=2 * trained)


def _shape(model: str) -> StableDiffusionXLPipeline:
    if model == SDXL:
        return build_sdxl_shape()
    return build_shape(str(SMALL_FOLDER) if model in (SMALL, UNTRAINED) else model)


def _networks(model: TrainableModel) -> list[nn.Module]:
    """All modules with weights."""
    return [*networks(model.pipeline), *([model.control.network] if isinstance(model, ControlModel) else [])]


def _peaks(recipe: TrainRecipe, model: TrainableModel, steps: Sequence[bool]) -> list[int]:
    """Peaks of encoding pictures and of steps, exact (True) or ordinary, beyond the weights."""
    pipeline = model.pipeline
    batch, channels, factor = recipe.batch_size, pipeline.vae.config.latent_channels, vae_factor(pipeline.vae)
    height, width = recipe.sizes[0]
    precision = DTYPES[recipe.precision]
    autocast = torch.autocast("cpu", precision, enabled=precision is not None)
    with fake_tensors(*_networks(model)):
        known = [p for whole in _networks(model) for p in whole.parameters()]
        parameters = [p for p in known if p.requires_grad]
        pictures = torch.empty(batch, 3, height, width)
        with LiveBytes(known) as live, torch.no_grad():
            pipeline.vae.encode(pictures)
        peaks = [live.peak]
        masks_kbhw = torch.empty(len(recipe.regions.objectives), batch, height // factor, width // factor)
        for exact in steps:
            with LiveBytes(known) as live:
                noisy = torch.empty(batch, channels, height // factor, width // factor)
                with autocast:
                    prediction = model.predict(_batch(recipe, pictures), noisy, torch.empty(batch))
                squares_bhw = (prediction.float() - noisy).square().sum(dim=1)
                _backward(recipe, [(squares_bhw * mask).sum() for mask in masks_kbhw], parameters, exact)
            peaks.append(live.peak)
    return peaks


def _batch(recipe: TrainRecipe, pictures: Tensor) -> Batch:
    count = len(pictures)
    masks = torch.empty(count, len(recipe.regions.names), *pictures.shape[2:])
    names = recipe.control.conditions if recipe.control is not None else ()
    conditions: dict[str, Tensor] = {name: torch.empty(count, CONDITIONS[name], *pictures.shape[2:]) for name in names}
    captions = ["a person"] * count
    return Batch(
        pictures, masks, masks[:, :, 0, 0], captions, torch.empty(count, 6), [], [], torch.empty(count), conditions
    )


def _backward(recipe: TrainRecipe, losses: list[Tensor], parameters: list[nn.Parameter], exact: bool) -> None:
    """Do what the estimators of `fairness` do with the graph, where values don't matter."""
    if not (exact and recipe.balances):
        total = weighted_sum(losses, [1.0] * len(losses))
        assert total is not None
        torch.autograd.grad(total, parameters, allow_unused=True)
    elif recipe.fairness.pairwise:
        rows = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses[:2]]
        del rows
    elif batched(recipe):
        seeds = torch.eye(len(losses))
        torch.autograd.grad(torch.stack(losses), parameters, seeds, is_grads_batched=True, allow_unused=True)
    else:
        rows = []
        for number, loss in enumerate(losses, start=1):
            rows.append(torch.autograd.grad(loss, parameters, retain_graph=number < len(losses), allow_unused=True))


# --- advice --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """Settings to change, and what the run needs then."""

    overrides: tuple[str, ...]
    memory: Memory

    def __str__(self) -> str:
        """As on the command line, with what it needs."""
        return f"{' '.join(self.overrides)} ({self.memory.needed / 2**30:.1f} GiB)"


def cheapest_changes(recipe: TrainRecipe, limit: int, most: int = 3) -> list[MemoryChange]:
    """Return changes with which a run fits into `limit` bytes, the cheapest in time first.

    Single changes; where fewer than `most` of them are enough, also the first changes together that are.
    """
    options = list(_options(recipe))
    together = [tuple(chain(*options[:count])) for count in range(2, len(options) + 1)]
    fitting: list[MemoryChange] = []
    for overrides in (*options, *together):
        change = MemoryChange(overrides, memory_of(_changed(recipe, overrides)))
        if change.memory.needed <= limit:
            fitting.append(change)
        if len(fitting) == most or (fitting and overrides in together):
            break
    return fitting


def _options(recipe: TrainRecipe) -> Iterable[tuple[str, ...]]:
    """Yield changes that save memory and cost little, from the cheapest to the dearest."""
    if recipe.balances and recipe.accumulate == 1 and not recipe.fairness.pairwise:
        mode = () if recipe.fairness.mode in ("output", "ema") else ("fairness.mode=output",)
        yield *mode, "fairness.pairwise=true"  # audits hold two gradients, ordinary steps one
    if recipe.precision == "fp32":
        yield ("precision=bf16",)
    if recipe.optimizer.name in ("adam", "adamw"):
        yield ("optimizer.name=adamw8bit",)
    if not recipe.gradient_checkpointing:
        yield ("gradient_checkpointing=true",)
    if recipe.kind == "lora" and recipe.lora.rank > 1:
        yield (f"lora.rank={recipe.lora.rank // 2}",)
    if recipe.batch_size > 1:
        # Pairs of gradients need one graph, and there are several then.
        yield "batch_size=1", f"accumulate={recipe.batch_size * recipe.accumulate}", "fairness.pairwise=false"


def _changed(recipe: TrainRecipe, overrides: Sequence[str]) -> TrainRecipe:
    return config.build(TrainRecipe, recipe.model_dump(mode="json"), overrides)
