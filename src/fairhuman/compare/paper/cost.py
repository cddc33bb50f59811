"""Inference cost of LoRA and MoLE relative to the base: exact parameter counts and measured time ratios.

Table 1 of the FairHuman supplement reports extra memory and time per picture for 30 UniPC steps on SDXL. Parameters are
counted on the full-size SDXL without allocating memory (`table_for_sdxl`). Time is measured on a given pipeline
(`measure_costs`) as ratios to the base within a round, so that both share the same machine state.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from fairhuman.compare.paper.published import PUBLISHED, PublishedCell
from fairhuman.compare.paper.settings import BASE, FUSED, MIB, MOLE, PAPER_RANK, UNFUSED
from fairhuman.errors import ModelError
from fairhuman.generate.sample import draw, picture_generator
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.architecture import sdxl_unet_config
from fairhuman.models.lora import add_lora, resolve_targets
from fairhuman.models.mole_linear import add_mole
from fairhuman.models.settings import EXPERTS, Expert, LoraSettings

MOLE_RANK, MOLE_EXPERTS = 256, 2
PROMPT = "a person waving with both hands"
SCOPE = "one picture at a time: text encoders, U-Net with UniPC and guidance, VAE"
ON_CUDA = "parameters, plus the increase in peak CUDA memory while sampling"
ON_CPU = "parameters only, since the growth of a CPU process says little about the memory that one picture needs"


@dataclass(frozen=True, slots=True)
class ExtraMemory:
    """Parameters in addition to the base's, and their size; `published_mb` is the supplement's figure in its "MB"."""

    name: str
    parameters: int
    fp32_mib: float
    fp16_mib: float
    published_mb: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum over rounds."""

    min: float
    median: float
    max: float


@dataclass(frozen=True, slots=True)
class VariantCost:
    """Cost of one variant.

    Attributes:
        name: name of the variant.
        extra_parameter_bytes: size of the U-Net's parameters in excess of the base's.
        extra_peak_bytes: the same plus the peak memory of sampling in excess of the base's; None on a CPU.
        wall_s: wall-clock seconds per picture.
        cpu_s: CPU seconds of this process per picture.
        wall_ratio: wall time divided by the base's in the same round.
        cpu_ratio: CPU time divided by the base's in the same round.
    """

    name: str
    extra_parameter_bytes: int
    extra_peak_bytes: int | None
    wall_s: Spread
    cpu_s: Spread
    wall_ratio: Spread
    cpu_ratio: Spread


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs of all variants and the conditions of the measurement; JSON via `dataclasses.asdict`."""

    device: str
    dtype: str
    threads: int
    torch: str
    rank: int
    size: int
    steps: int
    repeats: int
    scope: str
    memory: str
    variants: tuple[VariantCost, ...]


def table_for_sdxl(rank: int) -> list[ExtraMemory]:
    """Extra parameters of a LoRA on all attention layers of SDXL's U-Net, and of MoLE; allocates no memory.

    The paper doesn't state the precision of its figures. MoLE's figure is 0.2 % from this count in half precision, the
    LoRA's (rank 256) 0.3 % from this count in single precision. The ratio of the counts is 3.7, of the figures 1.8.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sdxl_unet_config())
    counts = {FUSED: 0, UNFUSED: lora_parameters(unet, rank), MOLE: mole_parameters(unet)}
    published = {MOLE: PUBLISHED[PublishedCell("Table 1", "MoLE", "Extra Memory Usage")]}
    if rank == PAPER_RANK:
        published[UNFUSED] = PUBLISHED[PublishedCell("Table 1", "Ours", "Extra Memory Usage")]
    return [
        ExtraMemory(name, count, 4 * count / MIB, 2 * count / MIB, published.get(name))
        for name, count in counts.items()
    ]


def lora_parameters(unet: UNet2DConditionModel, rank: int) -> int:
    """Parameters of A [rank, in] and B [out, rank] on q, k, v and out of all attention layers: rank Σ (in + out)."""
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    layers = [unet.get_submodule(name) for name in resolve_targets(unet, "attention")]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def mole_parameters(unet: UNet2DConditionModel, rank: int = MOLE_RANK) -> int:
    """Parameters of MoLE: two LoRAs with gates and biases on every linear layer inside the transformers.

    2 rank (in + out) + (in + 1) 2 for the local gate (Linear in → 2) + 2 (out + 1) for the global ones (Linear out → 1
    each). Zhu et al., "MoLE: Enhancing Human-centric Text-to-image Diffusion via Mixture of Low-rank Experts", NeurIPS
    2024; the layers are those of JiePKU/MoLE, sd-scripts-xl/networks/moe.py.
    """
    transformers = [module for module in unet.modules() if isinstance(module, Transformer2DModel)]
    layers = [layer for each in transformers for layer in each.modules() if isinstance(layer, nn.Linear)]
    sides = [(layer.in_features, layer.out_features) for layer in layers]
    return sum(MOLE_EXPERTS * (rank * (inside + outside) + (inside + 1) + (outside + 1)) for inside, outside in sides)


