"""Estimate a training run's device memory from tensor shapes alone; nothing is loaded or computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman import config
from fairhuman.bases.base import Base, base_class, base_of, networks
from fairhuman.bases.latents import cast, ready
from fairhuman.bases.sdxl import SDXL as SDXL_BASE
from fairhuman.data.samples.batch import Batch
from fairhuman.fairness.estimators.estimator import differentiate, weighted_sum
from fairhuman.models.architecture import build_meta, build_sdxl_shape, build_shape
from fairhuman.models.checkpoint_file import read_checkpoint
from fairhuman.models.control import ControlModel
from fairhuman.models.frozen_linear import offloaded, product_bytes
from fairhuman.models.locations import SDXL, check_location, fetch_configurations, is_file, location_of, name_of
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.record import CONDITIONS
from fairhuman.train.bases import check_settings
from fairhuman.train.fairness import batched
from fairhuman.train.live_bytes import LiveBytes, bytes_of, fake_tensors
from fairhuman.train.model import make_trainable, networks_of_step, prepare
from fairhuman.train.recipe import TrainRecipe

# Bytes of optimizer state per trained parameter.
STATE_BYTES: Mapping[str, int] = {"adam": 8, "adamw": 8, "adamw8bit": 2, "sgd": 4}
# Overhead on a GPU: PyTorch's context in bytes, and the allocator's fragmentation as a share.
CONTEXT, GAPS = 2**29, 0.05
QUANTIZE = ("none", "int8", "nf4")  # fp8 has as many bits as int8, and loses more
# Settings that neither a model's shape nor a peak depends on, beyond what the kind of step says; a new setting counts
# until it stands here.
OUTSIDE_PEAKS = {
    *("data", "build", "out", "seed", "steps", "accumulate", "learning_rate", "subject", "strategy", "fairness"),
    *("checkpoint_every", "keep_checkpoints", "source", "cache", "view", "noise", "optimizer", "schedule", "ema"),
    *("validation", "preview", "track"),
}
_PEAKS: dict[tuple[object, ...], int] = {}
_TEXTS, _INT8, _OFFLOAD = ("cache.text=true",), ("base.quantize=int8",), ("base.offload=true",)
# What is computed: "encode", "texts", "preview", "sample", "decode", an exact step (batched, pairwise, type of the
# gradients), or None, an ordinary one.
Way = str | tuple[bool, bool, str] | None
# Main memory of the program itself: resident once `fairhuman train` has imported everything (torch 2.14, Linux).
PROGRAM = int(0.86 * 2**30)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a run in bytes, by use.

    Attributes:
        frozen: weights that aren't trained, without what is offloaded.
        trained: trained weights, float32.
        optimizer: optimizer state and the moving average of the weights.
        encode: peak of activations while encoding pictures to latents.
        step: peak of an ordinary step: activations, gradients and their combinations.
        audit: peak of an amortised mode's exact step, or of a loss weighting's step that logs a Gram matrix
            (`fairness.measure_every`); None if there is none.
        update: gradients and temporary tensors of the optimizer.
        resting: of `frozen`, the text encoders, which are on the device only while texts are encoded, before the first
            step, if texts are cached; None if they aren't cached.
        vae: of `frozen`, the VAE, which is on the device only before the first step and while previews are decoded, if
            latents are cached; None if they aren't cached.
        aside: of all weights, those of the network, which are in main memory meanwhile; for previews, if the device has
            no room for both.
        texts: peak of activations while encoding a caption.
        preview, decode: peaks of denoising previews, and of decoding one; None if there are none.
        offloaded: weights that stay in main memory.
    """

    frozen: int
    trained: int
    optimizer: int
    encode: int = 0
    step: int = 0
    audit: int | None = None
    update: int = 0
    resting: int | None = None
    vae: int | None = None
    aside: int = 0
    texts: int = 0
    preview: int | None = None
    decode: int | None = None
    offloaded: int = 0

    @property
    def total(self) -> int:
        """The peak of the whole run on a GPU."""
        weights, resting, vae = self.frozen + self.trained, self.resting or 0, self.vae or 0
        beside, apart = (self.encode, 0) if self.vae is None else (0, self.encode)
        steps = weights - resting - vae + max(beside, self._step)
        texts = (weights if self.resting is None else weights - self.aside - vae) + self.texts
        pictures = weights - resting - self.aside + max(apart, self.decode or 0)
        return self.optimizer + max(steps, texts, pictures)

    @property
    def _step(self) -> int:
        return max(self.step, self.audit or 0, self.update, self.preview or 0)

    @property
    def needed(self) -> int:
        """The memory that a GPU must have: the peak, PyTorch's context and fragmentation."""
        return int(self.total * (1 + GAPS)) + CONTEXT

    @property
    def on_cpu(self) -> int:
        """The main memory that a process without a GPU needs: the peak, and the program itself."""
        most = max(self._step, self.encode, self.texts, self.decode or 0)
        return self.frozen + self.offloaded + self.trained + self.optimizer + most + PROGRAM


