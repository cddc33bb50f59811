"""LoRA files of every kind: read ours and other programs' into one form; write peft's and kohya's.

A LoRA replaces W by W + w (alpha / rank) B A, with A [rank, in, ...] and B [out, rank, ...], for some layers.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from fairhuman.bases.base import base_of, quiet
from fairhuman.bases.sdxl import SDXL
from fairhuman.errors import ModelError
from fairhuman.models.checkpoint_file import check_lora_file
from fairhuman.models.frozen_linear import weight_shape
from fairhuman.models.original import unet_name
from fairhuman.models.weights import read_finite
from fairhuman.utils.parse import parse_json
from fairhuman.utils.safetensors_header import read_header

# Prefixes of networks in the files' names: kohya's (layers joined by _), diffusers', ComfyUI's own.
_NETWORKS = {
    "unet": ("lora_unet_", "unet.", "diffusion_model."),
    "text_encoder": ("lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer."),
    "text_encoder_2": ("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer."),
}
_DOWN = (
    ".lora_A.weight",
    ".lora_down.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_linear_layer.down.weight",  # diffusers' text encoders
)
_UP = tuple(end.replace("lora_A", "lora_B").replace("down", "up") for end in _DOWN)
_OLD_ATTENTION = re.compile(r"(?<=\.self_attn\.)to_(q|k|v|out)$")  # of text encoders, before diffusers used peft
_PARTNERS = {**dict(zip(_DOWN, _UP, strict=True)), **dict(zip(_UP, _DOWN, strict=True))}
_METADATA = "lora_adapter_metadata"  # diffusers' key for peft's settings
_PEFT, _PEFT_SETTINGS = "base_model.model.", "adapter_config.json"  # of peft's own folders
# What other trainers put beside the layers of a LoRA, by a part of its name.
_BESIDE = {
    "bundle_emb.": "embeddings",
    ".diff.": "whole updates of weights",
    ".diff_b.": "updates of biases",
    ".w_norm.": "updates of normalisations",
    ".b_norm.": "updates of normalisations",
}


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The update of one layer: A, B, and the factor alpha / rank."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The rank."""
        return int(self.down.shape[0])

    def update(self, shape: torch.Size) -> Tensor:
        """Return (alpha / rank) B A in float32, in the shape of the layer's weight [out, in, ...]."""
        return self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(shape)


def read_lora(file: Path, pipeline: Any) -> dict[str, dict[str, LoraLayer]]:
    """Return the updates of a LoRA file by network (`unet`, `text_encoder`, `transformer`, ...) and layer.

    Reads diffusers' and peft's names, and kohya's and ComfyUI's with the original layer names or with diffusers'; for
    other bases than SDXL also whatever diffusers converts.

    Raises:
        ModelError: not a LoRA, another kind of update (DoRA, LoHa, LoKr), more than a LoRA (embeddings), a layer that
            the pipeline doesn't have, half of a pair, another shape, a weight that isn't finite, or peft's own file
            without its settings.
    """
    check_lora_file(file)
    name = f"LoRA {str(file)!r}"
    metadata = read_header(file, name).metadata
    if metadata.get("format", "").startswith("fairhuman-mole"):
        raise ModelError(f"{name}: is a MoLE, whose gates depend on every input, so it is no plain LoRA")
    tensors = read_finite(file, name)
    base = base_of(pipeline)
    metadata = _with_peft_settings(file, base.part, tensors, metadata)
    found, unknown = _placed(tensors, metadata, pipeline, name)
    if unknown and not isinstance(base, SDXL) and (converted := _converted(file, pipeline)):
        found, unknown = _placed(converted, metadata, pipeline, name)
    if unknown:
        raise ModelError(f"{name}: {_why_unknown(unknown)}")
    return {network: layers for network, layers in found.items() if layers}