def measure_costs(
    pipeline: StableDiffusionXLPipeline,
    rank: int,
    size: int,
    steps: int = 30,
    repeats: int = 3,
    others: Mapping[str, StableDiffusionXLPipeline] | None = None,
) -> CostTable:
    """Sample the same picture with the base, a fused and an unfused LoRA in turn, in one process, after a warm-up.

    The LoRAs, of `rank` on all attention layers and in the U-Net's precision, have random weights, which don't affect
    the time. All variants (three U-Nets and those of `others`, ready to sample) stay in memory, so that no round waits
    for the disk. Each of `repeats` rounds starts with a different variant. The pipeline isn't modified.

    Raises:
        ValueError: an argument is out of range, or a name in `others` is taken.
        ModelError: the pipeline has a LoRA in use; or as in `draw`.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    if getattr(pipeline.unet, "peft_config", None):
        raise ModelError("pipeline: expected the base alone, found a LoRA in use; unload it first")
    pipelines = {BASE: pipeline, **_with_lora(pipeline, LoraSettings(rank=rank))}
    taken = sorted(pipelines.keys() & (others or {}).keys())
    if taken:
        raise ValueError(f"others: {taken} are names of built-in variants")
    pipelines |= others or {}
    settings = SampleSettings(steps=steps, height=size, width=size, batch_size=1)
    ways = {name: _drawing(each, settings) for name, each in pipelines.items()}
    device = pipeline.unet.device
    on_cuda = device.type == "cuda"
    rounds = _rounds(ways, repeats, device)
    variants = [_variant(name, pipelines, *rounds, with_memory=on_cuda) for name in ways]
    return CostTable(
        torch.cuda.get_device_name(device) if on_cuda else device.type,
        str(pipeline.unet.dtype).removeprefix("torch."),
        torch.get_num_threads(),
        torch.__version__,
        rank,
        size,
        steps,
        repeats,
        SCOPE,
        ON_CUDA if on_cuda else ON_CPU,
        tuple(variants),
    )


def _variant(
    name: str,
    pipelines: Mapping[str, StableDiffusionXLPipeline],
    wall: Mapping[str, Sequence[float]],
    cpu: Mapping[str, Sequence[float]],
    peak: Mapping[str, int],
    *,
    with_memory: bool,
) -> VariantCost:
    extra = _unet_bytes(pipelines[name]) - _unet_bytes(pipelines[BASE])
    return VariantCost(
        name,
        extra,
        extra + peak[name] - peak[BASE] if with_memory else None,
        _spread(wall[name]),
        _spread(cpu[name]),
        _spread(a / b for a, b in zip(wall[name], wall[BASE], strict=True)),
        _spread(a / b for a, b in zip(cpu[name], cpu[BASE], strict=True)),
    )


def _unet_bytes(pipeline: StableDiffusionXLPipeline) -> int:
    return sum(p.numel() * p.element_size() for p in pipeline.unet.parameters())


def _with_lora(pipeline: StableDiffusionXLPipeline, settings: LoraSettings) -> dict[str, StableDiffusionXLPipeline]:
    unfused = copy.deepcopy(pipeline.unet)
    for name, parameter in add_lora(unfused, settings, seed=0).items():
        # in the U-Net's precision, like a LoRA that is loaded for sampling
        parameter.data = parameter.data.to(unfused.dtype)
        if "lora_B" in name:
            parameter.data.normal_(std=1e-3, generator=torch.Generator(parameter.device).manual_seed(0))
    fused = copy.deepcopy(unfused)
    fused.fuse_lora()
    fused.unload_lora()
    return {FUSED: _sharing(pipeline, fused), UNFUSED: _sharing(pipeline, unfused)}


def with_mole(pipeline: StableDiffusionXLPipeline, rank: int) -> StableDiffusionXLPipeline:
    """The pipeline with a MoLE of random weights (experts and gates), for `others` of `measure_costs`.

    All components except the U-Net are shared. A MoLE can't be fused, because its gates depend on the input.
    """
    unet = copy.deepcopy(pipeline.unet)
    for name, parameter in add_mole(unet, dict.fromkeys(EXPERTS, Expert(rank, 1.0)), gated=True, seed=0).items():
        parameter.data = parameter.data.to(pipeline.unet.dtype)
        if ".up." in name:
            parameter.data.normal_(std=1e-3, generator=torch.Generator(parameter.device).manual_seed(0))
    return _sharing(pipeline, unet)


def _sharing(pipeline: StableDiffusionXLPipeline, unet: UNet2DConditionModel) -> StableDiffusionXLPipeline:
    keep = {"force_zeros_for_empty_prompt": pipeline.config.force_zeros_for_empty_prompt, "add_watermarker": False}
    return StableDiffusionXLPipeline(**{**pipeline.components, "unet": unet}, **keep)


def _drawing(pipeline: StableDiffusionXLPipeline, settings: SampleSettings) -> Callable[[], object]:
    return lambda: draw(pipeline, [PROMPT], [picture_generator(0, 0, 0)], settings)


def _rounds(
    ways: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, int]]:
    """Wall and CPU seconds of every round but the first, and the peak CUDA memory in excess of that before sampling."""
    names = list(ways)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    peak = dict.fromkeys(names, 0)
    for number in range(repeats + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before = _begin_peak(device)
            wall_0, cpu_0 = time.perf_counter(), time.process_time()
            ways[name]()  # returns the picture on the CPU, so the GPU has finished
            cpu_1, wall_1 = time.process_time(), time.perf_counter()
            if number > 0:
                wall[name].append(wall_1 - wall_0)
                cpu[name].append(cpu_1 - cpu_0)
                if device.type == "cuda":
                    peak[name] = max(peak[name], torch.cuda.max_memory_allocated(device) - before)
    return wall, cpu, peak


def _begin_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _spread(values: Iterable[float]) -> Spread:
    found = sorted(values)
    return Spread(found[0], statistics.median(found), found[-1])
