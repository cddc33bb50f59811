"""What `base:` in a recipe decides: the VAE, what the U-Net predicts, and the noise schedule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from fairhuman.errors import ModelError
from fairhuman.models.architecture import sdxl_scheduler
from fairhuman.models.checkpoint_file import CheckpointFile
from fairhuman.models.locations import check_vae
from fairhuman.models.settings import BaseSettings
from fairhuman.models.single_file import load_vae_file
from fairhuman.utils.hub import loading, variant_in

_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}
_UNET_FILE = "diffusion_pytorch_model"


def file_schedule(file: CheckpointFile) -> dict[str, Any]:
    """Return the scheduler configuration of a single file: SDXL's, with the prediction that the file states."""
    own = _changed(sdxl_scheduler().config, prediction_type=_PREDICTIONS[file.prediction])
    return with_zero_snr(own) if file.zero_snr else own


def scheduled(own: Mapping[str, Any], base: BaseSettings, model: str) -> dict[str, Any]:
    """Return a model's scheduler configuration with the settings of `base`.

    Raises:
        ModelError: zero terminal SNR for a model that predicts noise.
    """
    found = dict(own)
    if base.prediction != "auto":
        found = _changed(found, prediction_type=_PREDICTIONS[base.prediction])
    if base.zero_snr is True:
        if found.get("prediction_type", "epsilon") == "epsilon":
            raise ModelError(
                f"base.zero_snr=true needs a model with v-prediction, but {model!r} states none: if it was "
                "trained with v-prediction, set base.prediction=v"
            )
        found = with_zero_snr(found)
    elif base.zero_snr == "auto" and found.get("rescale_betas_zero_snr"):
        found = with_zero_snr(found)
    elif base.zero_snr is False:
        found = _changed(found, rescale_betas_zero_snr=False)
    return found


def with_zero_snr(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schedule rescaled to zero terminal SNR, sampled from its very last timestep.

    Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed, WACV 2024.
    """
    return _changed(schedule, rescale_betas_zero_snr=True, timestep_spacing="trailing")


def _changed(schedule: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Return a schedule with other values; diffusers ignores those of keys listed in `_use_default_values`."""
    defaults = schedule.get("_use_default_values", ())
    kept = [name for name in defaults if values.get(name, schedule.get(name)) == schedule.get(name)]
    return {**schedule, **values, **({"_use_default_values": kept} if defaults else {})}


def load_vae(place: str) -> AutoencoderKL:
    """Load the VAE of a folder (of a VAE, or of a pipeline), a file or a hub id, in float32.

    Raises:
        ModelError: nothing found, or no VAE of SDXL's kind.
    """
    check_vae(place)
    name = f"base.vae {place!r}"
    if Path(place).is_file():
        return load_vae_file(Path(place), name)
    inside = {"subfolder": "vae"} if (Path(place) / "vae").is_dir() else {}
    variant = variant_in(Path(place, *inside.values()))
    with loading(name, place, "the folder or hub id of an AutoencoderKL"):
        vae: AutoencoderKL = AutoencoderKL.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, variant=variant, **inside
        )
    return vae.eval()


def check_scaling(vae: AutoencoderKL, own: Mapping[str, Any], place: str) -> None:
    """Check that a VAE scales latents as a model's own one; Stable Diffusion 1's, of the same layers, does not.

    Raises:
        ModelError: names both factors.
    """
    expected, found = (config.get("scaling_factor", 0.18215) for config in (own, vae.config))  # diffusers' default
    if found != expected:
        raise ModelError(
            f"base.vae {place!r}: expected scaling_factor {expected}, as the model's own VAE has, found {found}: it is "
            "for another family of models"
        )


def variant_of(location: str, dtype: torch.dtype) -> str | None:
    """Return the variant of a pipeline's files to load: `fp16` or None, the plain files.

    Files in fp16 are taken if there are no others, and from the hub also for half precision: they are half as large.
    What is in the hub's local cache is preferred to a download.
    """
    plain, half = (f"unet/{_UNET_FILE}{middle}.safetensors" for middle in ("", ".fp16"))
    folder = Path(location)
    if folder.exists():
        return variant_in(folder / "unet")
    from huggingface_hub import file_exists, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(location, plain), str):
        return None
    if isinstance(try_to_load_from_cache(location, half), str):
        return "fp16"
    try:
        return "fp16" if dtype != torch.float32 and file_exists(location, half) else None
    except Exception:  # no connection, or no such repository: loading itself says so
        return None