def memory_of(recipe: TrainRecipe, models: "ShapeModels | None" = None) -> Memory:
    """Compute a run's memory; model `sdxl` and hub ids mean SDXL base 1.0's shape, for which no file is needed.

    All operations of a step, including the K backward passes, run on tensors without memory (`live_bytes`), and the
    sizes of live tensors are summed. Not included: cuDNN's workspaces, prefetched data.

    Args:
        recipe: of the run.
        models: of the recipes before it, if it is one of several that have most in common.

    Raises:
        ModelError: nothing found at the model's location, or no base that can be trained.
        OSError: the model's configurations can't be read.
        RecipeError: a setting isn't for the base.
    """
    weights, one, recipe, model = _prepared(recipe, models or ShapeModels())
    previews = recipe.preview.count > 0 or bool(recipe.preview.prompts)
    also_exact = recipe.amortised or _measures(recipe)
    peaks = _peaks(recipe, model, [False, True] if also_exact else [recipe.needs_gram], "preview" if previews else None)
    return replace(
        weights,
        encode=peaks["encode"],
        step=peaks["step"] + one,
        audit=peaks["audit"] + one if "audit" in peaks else None,
        update=2 * weights.trained,
        texts=peaks["texts"] + one,
        preview=peaks["preview"] + one if "preview" in peaks else None,
        decode=peaks.get("decode"),
    )


def sampling_memory(recipe: TrainRecipe) -> Memory:
    """Compute the memory of drawing `batch_size` pictures at once, by a recipe's model and LoRA; else as `memory_of`.

    The LoRA runs beside the network, in its type. To decode a picture the network leaves a GPU that is too small.
    """
    weights, one, recipe, model = _prepared(recipe, ShapeModels())
    peaks = _peaks(recipe, model, [], "sample")
    lora = weights.trained * (DTYPES[recipe.precision] or torch.float32).itemsize // 4
    return Memory(
        frozen=weights.frozen + lora,
        trained=0,
        optimizer=0,
        aside=weights.aside - weights.trained + lora,
        offloaded=weights.offloaded,
        texts=peaks["texts"] + one,
        preview=peaks["preview"] + one,
        decode=peaks["decode"],
    )


def _prepared(recipe: TrainRecipe, models: "ShapeModels") -> tuple[Memory, int, TrainRecipe, TrainableModel]:
    """Return the bytes of a run's weights and of one product, and recipe and model to compute the peaks of.

    Quantised and offloaded or not, a pass makes the same tensors, but for one whole weight at a time.
    """
    model = models(recipe)
    weights, one = _weight_bytes(recipe, model), product_bytes(model.pipeline, DTYPES[recipe.precision])
    if recipe.base != recipe.base.whole:
        recipe = recipe.model_copy(update={"base": recipe.base.whole})
        model = models(recipe)
    return weights, one, recipe, model


