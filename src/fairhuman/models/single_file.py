"""Read and write an SDXL pipeline as a single .safetensors file in the original layout (`models/original.py`).

The files hold weights alone. The configurations and CLIP's vocabulary ship with this package, so nothing is downloaded.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairhuman import __version__
from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_meta
from fairhuman.models.checkpoint_file import read_checkpoint, recognise
from fairhuman.models.original import PREFIXES, Original, original_of
from fairhuman.utils.safetensors_header import read_header

# Tensors that the original layout has and no network reads: counters, a temperature of training, flags.
_UNREAD = ("position_ids", "logit_scale", "num_batches_tracked")


def load_single_file(path: Path, dtype: torch.dtype, own_vae: bool = False) -> StableDiffusionXLPipeline:
    """Load an SDXL checkpoint: the U-Net and the text encoders in `dtype`, the VAE in float32.

    Tensors are read one at a time, so the peak is the size of the loaded pipeline.

    Args:
        path: the file.
        dtype: of the U-Net and the text encoders.
        own_vae: a VAE is given apart: the pipeline's has no weights, it is on `meta`.

    Raises:
        ModelError: not an SDXL checkpoint, or a tensor is missing, unknown or of another shape.
    """
    name = f"model {str(path)!r}"
    file = read_checkpoint(path, str(path), own_vae)
    pipeline = build_meta(file.architecture)
    parts = [part for part in PREFIXES if part != "vae" or not own_vae]
    with _opened(path, name) as tensors:
        known = set(tensors.keys())
        used = set()
        for part in parts:
            network = getattr(pipeline, part)
            found = {}
            for key, meta in network.state_dict().items():
                where = _in_file(_original(pipeline, part, key), known)
                used.add(where.key)
                if where.key not in known:
                    raise ModelError(f"{name}: the tensor {where.key} is missing; this isn't a whole SDXL checkpoint")
                tensor = _read(tensors, where, meta.shape, name)
                found[key] = tensor.to(torch.float32 if part == "vae" else dtype)
            network.load_state_dict(found, assign=True)
        prefixes = tuple(PREFIXES[part] for part in parts)
        unknown = sorted(key for key in known - used if key.startswith(prefixes) and not key.endswith(_UNREAD))
    if unknown:
        raise ModelError(
            f"{name}: {len(unknown)} tensors fit no layer of SDXL, such as {unknown[0]}; "
            "variants of SDXL with other layers aren't supported"
        )
    _finish(pipeline)
    return pipeline


def load_vae_file(path: Path, name: str) -> AutoencoderKL:
    """Load a VAE of SDXL's architecture from a file, in float32: a VAE alone in either layout, or a whole checkpoint.

    The layers of Stable Diffusion 1's VAE are the same, so that one alone can't be told apart.

    Raises:
        ModelError: no such VAE, or a whole checkpoint of another model.
    """
    header = read_header(path, name)
    known = header.tensors
    kind = recognise(header) if any(key.startswith(PREFIXES["unet"]) for key in known) else None
    if kind is not None:
        raise ModelError(f"{name}: expected a VAE, or an SDXL checkpoint, whose VAE is taken, found {kind}")
    pipeline = build_meta("sdxl" if _encoder_width(known) == 128 else "small")
    vae, found, prefix = pipeline.vae, {}, PREFIXES["vae"]
    with _opened(path, name) as tensors:
        for key, meta in vae.state_dict().items():
            where = _original(pipeline, "vae", key)
            bare = where.key.removeprefix(prefix)
            place = next((one for one in (where.key, bare, key) if one in known), None)
            if place is None:
                raise ModelError(f"{name}: expected a VAE of SDXL's kind, found no tensor {bare}")
            found[key] = _read(tensors, Original(place), meta.shape, name).float()
    vae.load_state_dict(found, assign=True)
    return vae.eval()


def save_single_file(
    pipeline: StableDiffusionXLPipeline, path: Path, dtype: torch.dtype, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a pipeline in the original layout, in `dtype`, to `path`; not atomically, see `write_atomically`.

    v-prediction and zero terminal SNR are marked by the tensors `v_pred` and `ztsnr`, as in ComfyUI.
    """
    pieces: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for part in PREFIXES:
        for key, tensor in getattr(pipeline, part).state_dict().items():
            where = _original(pipeline, part, key)
            plain = tensor.detach().to("cpu", dtype)
            plain = plain.T if where.transposed else plain[..., None, None] if where.convolution else plain
            pieces[where.key][where.third or 0] = plain.contiguous()
    tensors = {
        key: torch.cat([found[third] for third in sorted(found)]) if len(found) > 1 else found[0]
        for key, found in pieces.items()
    }
    schedule = pipeline.scheduler.config
    velocity = schedule.prediction_type == "v_prediction"
    if velocity:
        tensors["v_pred"] = torch.zeros(0)
    if schedule.get("rescale_betas_zero_snr"):
        tensors["ztsnr"] = torch.zeros(0)
    stated = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": path.stem.removeprefix("."),
        "modelspec.prediction_type": "v" if velocity else "epsilon",
        "fairhuman": __version__,
    }
    save_file(tensors, path, metadata={**stated, **(metadata or {})})


def _original(pipeline: StableDiffusionXLPipeline, part: str, key: str) -> Original:
    levels = len(pipeline.vae.config.block_out_channels) if pipeline.vae is not None else 0
    return original_of(part, key, pipeline.unet.config.layers_per_block, levels)


def _in_file(where: Original, known: Collection[str]) -> Original:
    """Return where a tensor is in a file of these tensors.

    Earlier versions of diffusers' converter wrote `text_projection` as a layer's weight, which isn't transposed.
    """
    layer = f"{where.key}.weight"
    return Original(layer) if where.transposed and where.key not in known and layer in known else where


def _read(tensors: Any, where: Original, shape: torch.Size, name: str) -> Tensor:
    """Read one tensor; SDXL's VAE has linear layers where the original has convolutions of size 1."""
    try:
        tensor: Tensor = tensors.get_tensor(where.key)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{name}: the tensor {where.key} can't be read: {error}") from error
    if where.third is not None:
        tensor = tensor.chunk(3)[where.third].clone() if len(tensor) % 3 == 0 else tensor
    tensor = tensor.T.contiguous() if where.transposed else tensor
    if tensor.shape != shape and tensor.squeeze().shape == shape:
        tensor = tensor.reshape(shape)
    if tensor.shape != shape:
        raise ModelError(
            f"{name}: the tensor {where.key} must have the shape {list(shape)}, found {list(tensor.shape)}"
        )
    return tensor


def _opened(path: Path, name: str) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{name}: can't be read: {error}") from error


def _encoder_width(tensors: Mapping[str, Any]) -> int | None:
    names = (prefix + "encoder.conv_in.weight" for prefix in ("", PREFIXES["vae"]))
    return next((tensors[name].shape[0] for name in names if name in tensors and tensors[name].shape), None)


def _finish(pipeline: StableDiffusionXLPipeline) -> None:
    """Make what isn't in the file, such as the numbers of positions, and set all networks to evaluation."""
    for part in PREFIXES:
        network = getattr(pipeline, part)
        for module in network.modules():
            for key, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta and key == "position_ids":
                    module.register_buffer(key, torch.arange(buffer.shape[-1])[None], persistent=False)
        network.eval()
