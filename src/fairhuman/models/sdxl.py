"""SDXL pipelines: load and check; encode pictures and captions for the U-Net; decode latents."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
from torch import Tensor, nn

from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_small, cast, sdxl_scheduler
from fairhuman.models.base import file_schedule, load_vae, scheduled, variant_of
from fairhuman.models.checkpoint_file import read_checkpoint
from fairhuman.models.locations import EXPECTED, UNTRAINED, check_base, is_file, location_of
from fairhuman.models.settings import BaseSettings
from fairhuman.models.single_file import load_single_file
from fairhuman.utils.hub import loading

_VAE_OVERFLOWS = "its weights overflow; use madebyollin/sdxl-vae-fp16-fix, or a VAE saved in float32"


def load_pipeline(
    model: str, seed: int = 0, dtype: torch.dtype = torch.float32, base: BaseSettings | None = None
) -> StableDiffusionXLPipeline:
    """Load a pipeline: `"small"`, which ships with the package, `"small-untrained"`, a folder, a file or a hub id.

    Args:
        model: `"small-untrained"` has the architecture of `"small"` and random weights; a file is an SDXL checkpoint in
            the original layout (`models/single_file.py`).
        seed: of the random weights.
        dtype: of the U-Net and the text encoders; the VAE is loaded in float32, as SDXL's overflows in float16.
        base: a VAE in place of the model's own, and what the U-Net predicts; None: all as the model states.

    Raises:
        ModelError: nothing found at `model`, or it isn't an SDXL.
    """
    base = base or BaseSettings()
    check_base(model, base)
    vae = load_vae(base.vae) if base.vae is not None else None
    if model == UNTRAINED:
        pipeline = build_small(seed)
        for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
            cast(part, dtype)
    elif is_file(model):
        pipeline = load_single_file(Path(model), dtype, own_vae=vae is not None)
    else:
        location = location_of(model)
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
    if vae is not None:
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


def check_sdxl(pipeline: StableDiffusionXLPipeline, name: str) -> None:
    """Check that a pipeline has SDXL's parts with matching sizes; `name` is for error messages.

    Raises:
        ModelError: a part is missing, or two sizes don't match; names both.
    """
    for part in ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        if getattr(pipeline, part, None) is None:
            raise ModelError(f"model {name!r}: expected {EXPECTED}, found no {part}")
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


def networks(pipeline: StableDiffusionXLPipeline) -> tuple[nn.Module, ...]:
    """Return all modules of the pipeline that hold weights."""
    return pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2


def vae_factor(vae: AutoencoderKL) -> int:
    """Return the pixels per latent cell and side: 8 for SDXL, 4 for the small SDXL."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


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


def noise_scheduler(pipeline: StableDiffusionXLPipeline) -> DDPMScheduler:
    """Return the training scheduler with the betas and prediction type of the pipeline's scheduler."""
    return DDPMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)


def encode_pictures(vae: AutoencoderKL, pictures_bchw: Tensor, noise_bchw: Tensor | None = None) -> Tensor:
    """Encode pictures in [-1, 1] to the U-Net's latents: mean + std · noise, from `latent_moments`.

    `noise_bchw` is standard normal in the latents' shape; None: return the mean.

    Raises:
        ModelError: as in `latent_moments`.
    """
    mean_bchw, std_bchw = latent_moments(vae, pictures_bchw)
    return mean_bchw if noise_bchw is None else mean_bchw + std_bchw * noise_bchw.float()


def latent_moments(vae: AutoencoderKL, pictures_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std of the U-Net's latents for pictures in [-1, 1], shifted and scaled, float32.

    The VAE runs (and is left) in float32.

    Raises:
        ModelError: a picture side isn't a multiple of the VAE's factor, or a latent isn't finite.
    """
    factor = vae_factor(vae)
    if pictures_bchw.ndim != 4 or pictures_bchw.shape[1] != 3 or any(s % factor for s in pictures_bchw.shape[2:]):
        raise ModelError(
            f"pictures must be [B, 3, H, W] with H and W multiples of the VAE's factor {factor}, "
            f"found {list(pictures_bchw.shape)}"
        )
    cast(vae, torch.float32)
    with torch.no_grad(), torch.autocast(pictures_bchw.device.type, enabled=False):
        posterior = vae.encode(pictures_bchw.float()).latent_dist
    shift, scale = _shift_and_scale(vae)
    mean_bchw, std_bchw = (posterior.mean - shift) * scale, posterior.std * scale
    check_finite(mean_bchw + std_bchw, "the VAE's latents", _VAE_OVERFLOWS)
    return mean_bchw, std_bchw


def decode_latents(vae: AutoencoderKL, latents_bchw: Tensor) -> Tensor:
    """Decode the U-Net's latents to pictures [B, 3, H, W] in [-1, 1]; the VAE runs (and is left) in float32.

    Raises:
        ModelError: a decoded value isn't finite.
    """
    cast(vae, torch.float32)
    shift, scale = _shift_and_scale(vae)
    with torch.no_grad(), torch.autocast(latents_bchw.device.type, enabled=False):
        pictures_bchw: Tensor = vae.decode(latents_bchw.float() / scale + shift).sample
    check_finite(pictures_bchw, "the VAE's pictures", _VAE_OVERFLOWS)
    return pictures_bchw.clamp(-1, 1)


def encode_prompts(pipeline: StableDiffusionXLPipeline, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Encode captions as `pipeline.encode_prompt` does: embeddings [B, 77, D] and pooled ones [B, P].

    An empty caption gives the unconditional embeddings of sampling: zeros if the pipeline's config has
    `force_zeros_for_empty_prompt` (as SDXL's has), otherwise the encoded empty text. Differentiable: callers with
    frozen encoders should use `torch.no_grad()`.
    """
    embeds, pooled = [], None
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        texts = [pipeline.maybe_convert_prompt(caption, tokenizer) for caption in captions]
        tokens = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        output = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
        embeds.append(output.hidden_states[-2])
        pooled = output[0]
    assert pooled is not None
    embeds_bnd = torch.cat(embeds, dim=-1)
    if pipeline.config.force_zeros_for_empty_prompt:
        keep_b = torch.tensor([caption != "" for caption in captions], device=pooled.device)
        embeds_bnd = embeds_bnd * keep_b[:, None, None]
        pooled = pooled * keep_b[:, None]
    return embeds_bnd, pooled


def check_finite(tensor: Tensor, name: str, advice: str) -> None:
    """Check that all values of `tensor` are finite; the message has `name` and `advice` on what to do.

    Raises:
        ModelError: a value is infinite or NaN.
    """
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ModelError(f"{name}: {bad} of {tensor.numel()} values aren't finite: {advice}")


@contextmanager
def evaluating(pipeline: StableDiffusionXLPipeline) -> Iterator[None]:
    """Put all modules of the pipeline in eval mode; restore each one's own mode afterwards."""
    parts = networks(pipeline)
    modes = [(module, module.training) for part in parts for module in part.modules()]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _shift_and_scale(vae: AutoencoderKL) -> tuple[float, float]:
    return float(vae.config.shift_factor or 0.0), float(vae.config.scaling_factor)
