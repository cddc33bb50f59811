"""Single-file checkpoints: what a .safetensors file is, told from its header alone.

SDXL in the original layout (`models/original.py`) is accepted. Other models, LoRA files, and SDXL files that lack a
part are refused by name, with what to do.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fairhuman.errors import ModelError
from fairhuman.models.original import PREFIXES
from fairhuman.utils.safetensors_header import SafetensorsHeader, TensorEntry, read_header

SUFFIX = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_UNET = PREFIXES["unet"]
_CONV_IN, _TEXT = _UNET + "input_blocks.0.0.weight", _UNET + "label_emb.0.0.weight"
_LORA_PARTS = (
    ".lora_down.",
    ".lora_up.",
    ".lora_A.",
    ".lora_B.",
    "lora.down.",
    "lora.up.",
    ".lora_linear_layer.",
    ".hada_w1",
    ".lokr_w",
)
_OTHER_UPDATES = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    ".lora_mid.": "LoCon with Tucker layers",
}

Architecture = Literal["sdxl", "small"]
Prediction = Literal["epsilon", "v"]
# Shapes of the first convolution and of the first layer on time ids and pooled text.
_SHAPES: Mapping[Architecture, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "sdxl": ((320, 4, 3, 3), (1280, 2816)),
    "small": ((32, 4, 3, 3), (128, 256)),
}
PARTS = {
    "vae": ("VAE", "give one as base.vae (--vae)"),
    "text_encoder": ("first text encoder", "take a file that has all parts"),
    "text_encoder_2": ("second text encoder", "take a file that has all parts"),
}


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """An SDXL checkpoint in one file.

    Attributes:
        path: the file.
        architecture: SDXL base 1.0, or the small SDXL of this package.
        prediction: what the U-Net predicts, as the file states it; noise if it states nothing.
        zero_snr: whether the file states that its noise schedule ends in pure noise.
        parts: the keys of `PREFIXES` that it has.
    """

    path: Path
    architecture: Architecture
    prediction: Prediction
    zero_snr: bool
    parts: frozenset[str]


def is_checkpoint_name(model: str) -> bool:
    """Whether a text looks like the name of a file of weights."""
    return Path(model).suffix.lower() in (SUFFIX, *_PICKLES)


def read_checkpoint(path: Path, model: str, own_vae: bool = False) -> CheckpointFile:
    """Recognise an SDXL checkpoint by its header; no weight is read.

    v-prediction is recognised by a tensor `v_pred` or by `modelspec.prediction_type`, a schedule with zero terminal SNR
    by a tensor `ztsnr`: ComfyUI, `comfy/supported_models.py`, class SDXL; Stability AI's ModelSpec 1.0.1.

    Args:
        path: the file.
        model: the model as the user gave it, for messages.
        own_vae: a VAE is given apart, so the file needs none.

    Raises:
        ModelError: something else than an SDXL checkpoint, or a part is missing; in one line, with what to do.
    """
    name = f"model {model!r}"
    if path.suffix.lower() in _PICKLES:
        raise ModelError(f"{name}: {path.suffix} files may run code when loaded; convert it to .safetensors")
    header = read_header(path, name)
    tensors = header.tensors
    kind = recognise(header)
    if kind is not None:
        raise ModelError(f"{name}: expected an SDXL checkpoint, found {kind}")
    architecture = next((one for one, shapes in _SHAPES.items() if _shapes(tensors) == shapes), None)
    if architecture is None:
        found = " and ".join(str(list(shape)) for shape in _shapes(tensors))
        raise ModelError(
            f"{name}: expected SDXL's U-Net, whose first layers have the shapes [320, 4, 3, 3] and [1280, 2816], "
            f"found {found}"
        )
    parts = frozenset(part for part, prefix in PREFIXES.items() if _has(tensors, prefix))
    for part, (title, advice) in PARTS.items():
        if part not in parts and not (part == "vae" and own_vae):
            raise ModelError(f"{name}: the file has no {title}: {advice}")
    stated = header.metadata.get("modelspec.prediction_type", "")
    prediction: Prediction = "v" if "v_pred" in tensors or stated.lower().startswith("v") else "epsilon"
    return CheckpointFile(path, architecture, prediction, "ztsnr" in tensors, parts)


def recognise(header: SafetensorsHeader) -> str | None:
    """Return what a file is in words, with what to do with it; None: an SDXL U-Net in the original layout."""
    tensors = header.tensors
    for kind, test in _KINDS.items():
        if test(tensors):
            return kind
    if header.metadata.get("format", "").startswith("fairhuman-mole"):
        return "a MoLE: give it as --mole"
    small = sum(entry.dtype.startswith("F8_") for entry in tensors.values())
    if small:
        return f"weights in fp8 ({small} of {len(tensors)} tensors): they are too coarse, take the file in fp16 or bf16"
    if _CONV_IN in tensors and _TEXT in tensors:
        return None
    return f"a file of another kind ({len(tensors)} tensors, such as {next(iter(tensors), 'none')})"


def is_lora(names: Collection[str]) -> bool:
    """Whether tensors of these names are a LoRA, LoHa or LoKr in any program's layout."""
    return any(part in name for name in names for part in _LORA_PARTS)