def _placed(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], pipeline: Any, name: str
) -> tuple[dict[str, dict[str, LoraLayer]], list[str]]:
    """Return the updates by network and layer, and the names of what is of no layer.

    Raises:
        ModelError: as of `read_lora`.
    """
    names = {network: _names(pipeline, network) for network in _networks(pipeline)}
    found: dict[str, dict[str, LoraLayer]] = {network: {} for network in names}
    unknown = []
    for key, down in tensors.items():
        end = next((end for end in _PARTNERS if key.endswith(end)), None)
        if end is None:
            if not key.endswith(".alpha"):
                unknown.append(key)
            continue
        stem = key.removesuffix(end)
        partner = stem + _PARTNERS[end]
        if partner not in tensors:
            raise ModelError(f"{name}: expected A and B of each layer, but {key} has no partner {partner}")
        if end in _UP:
            continue
        up, place = tensors[partner], _place(stem, names)
        if place is None:
            unknown.append(stem)
            continue
        if stem.startswith(_PEFT) and _METADATA not in metadata and f"{stem}.alpha" not in tensors:
            raise ModelError(
                f"{name}: its names are those of peft's own folders, where alpha is in {_PEFT_SETTINGS} beside the "
                "file, and there is none: copy it there from the folder that the LoRA was saved to"
            )
        network, layer = place
        where = f"{name}: {network} {layer}"
        _check_shapes(where, getattr(pipeline, network).get_submodule(layer), down, up)
        try:
            alpha = _alpha(stem, layer, network, tensors, metadata, len(down))
        except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError, re.error) as error:
            raise ModelError(f"{where}: its alpha must be a finite number: {error}") from error
        found[network][layer] = LoraLayer(down, up, alpha / len(down))
    return found, unknown


def _converted(file: Path, pipeline: Any) -> dict[str, Tensor]:
    """Return a file's tensors by diffusers' names, as sampling reads it; empty if diffusers can't convert it."""
    try:
        with quiet():
            found = pipeline.lora_state_dict(file.parent, weight_name=file.name, return_alphas=True)
    except Exception:  # a file may hold anything, and the libraries check little of it
        return {}
    parts = found if isinstance(found, tuple) else (found,)  # of some bases the alphas are apart
    return {key: tensor for part in parts for key, tensor in (part or {}).items()}