def _measures(recipe: TrainRecipe) -> bool:
    """Whether some steps of a loss weighting hold K gradients, as they log the Gram matrix."""
    several = len(recipe.objective_names) > 1
    return several and not recipe.needs_gram and recipe.fairness.measure_every > 0


def weight_bytes(recipe: TrainRecipe) -> Memory:
    """As `memory_of`, but of the weights alone, which takes a second: all peaks are 0."""
    return _weight_bytes(recipe, ShapeModels()(recipe))


def _without_weights(recipe: TrainRecipe) -> TrainableModel:
    """Return the run's model in shape, on `meta`."""
    dtype = DTYPES[recipe.precision] if recipe.kind != "full" else None
    pipeline = shape_of(recipe.model)
    for part in networks(pipeline):
        if part is not pipeline.vae:
            cast(part, dtype or torch.float32)
    with torch.device("meta"):
        return make_trainable(recipe, pipeline, prepare(recipe, pipeline))


class ShapeModels:
    """Models in shape, of which the last two are kept: many changes of a recipe leave its model as it is."""

    def __init__(self) -> None:
        self._kept: dict[str, TrainableModel] = {}

    def __call__(self, recipe: TrainRecipe) -> TrainableModel:
        """Return a run's model in shape, on `meta`."""
        check_settings(recipe)
        key = recipe.model_dump_json(exclude=OUTSIDE_PEAKS)
        model = self._kept.pop(key, None) or _without_weights(recipe)
        self._kept = dict([*self._kept.items(), (key, model)][-2:])
        return model


def _weight_bytes(recipe: TrainRecipe, model: TrainableModel) -> Memory:
    changing = {id(parameter) for parameter in model.trainable_parameters()}
    away = offloaded(_networks(model))
    ids = {id(weight) for weight in away}

    def on_device(parts: Iterable[nn.Module]) -> list[nn.Parameter]:
        return [p for part in parts for p in part.parameters() if id(p) not in ids]

    frozen = bytes_of(p for p in on_device(_networks(model)) if id(p) not in changing)
    aside = bytes_of(on_device(networks_of_step(model)))
    trained = sum(4 * p.numel() for p in model.trainable_parameters())
    optimizer = STATE_BYTES[recipe.optimizer.name] * trained // 4 + (trained if recipe.ema.decay else 0)
    if recipe.optimizer.name == "sgd" and recipe.optimizer.momentum == 0.0:
        optimizer = 0
    base, cache = base_of(model.pipeline), recipe.cache
    texts = bytes_of(on_device(base.text_encoders)) if cache.text else None
    vae = bytes_of(base.vae.parameters()) if cache.latents else None
    return Memory(frozen, trained, optimizer, resting=texts, vae=vae, aside=aside, offloaded=bytes_of(away))


def shape_of(model: str) -> Any:
    """Return a model's networks without weights; `sdxl` and hub ids of SDXL are SDXL base 1.0 in shape.

    Raises:
        ModelError: nothing found at the model's location, or no base that can be trained.
        OSError: the model's configurations can't be read.
    """
    if model == SDXL:
        return build_sdxl_shape()
    if (name := name_of(model)).flow:
        fetch_configurations(model)
        return base_class(name).shape(location_of(model)).pipeline
    if not Path(model).is_dir():  # a folder needs no more than configurations
        check_location(model, own_vae=True)
    if is_file(model):
        return build_meta(read_checkpoint(Path(model), model, own_vae=True).architecture)
    # a hub id: of SDXL's shape, as `encoded_size` has it, so that no file is needed
    return build_shape(location_of(model)) if Path(location_of(model)).exists() else build_sdxl_shape()


def _networks(model: TrainableModel) -> list[nn.Module]:
    """Return all modules with weights."""
    return [*networks(model.pipeline), *([model.control.network] if isinstance(model, ControlModel) else [])]


