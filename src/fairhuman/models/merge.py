"""Merge a LoRA into a model: W + weight (alpha / rank) B A, as a new pipeline folder or single file."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fairhuman.bases.base import networks
from fairhuman.errors import ModelError, RecipeError
from fairhuman.models.checkpoint_file import SUFFIX
from fairhuman.models.locations import (
    FLOW_NETWORKS,
    NETWORKS,
    check_base,
    check_half,
    find_lora,
    location_of,
    name_of,
    require_sdxl,
)
from fairhuman.models.lora_file import LoraLayer, read_lora
from fairhuman.models.original import PREFIXES
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import BaseSettings
from fairhuman.models.single_file import save_single_file
from fairhuman.utils.files import write_atomically
from fairhuman.utils.hub import without_bars
from fairhuman.utils.safetensors_header import read_header, sort_header
from fairhuman.utils.shipped import RANDOM, home

_HALF = {"F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class MergeJob:
    """What to merge, and where to write it.

    Attributes:
        model: as for `load_pipeline`.
        lora: file or folder.
        out: a new folder, or a new file whose name ends in .safetensors.
        weight: factor of the LoRA.
        precision: of the result, a name of `DTYPES`; None: fp16, of other bases than SDXL bf16.
        base: how the model is read.
    """

    model: str
    lora: Path
    out: Path
    weight: float = 1.0
    precision: str | None = None
    base: BaseSettings = field(default_factory=BaseSettings)

    @property
    def single(self) -> bool:
        """Whether the result is a single file."""
        return self.out.suffix == SUFFIX

    @property
    def stored_precision(self) -> str:
        """The precision of the result."""
        return self.precision or ("bf16" if name_of(self.model).flow else "fp16")

    def check(self) -> Path:
        """Check all that needs no loaded model; return the LoRA's file.

        Raises:
            RecipeError: `out` exists, or a setting is wrong.
            ModelError: the model or the LoRA isn't there, or is something else.
        """
        if self.stored_precision not in DTYPES:
            raise RecipeError(f"--precision must be one of {', '.join(DTYPES)}, found {self.precision!r}")
        if self.base.quantize != "none":
            raise RecipeError(f"base.quantize: a LoRA is merged into whole weights, leave out {self.base.quantize}")
        if self.base.offload:
            raise RecipeError("base.offload: a LoRA is merged in main memory, leave it out")
        if not torch.tensor(self.weight).isfinite():
            raise RecipeError(f"--weight: expected a finite number, found {self.weight}")
        if self.out.suffix in (".ckpt", ".pt", ".bin"):
            raise RecipeError(
                f"{self.out}: give a name with {SUFFIX} for a single file, or without an ending for a folder"
            )
        if os.path.lexists(self.out):
            raise RecipeError(f"{self.out}: exists already; give a new name, nothing is overwritten")
        try:
            check_base(self.model, self.base)
            if self.single:
                require_sdxl(self.model, f"a single file ({self.out})")
            check_half(self.model, self.stored_precision)
            return find_lora(self.lora)
        except ModelError as error:
            if self._swapped():
                right = shlex.join(["fairhuman", "merge", str(self.lora), self.model, str(self.out)])
                raise ModelError(f"{self.model} is a LoRA: give the model first, as in `{right}`") from error
            raise

    def _swapped(self) -> bool:
        """Whether the model is a LoRA."""
        try:
            find_lora(Path(self.model))
        except ModelError:
            return False
        return True


def merge(job: MergeJob) -> dict[str, int]:
    """Merge and write the result atomically; return the number of changed layers by network.

    The sum is taken in float32 and rounded once, to the precision of the result: in half precision, rounding costs an
    update of 1 % of W about 2 % of itself in fp16 and 17 % in bf16.

    Raises:
        RecipeError, ModelError: as of `MergeJob.check`; the LoRA is for another model; or a weight becomes too large.
    """
    file = job.check()
    dtype = DTYPES[job.stored_precision] or torch.float32
    pipeline = load_pipeline(job.model, dtype=stored_dtype(job.model), base=job.base)
    layers = read_lora(file, pipeline)
    fuse_(pipeline, layers, job.weight, dtype)
    for part in networks(pipeline):
        nn.Module.to(part, dtype)
        for name, tensor in part.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise ModelError(f"{type(part).__name__} {name}: a weight is too large for {dtype}: take bf16 or fp32")
    if job.single:

        def write(partial: Path) -> None:
            save_single_file(pipeline, partial, dtype, {"modelspec.title": job.out.stem})
            sort_header(partial)

        write_atomically(job.out, write)
    else:
        with without_bars():
            write_atomically(job.out, pipeline.save_pretrained)
    return {network: len(found) for network, found in layers.items()}


def fuse_(pipeline: Any, layers: Mapping[str, Mapping[str, LoraLayer]], weight: float, dtype: torch.dtype) -> None:
    """Add `weight` times the updates to the pipeline's weights, which become `dtype`; sums are taken in float32.

    Raises:
        ModelError: a sum is too large for `dtype`.
    """
    for network, updates in layers.items():
        for name, layer in updates.items():
            target = getattr(pipeline, network).get_submodule(name).weight
            merged = target.data.float() + weight * layer.update(target.shape)
            target.data = merged.to(dtype)
            if not bool(target.data.isfinite().all()):
                raise ModelError(f"{network} {name}: a merged weight is too large for {dtype}: lower the weight")


def stored_dtype(model: str) -> torch.dtype:
    """Return the precision in which a model on this machine is loaded exactly.

    It is that in which all of its network and its text encoders are stored; float32 if they are stored in several.
    """
    if model in RANDOM:
        return torch.float32
    place, parts = location_of(model), (*NETWORKS, *FLOW_NETWORKS)
    read = {part for part in parts if part != "vae"}  # it is loaded in float32
    if Path(place).is_file():
        prefixes = tuple(PREFIXES[part] for part in PREFIXES if part in read)
        entries = [
            e for key, e in read_header(Path(place), f"model {model!r}").tensors.items() if key.startswith(prefixes)
        ]
    else:
        files = [file for part in read for file in Path(home(place, part), part).glob("*.safetensors")]
        entries = [e for file in files for e in read_header(file, f"model {model!r}").tensors.values()]
    stored = {entry.dtype for entry in entries if entry.dtype.startswith(("F", "BF"))}  # others are positions
    return _HALF.get(stored.pop(), torch.float32) if len(stored) == 1 else torch.float32