def _with_peft_settings(
    file: Path, part: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Mapping[str, str]:
    """Return a file's metadata; of a file of peft's own folder with the settings beside it, as diffusers has them.

    Raises:
        ModelError: they can't be read.
    """
    settings = file.parent / _PEFT_SETTINGS
    if _METADATA in metadata or not any(key.startswith(_PEFT) for key in tensors) or not settings.is_file():
        return metadata
    try:
        stated = dict(parse_json(settings.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{str(settings)!r}: peft's settings of the LoRA beside it can't be read: {error}") from error
    return {**metadata, _METADATA: json.dumps({f"{part}.{key}": value for key, value in stated.items()})}


def _why_unknown(unknown: Sequence[str]) -> str:
    """Return why a file has tensors that are of no layer, and what to do."""
    for key in unknown:
        for part, kind in _BESIDE.items():
            if part in f"{key}.":
                return f"has {kind} too (tensor {key}), which aren't supported: save the LoRA without them"
    return (
        f"{len(unknown)} of its layers aren't in this model, such as {unknown[0]}; it is for another model, or has "
        "names that aren't read"
    )


def loadable(pipeline: Any) -> list[str]:
    """Return the networks of a pipeline that a LoRA may change."""
    return [name for name in pipeline._lora_loadable_modules if getattr(pipeline, name, None) is not None]


def _networks(pipeline: Any) -> Mapping[str, tuple[str, ...]]:
    """Return the networks that a LoRA may change, with all prefixes."""
    return {name: _NETWORKS.get(name, (f"lora_{name}_", f"{name}.")) for name in loadable(pipeline)}


def _names(pipeline: Any, network: str) -> dict[str, str]:
    """Return the layers of a network by every name that files have for them."""
    kohya, *prefixes = _networks(pipeline)[network]
    module: nn.Module = getattr(pipeline, network)
    layers = [name for name, one in module.named_modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
    found: dict[str, str] = {}
    for layer in layers:
        if network == "unet":
            other = unet_name(layer, pipeline.unet.config.layers_per_block)
            found[layer] = layer
        elif network == base_of(pipeline).part:
            other = found[layer] = layer
        else:  # transformers 5 leaves out the prefix of the first encoder
            other = f"text_model.{layer.removeprefix('text_model.')}"
        for spelling in (layer, other):
            found[kohya + spelling.replace(".", "_")] = layer
            found |= {prefix + spelling: layer for prefix in prefixes}
    return found


def _place(stem: str, names: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    """Return network and layer of a name without its ending; older diffusers' files put `processor` between."""
    plain = _OLD_ATTENTION.sub(r"\1_proj", stem.replace(".processor.", ".").removeprefix(_PEFT))
    for network, layers in names.items():
        for spelling in (stem, plain, f"{plain}.0"):  # `to_out` stands for `to_out.0` there
            if spelling in layers:
                return network, layers[spelling]
    return None


def _alpha(
    stem: str, layer: str, network: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], rank: int
) -> float:
    """Return a layer's alpha: beside it, or as diffusers' metadata or peft's settings state it; otherwise its rank.

    A key of peft's `alpha_pattern` is the end of a layer's name, or a regular expression of it.
    """
    beside = tensors.get(f"{stem}.alpha")
    if beside is not None:
        return float(beside)  # finite, as `read_finite` checks
    stated: dict[str, Any] = parse_json(metadata.get(_METADATA, "{}"))
    common = stated.get(f"{network}.lora_alpha")
    if common is None:
        return float(rank)
    patterns = stated.get(f"{network}.alpha_pattern") or {}
    names = (layer, f"text_model.{layer}")  # transformers 5 leaves out the prefix of the first encoder
    alpha = next((patterns[key] for name in names if (key := get_pattern_key(patterns, name)) in patterns), common)
    if not math.isfinite(alpha := float(alpha)):
        raise ValueError(f"found {alpha}")
    return alpha * (rank**0.5 if stated.get(f"{network}.use_rslora") else 1.0)  # rsLoRA: alpha / sqrt(rank)


def _check_shapes(where: str, layer: nn.Module, down: Tensor, up: Tensor) -> None:
    """Check A [rank, in, ...] and B [out, rank, ...] against W [out, in, ...]; kernels of 1 may be spelled out."""
    outside, *inside = weight_shape(layer) or (0, 0)
    for side, tensor in (("A", down), ("B", up)):
        if tensor.ndim < 2 or 0 in tensor.shape:
            raise ModelError(f"{where}: {side} must be a matrix, found the shape {list(tensor.shape)}")
    if up.shape[1] != down.shape[0]:
        raise ModelError(f"{where}: A has rank {down.shape[0]}, B {up.shape[1]}")
    if (up.shape[0], down[0].numel()) != (outside, math.prod(inside)):
        raise ModelError(
            f"{where}: is for a weight of [{up.shape[0]}, {down[0].numel()}], this model's is "
            f"[{outside}, {math.prod(inside)}]"
        )


def to_peft(layers: Mapping[str, Mapping[str, LoraLayer]]) -> dict[str, Tensor]:
    """Return the updates of `read_lora` as diffusers' `load_lora_weights` takes them: B scaled by alpha / rank."""
    return {
        f"{network}.{name}.lora_{side}.weight": tensor
        for network, found in layers.items()
        for name, layer in found.items()
        for side, tensor in (("A", layer.down.float()), ("B", layer.up.float() * layer.scale))
    }


def to_kohya(
    state: Mapping[str, Tensor], alpha: float, layers_per_block: int = 2, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Rename peft's tensors for kohya, ComfyUI and A1111, with `alpha` (not the rank) beside each pair.

    `down_blocks.1.attentions.0.(...).to_q.lora_A.weight` → `lora_unet_input_blocks_4_1_(...)_to_q.lora_down.weight`:
    kohya's merge script knows the original layer names alone (`library/sdxl_original_unet.py`); ComfyUI and A1111 read
    both.

    Args:
        state: A and B by name.
        alpha: of all layers.
        layers_per_block: of the U-Net: 2 in SDXL.
        dtype: of the result.
    """
    kohya: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for ours, theirs in ((".lora_A.weight", "lora_down"), (".lora_B.weight", "lora_up")):
            if key.endswith(ours):
                layer = "lora_unet_" + unet_name(key.removesuffix(ours), layers_per_block).replace(".", "_")
                kohya[f"{layer}.{theirs}.weight"] = tensor.to(dtype)
                kohya[f"{layer}.alpha"] = torch.tensor(float(alpha), dtype=dtype)
                break
        else:
            raise ModelError(f"LoRA tensor {key!r}: expected a name that ends in .lora_A.weight or .lora_B.weight")
    return kohya


def kohya_metadata(
    title: str, size: tuple[int, int], rank: int, alpha: float, convolutions: bool, velocity: bool, zero_snr: bool
) -> dict[str, str]:
    """Return the metadata by which other programs tell what a LoRA is for; `size` is (height, width).

    A1111 hides a file under SDXL if `ss_base_model_version` doesn't start with `sdxl` (`extensions-builtin/Lora/
    network.py`). The keys are those of kohya's `train_network.py` and `library/sai_model_spec.py`.
    """
    extra = {"ss_network_args": json.dumps({"conv_dim": str(rank), "conv_alpha": f"{alpha:g}"})} if convolutions else {}
    return {
        "format": "pt",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_zero_terminal_snr": str(zero_snr),
        **extra,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": f"{size[1]}x{size[0]}",
        "modelspec.prediction_type": "v" if velocity else "epsilon",
    }