def _peaks(recipe: TrainRecipe, model: TrainableModel, steps: Sequence[bool], drawn: str | None) -> dict[str, int]:
    """Return the peaks of encoding, of each of `steps`, exact (True) or ordinary, and of what is drawn, if anything.

    They are without the weights, and named as in `Memory`; of two steps the second is the audit. A process computes
    each peak once: many changes of a recipe leave most of its peaks as they are.
    """
    weights = bytes_of(p for whole in _networks(model) for p in whole.parameters())
    whole = recipe.model_dump_json(exclude=OUTSIDE_PEAKS), weights
    vae = recipe.model, recipe.base.vae, recipe.batch_size, recipe.size
    ways: dict[str, Way] = {"encode": "encode", "texts": "texts"}
    exact_way = batched(recipe), recipe.fairness.pairwise, recipe.fairness.gradients
    for name, exact in zip(("step", "audit"), steps, strict=False):
        ways[name] = exact_way if exact else None
    if drawn is not None:
        ways |= {"preview": drawn, "decode": "decode"}
    sums = recipe.accumulate > 1
    keys = {
        name: (*(vae if way in ("encode", "decode") else whole), way, sums and not isinstance(way, str))
        for name, way in ways.items()
    }
    if not _PEAKS.keys() >= set(keys.values()):
        with fake_tensors(*_networks(model)):
            pictures = torch.empty(recipe.batch_size, 3, *recipe.size)  # no bucket has a larger area
            for name, key in keys.items():
                if key not in _PEAKS:
                    _PEAKS[key] = _peak(recipe, model, pictures, ways[name])
    return {name: _PEAKS[key] for name, key in keys.items()}


def _peak(recipe: TrainRecipe, model: TrainableModel, pictures: Tensor, way: Way) -> int:
    """Return the peak of one way."""
    base, precision = base_of(model.pipeline), DTYPES[recipe.precision]
    latent_hw = pictures.shape[2] // base.factor, pictures.shape[3] // base.factor
    if way in ("preview", "sample"):  # guidance takes two predictions; SDXL draws previews four at once
        at_once = 1 if name_of(recipe.model).flow else 4 if way == "preview" else recipe.batch_size
        pictures = torch.empty(2 * at_once, *pictures.shape[1:])
    masks_kbhw = torch.empty(len(recipe.objective_names), len(pictures), *latent_hw)
    known = [p for whole in _networks(model) for p in whole.parameters()]
    live = LiveBytes(known)
    with live, torch.set_grad_enabled(not isinstance(way, str)):
        if way in ("encode", "decode"):
            latents_1chw = torch.empty(1, base.channels, *latent_hw)
            ready(base.vae)
            work, given = (base.vae.encode, pictures) if way == "encode" else (base.vae.decode, latents_1chw)
            work(given if base.vae.config.get("z_dim") is None else given[:, :, None])
            return live.peak
        if way == "texts":
            _read(base, precision)
            return live.peak
        parameters = [p for p in known if p.requires_grad]
        sums = [] if isinstance(way, str) else _sums_before(recipe, parameters, exact=way is not None)
        noisy = torch.empty(len(pictures), base.channels, *latent_hw)
        with torch.autocast("cpu", precision, enabled=precision is not None):
            prediction = model.predict(_batch(recipe, base, pictures), noisy, torch.empty(len(pictures)))
        if way in ("preview", "sample"):
            return live.peak
        squares_bhw = (prediction.float() - noisy).square().sum(dim=1)
        losses = [(squares_bhw * mask).sum() for mask in masks_kbhw]
        _backward(recipe, losses, parameters, exact=way is not None, first=not sums)
    return live.peak


def _read(base: Base, precision: torch.dtype | None) -> None:
    """Encode the longest caption, by one text encoder after the other.

    A pipeline that drops a template's tokens copies the others and stacks them.
    """
    for encoder in base.text_encoders:
        most = base.encoded or base.longest
        tokens = min(most, getattr(encoder.config, "max_position_embeddings", most))
        with torch.autocast("cpu", precision, enabled=precision is not None):
            read = encoder(torch.zeros(1, tokens, dtype=torch.int64), output_hidden_states=True)
        if base.encoded is not None:
            torch.stack([read.hidden_states[-1].clone()])


