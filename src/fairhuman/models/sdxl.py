"""Load pipelines; check SDXL's."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
from huggingface_hub import hf_hub_download

from fairhuman.bases.base import base_class
from fairhuman.bases.latents import cast
from fairhuman.bases.names import BASES
from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_small, sdxl_scheduler
from fairhuman.models.base import check_scaling, file_schedule, load_vae, scheduled, variant_of
from fairhuman.models.checkpoint_file import read_checkpoint
from fairhuman.models.frozen_linear import freeze_linear_
from fairhuman.models.locations import EXPECTED, check_base, check_ddpm, is_file, is_whole, location_of, name_of
from fairhuman.models.settings import BaseSettings
from fairhuman.models.single_file import load_single_file
from fairhuman.utils.hub import loading
from fairhuman.utils.parse import parse_json
from fairhuman.utils.shipped import RANDOM, SHIPPED, UNTRAINED


def load_pipeline(
    model: str, seed: int = 0, dtype: torch.dtype = torch.float32, base: BaseSettings | None = None
) -> Any:
    """Load a pipeline: one that ships with the package (`utils/shipped.py`), a folder, a file or a hub id.

    In a folder, the class that model_index.json names decides on the base (`bases/names.py`); all else is SDXL.

    Args:
        model: `"small-untrained"` has the architecture of `"small"` and random weights, as `"small-flow-untrained"` has
            that of `"small-flow"`; a file is an SDXL checkpoint in the original layout (`models/single_file.py`).
        seed: of the random weights.
        dtype: of the network and the text encoders; the VAE is loaded in float32, as SDXL's overflows in float16.
        base: bits of linear layers, and whether they are offloaded; of SDXL also a VAE in place of the model's own, and
            what the U-Net predicts; None: all as the model states.

    Raises:
        ModelError: nothing found at `model`, or no base that can be trained.
    """
    base = base or BaseSettings()
    check_base(model, base)
    pipeline = _loaded(model, seed, dtype, base)
    freeze_linear_(pipeline, base)
    return pipeline


def _loaded(model: str, seed: int, dtype: torch.dtype, base: BaseSettings) -> Any:
    """Load a pipeline as `load_pipeline` does, in `dtype`."""
    if (name := name_of(model)).flow:
        place = location_of(model) if model in SHIPPED else model
        with loading(f"model {model!r}", place, f"a {name.title} pipeline's folder"):
            if model in SHIPPED:
                from fairhuman.bases.small_flow import load_small_flow

                return load_small_flow(dtype, seed if model in RANDOM else None).pipeline
            return base_class(name).load(location_of(model) if is_whole(model) else model, dtype).pipeline
    vae = load_vae(base.vae) if base.vae is not None else None
    if model == UNTRAINED:
        pipeline = build_small(seed)
        for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
            cast(part, dtype)
    elif is_file(model):
        pipeline = load_single_file(Path(model), dtype, own_vae=vae is not None)
    else:
        location = location_of(model)
        if not Path(location).exists():
            _check_hub(model)
        dtypes = {"default": dtype, "vae": torch.float32}
        with loading(f"model {model!r}", location, EXPECTED):
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                location,
                dtype=dtypes,
                variant=variant_of(location, dtype),
                trust_remote_code=False,
                use_safetensors=True,
                **({} if vae is None else {"vae": vae}),
            )
    if vae is not None and base.vae is not None:
        own = pipeline.vae.config
        if pipeline.vae is vae:  # the folder's own wasn't loaded
            with suppress(OSError):  # and it may have none
                own = AutoencoderKL.load_config(location, subfolder="vae")
        check_scaling(vae, own, base.vae)
        pipeline.register_modules(vae=vae)
    cast(pipeline.vae, torch.float32)
    check_sdxl(pipeline, model)
    own = dict(pipeline.scheduler.config)
    if is_file(model):
        own |= file_schedule(read_checkpoint(Path(model), model, vae is not None))
    schedule = scheduled(own, base, model)
    if schedule != dict(pipeline.scheduler.config):
        pipeline.register_modules(scheduler=EulerDiscreteScheduler.from_config(schedule))
    return pipeline


def _check_hub(model: str) -> None:
    """Check that a hub id is an SDXL's: how pictures are cut must be known before another base is downloaded.

    Raises:
        ModelError: it is another base; says how to get it.
    """
    try:
        with loading(f"model {model!r}", model, EXPECTED):
            index = Path(hf_hub_download(model, "model_index.json"))
            kind = str(dict(parse_json(index.read_text(encoding="utf-8"))).get("_class_name"))
    except ModelError:  # loading says why, if the rest can't be had either
        return
    if kind in BASES and BASES[kind].flow:
        raise ModelError(
            f"model {model!r}: is {BASES[kind].title}, which isn't on this machine yet: run `hf download {model}`, "
            "then the same command again"
        )


def check_sdxl(pipeline: StableDiffusionXLPipeline, name: str) -> None:
    """Check that a pipeline has SDXL's parts with matching sizes; `name` is for error messages.

    Raises:
        ModelError: a part is missing, two sizes don't match, or as of `check_ddpm`; names both.
    """
    for part in ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        if getattr(pipeline, part, None) is None:
            raise ModelError(f"model {name!r}: expected {EXPECTED}, found no {part}")
    check_ddpm(name, pipeline.scheduler.config, pipeline.vae.config)
    unet, encoders = pipeline.unet.config, (pipeline.text_encoder.config, pipeline.text_encoder_2.config)
    if unet.addition_embed_type != "text_time":
        raise ModelError(
            f"model {name!r}: expected a U-Net with addition_embed_type 'text_time', found {unet.addition_embed_type!r}"
        )
    pooled = 6 * unet.addition_time_embed_dim + encoders[1].projection_dim
    widths = [
        ("unet.in_channels", unet.in_channels, "vae.latent_channels", pipeline.vae.config.latent_channels),
        (
            "unet.cross_attention_dim",
            unet.cross_attention_dim,
            "the text encoders' hidden sizes together",
            encoders[0].hidden_size + encoders[1].hidden_size,
        ),
        (
            "unet.projection_class_embeddings_input_dim",
            unet.projection_class_embeddings_input_dim,
            "6 x addition_time_embed_dim + the pooled width",
            pooled,
        ),
    ]
    for left, found, right, expected in widths:
        if found != expected:
            raise ModelError(f"model {name!r}: expected {left} = {right} = {expected}, found {found}")


def scheduler_config(model: str, base: BaseSettings | None = None) -> Mapping[str, Any] | None:
    """Return the scheduler configuration of a model without loading the model; None if it needs a download.

    Raises:
        ModelError: a folder without a readable scheduler configuration, or one that `base` contradicts.
    """
    base = base or BaseSettings()
    if model == UNTRAINED:
        return scheduled(dict(sdxl_scheduler().config), base, model)
    if is_file(model):
        return scheduled(file_schedule(read_checkpoint(Path(model), model, base.vae is not None)), base, model)
    if not Path(location_of(model)).exists():
        return None
    try:
        found = dict(EulerDiscreteScheduler.load_config(location_of(model), subfolder="scheduler"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model {model!r}: expected {EXPECTED}, found no readable scheduler") from error
    return scheduled(found, base, model)