def check_lora_file(file: Path) -> None:
    """Check by its header that a file is a LoRA or a MoLE in safetensors.

    Raises:
        ModelError: something else, another kind of update (DoRA, LoHa, LoKr), or cut off; in one line, with what to do.
    """
    name = f"LoRA {str(file)!r}"
    if file.suffix != SUFFIX:
        raise ModelError(f"{name}: must be a {SUFFIX} file, because others may run code when loaded; convert it")
    header = read_header(file, f"{name}: loading failed")
    for key in header.tensors:
        for part, kind in _OTHER_UPDATES.items():
            if part in key:
                raise ModelError(f"{name}: is a {kind} (tensor {key}), which isn't supported; only plain LoRAs are")
    if is_lora(header.tensors) or header.metadata.get("format", "").startswith("fairhuman-mole"):
        return
    if any(key.startswith(prefix) for key in header.tensors for prefix in PREFIXES.values()):
        raise ModelError(f"{name}: expected a LoRA, found a whole checkpoint: give it as --model")
    raise ModelError(f"{name}: expected a LoRA, found {recognise(header)}")


def _shapes(tensors: Mapping[str, TensorEntry]) -> tuple[tuple[int, ...], ...]:
    return tuple(tensors[name].shape for name in (_CONV_IN, _TEXT))


def _has(tensors: Mapping[str, TensorEntry], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _any_end(*ends: str) -> Callable[[Mapping[str, TensorEntry]], bool]:
    """Return a test for a tensor with one of these names, with or without the U-Net's prefix."""
    return lambda tensors: any(end in tensors or _UNET + end in tensors for end in ends)


def _context(tensors: Mapping[str, TensorEntry]) -> int | None:
    """Return the width of the text that a U-Net without pooled text attends to; None: no such U-Net."""
    if _CONV_IN not in tensors or _TEXT in tensors:
        return None
    keys = (name for name in tensors if name.startswith(_UNET) and name.endswith("attn2.to_k.weight"))
    return next((_last(tensors[name]) for name in keys), None)


def _last(tensor: TensorEntry) -> int | None:
    return tensor.shape[-1] if tensor.shape else None  # a tensor of a broken file may be a single number


def _channels(tensors: Mapping[str, TensorEntry]) -> int:
    return tensors[_CONV_IN].shape[1] if _CONV_IN in tensors and len(tensors[_CONV_IN].shape) > 1 else 4


# Of bases that can be trained (`bases/`).
_AS_FOLDER = "which isn't supported as a single file: give its diffusers folder or hub id (docs/bases.md)"
# The names of tensors are those by which diffusers (`loaders/single_file_utils.py`) and ComfyUI (`model_detection.py`)
# tell these families apart. The first that fits counts.
_KINDS: Mapping[str, Callable[[Mapping[str, TensorEntry]], bool]] = {
    "a LoRA: give it as --lora, or in a recipe as lora.start": is_lora,
    f"a FLUX.2 model, {_AS_FOLDER}": _any_end("single_stream_modulation.lin.weight"),
    "a Chroma model, which isn't supported": _any_end("distilled_guidance_layer.in_proj.bias"),
    f"a FLUX model, {_AS_FOLDER}": _any_end(
        "double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.img_attn.qkv.weight"
    ),
    f"a Stable Diffusion 3 model, {_AS_FOLDER}": _any_end("joint_blocks.0.context_block.adaLN_modulation.1.bias"),
    "an AuraFlow model, which isn't supported": _any_end("double_layers.0.attn.w1q.weight"),
    f"a Lumina or Z-Image model, {_AS_FOLDER}": _any_end("cap_embedder.0.weight", "layers.0.adaLN_modulation.0.weight"),
    f"a Qwen-Image model, {_AS_FOLDER}": _any_end(
        "transformer_blocks.0.img_mlp.net.0.proj.weight", "txt_in.text_norm.weight"
    ),
    "a Wan video model, which isn't supported": _any_end("head.modulation"),
    "a HunyuanVideo model, which isn't supported": _any_end(
        "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias"
    ),
    "a Stable Cascade model, which isn't supported": _any_end(
        "clip_txt_mapper.weight", "down_blocks.1.0.channelwise.0.weight"
    ),
    "an SDXL inpainting model (9 input channels), which isn't supported": lambda t: _channels(t) == 9 and _TEXT in t,
    "an inpainting model (9 input channels), which isn't supported": lambda t: _channels(t) == 9,
    "an editing model (8 input channels), which isn't supported": lambda t: _channels(t) == 8,
    "an SDXL refiner, which isn't supported": lambda t: (
        _TEXT in t and (_last(t[_TEXT]) == 2560 or "conditioner.embedders.0.model.text_projection" in t)
    ),
    "Playground v2.5, whose EDM noise schedule isn't supported": _any_end("edm_mean", "edm_std"),
    "a model with an EDM noise schedule, which isn't supported": _any_end("edm_vpred.sigma_max"),
    "a Stable Diffusion 1 model, which isn't supported": lambda t: _context(t) == 768,
    "a Stable Diffusion 2 model, which isn't supported": lambda t: _context(t) == 1024,
    "a ControlNet: give it as --controlnet": _any_end(
        "control_model.time_embed.0.weight", "controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight"
    ),
    "a U-Net alone, in diffusers' layout: give the folder of the whole pipeline": _any_end(
        "down_blocks.0.resnets.0.conv1.weight"
    ),
    "a U-Net alone: take a file that has the text encoders and the VAE too": lambda t: "input_blocks.0.0.weight" in t,
    "a VAE alone: give it as base.vae (--vae)": lambda t: (
        _CONV_IN not in t and ("decoder.conv_in.weight" in t or "first_stage_model.decoder.conv_in.weight" in t)
    ),
    "a text encoder alone: give the whole model": lambda t: (
        _CONV_IN not in t and any(name.removeprefix("text_model.").startswith("encoder.layers.0.") for name in t)
    ),
}