def _batch(recipe: TrainRecipe, base: Base, pictures: Tensor) -> Batch:
    count, texts = len(pictures), None
    if not isinstance(base, SDXL_BASE):  # the texts of some bases have a length that depends on the caption
        shapes = base.text_shapes(base.network.config)
        texts = [{name: torch.empty(shape) for name, shape in shapes.items()}] * count
    masks = torch.empty(count, len(recipe.regions.names), *pictures.shape[2:])
    names = recipe.control.conditions if recipe.control is not None else ()
    conditions: dict[str, Tensor] = {name: torch.empty(count, CONDITIONS[name], *pictures.shape[2:]) for name in names}
    captions = ["a person"] * count
    ids, positions = torch.empty(count, 6), torch.empty(count)
    return Batch(pictures, masks, masks[:, :, 0, 0], captions, ids, [], [], positions, conditions, texts=texts)


def _sums_before(recipe: TrainRecipe, parameters: list[nn.Parameter], exact: bool) -> list[list[Tensor]]:
    """The sums of gradients that a step holds from its second micro-batch on, if it has one."""
    count = 0 if recipe.accumulate == 1 else len(recipe.objective_names) if exact else 1
    return [[torch.empty_like(p) for p in parameters] for _ in range(count)]


def _backward(
    recipe: TrainRecipe, losses: list[Tensor], parameters: list[nn.Parameter], exact: bool, first: bool
) -> None:
    """Run the backward passes that the estimators of `fairness` run, of a step's first micro-batch or a later one."""
    if not exact:
        total = weighted_sum(losses, [1.0] * len(losses))
        assert total is not None
        torch.autograd.grad(total, parameters, allow_unused=True)
    elif recipe.fairness.pairwise:
        rows = [_gradient(recipe, loss, parameters, keep=True) for loss in losses[:2]]
        del rows
    elif batched(recipe):
        seeds = torch.eye(len(losses))
        torch.autograd.grad(torch.stack(losses), parameters, seeds, is_grads_batched=True, allow_unused=True)
    else:
        rows = []
        for number, loss in enumerate(losses, start=1):
            gradient = _gradient(recipe, loss, parameters, keep=number < len(losses))
            if first:
                rows.append(gradient)
            del gradient  # a later one is added to its sum


def _gradient(recipe: TrainRecipe, loss: Tensor, parameters: list[nn.Parameter], keep: bool) -> Sequence[Tensor | None]:
    if (kept := DTYPES[recipe.fairness.gradients]) is not None:
        return differentiate(loss, parameters, keep, kept)
    return torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)


# --- advice --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """Overrides, and the run's memory with them; `cpu`: without a GPU."""

    overrides: tuple[str, ...]
    memory: Memory
    cpu: bool = False

    @property
    def needed(self) -> int:
        """Bytes that the device must have, or main memory."""
        return self.memory.on_cpu if self.cpu else self.memory.needed

    def __str__(self) -> str:
        """Return the overrides as on the command line, with the memory needed."""
        return f"{' '.join(self.overrides)} ({self.needed / 2**30:.1f} GiB)"


def cheapest_changes(recipe: TrainRecipe, limit: int, most: int = 3, cpu: bool = False) -> list[MemoryChange]:
    """Return up to `most` changes that make a run fit into `limit` bytes, the cheapest in time first.

    Single changes first; if fewer than `most` suffice, also the cheapest combination that does. `cpu`: the run has no
    GPU, and the bytes are those of main memory.
    """
    fitting: list[MemoryChange] = []
    models = ShapeModels()
    for option in _options(recipe, cpu):
        change = _change(recipe, [option], cpu, models)
        if change.needed <= limit:
            fitting.append(change)
        if len(fitting) == most:
            return fitting
    together = combined_changes(recipe, limit, cpu)
    return fitting if together is None or together in fitting else [*fitting, together]


def combined_changes(recipe: TrainRecipe, limit: int, cpu: bool = False) -> MemoryChange | None:
    """Return the changes that make a run fit into `limit` bytes at the least cost in time, none if it fits; else None.

    As many as are needed, the cheapest first; then those that aren't needed after all are left out, the dearest first.
    """
    options, models = list(_options(recipe, cpu)), ShapeModels()
    for count in range(len(options) + 1):
        found = _change(recipe, options[:count], cpu, models)
        if found.needed <= limit:
            break
    else:
        return None
    chosen = options[:count]
    for option in chosen[-2::-1]:
        if option in (_TEXTS, _INT8) and _OFFLOAD in chosen:
            continue  # otherwise the text encoders would be copied to the device at every step, or twice the bytes
        fewer = [one for one in chosen if one is not option]
        change = _change(recipe, fewer, cpu, models)
        if change.needed <= limit:
            chosen, found = fewer, change
    return found


def _change(recipe: TrainRecipe, options: Iterable[tuple[str, ...]], cpu: bool, models: ShapeModels) -> MemoryChange:
    """Return the memory of a run with options; of two for one setting the later one counts."""
    overrides = tuple({text.partition("=")[0]: text for text in chain(*options)}.values())
    return MemoryChange(overrides, memory_of(_changed(recipe, overrides), models), cpu)


def _options(recipe: TrainRecipe, cpu: bool) -> Iterable[tuple[str, ...]]:
    """Yield changes that save memory, from the cheapest in time to the most expensive."""
    if _measures(recipe):
        yield ("fairness.measure_every=0",)  # which saves time, too
    if not cpu and not recipe.cache.text and not (recipe.kind == "full" and recipe.full.text_encoders):
        yield _TEXTS  # the text encoders rest in main memory
    view, latents = recipe.view, not cpu and not recipe.cache.latents and not recipe.view.close_up
    if latents and view.same_crop:
        yield ("cache.latents=true",)  # the VAE rests, and encodes pictures before the first step
    reducible = recipe.needs_gram and recipe.accumulate == 1  # exact steps can hold less
    several = reducible and len(recipe.objective_names) > 1
    if several and recipe.fairness.gradients == "fp32":
        yield ("fairness.gradients=bf16",)  # as many backward passes
    if reducible and not recipe.fairness.pairwise:
        mode = () if recipe.fairness.mode in ("output", "ema") else ("fairness.mode=output",)
        yield *mode, "fairness.pairwise=true"  # audits hold two gradients, ordinary steps one
    if recipe.precision == "fp32":
        yield ("precision=bf16",)
    if recipe.optimizer.name in ("adam", "adamw"):
        yield ("optimizer.name=adamw8bit",)
    if not recipe.gradient_checkpointing:
        yield ("gradient_checkpointing=true",)
    if recipe.kind != "full":
        now = QUANTIZE.index(recipe.base.quantize) if recipe.base.quantize in QUANTIZE else 1
        kinds = [(f"base.quantize={kind}",) for kind in QUANTIZE[now + 1 :]]
        yield from kinds[:-1]
        if not (cpu or recipe.base.offload or recipe.compile):
            yield _OFFLOAD  # before nf4, which changes what a run learns
        yield from kinds[-1:]
    if latents and not view.same_crop and view.model_copy(update={"crop": "center"}).same_crop:
        yield "cache.latents=true", "view.crop=center"
    if recipe.kind == "lora" and recipe.lora.rank > 1:
        yield (f"lora.rank={recipe.lora.rank // 2}",)
    if recipe.batch_size > 1:
        yield (
            *("batch_size=1", f"accumulate={recipe.batch_size * recipe.accumulate}"),
            # pairwise needs all losses in one graph, which accumulation doesn't have
            *(["fairness.pairwise=false"] if reducible else []),
            *(["fairness.gradients=fp32"] if several else []),  # in which they are summed
        )


def _changed(recipe: TrainRecipe, overrides: Sequence[str]) -> TrainRecipe:
    return config.build(TrainRecipe, recipe.model_dump(mode="json"), overrides)
