"""The architectures of SDXL and of the small SDXL."""

from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from fairhuman.bases.latents import cast
from fairhuman.models.checkpoint_file import Architecture
from fairhuman.models.tokenizer import build_tokenizer
from fairhuman.utils.clip_tokenizer import clip_tokenizer
from fairhuman.utils.shipped import SMALL_FOLDER

_SDXL_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
_SDXL_TEXT = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}
_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def sdxl_unet_config() -> dict[str, Any]:
    """Return the arguments of UNet2DConditionModel for SDXL base 1.0: 2,567 million parameters."""
    return {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }


def sdxl_scheduler() -> EulerDiscreteScheduler:
    """Return SDXL base's scheduler, as its scheduler_config.json states it."""
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )


def build_small(seed: int = 0) -> StableDiffusionXLPipeline:
    """Build a small SDXL pipeline of the original classes, with random weights from `seed` alone.

    It draws 128 px pictures: a VAE of factor 4 and 0.65M parameters, a U-Net of SDXL's three levels with
    6.1M, two text encoders of 2 layers x 64. One training step of the U-Net with 8 pictures takes about
    0.5 s on one CPU core in float32, 0.36 s in bfloat16.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = _from_configurations(str(SMALL_FOLDER))
    for component in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        component.eval()
    return pipeline


def build_sdxl_shape(
    device: torch.device | str = "meta", dtype: torch.dtype = torch.float32
) -> StableDiffusionXLPipeline:
    """Build SDXL base 1.0 without its weights.

    Args:
        device: `meta`: shapes without weights or memory; any other: random weights, created there, the same each time.
        dtype: of the U-Net and the text encoders; the VAE is float32.
    """
    on = torch.device(device)
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []), on:
        torch.manual_seed(0)
        pipeline = _assemble(
            AutoencoderKL(**_SDXL_VAE),
            CLIPTextModel(CLIPTextConfig(**_SDXL_TEXT, **_CLIP_L)),
            CLIPTextModelWithProjection(CLIPTextConfig(**_SDXL_TEXT, **_OPEN_CLIP_G)),
            UNet2DConditionModel(**sdxl_unet_config()),
        )
    for part in (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.unet):
        cast(part, dtype)
    return pipeline


def build_meta(architecture: Architecture) -> StableDiffusionXLPipeline:
    """Build a pipeline on `meta`, without weights, but with the tokenizers and the scheduler that its files go with."""
    with torch.device("meta"):
        pipeline = build_small() if architecture == "small" else build_sdxl_shape()
    if architecture == "sdxl":
        pipeline.register_modules(tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(pad="!"))
    return pipeline


def build_shape(folder: str) -> StableDiffusionXLPipeline:
    """Build a saved pipeline (folder or hub id) on `meta`, from its configurations alone.

    Raises:
        OSError: a configuration is missing.
    """
    with torch.device("meta"):
        return _from_configurations(folder)


def _from_configurations(folder: str) -> StableDiffusionXLPipeline:
    """Build the networks in float32; their settings are as if given by hand, as the keys of caches contain them."""
    text, text_2 = (
        CLIPTextConfig.from_pretrained(folder, subfolder=part, dtype=None, architectures=None)
        for part in ("text_encoder", "text_encoder_2")
    )
    vae, unet = (
        {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        for config in (
            AutoencoderKL.load_config(folder, subfolder="vae"),
            UNet2DConditionModel.load_config(folder, subfolder="unet"),
        )
    )
    return _assemble(
        AutoencoderKL.from_config(vae),
        CLIPTextModel(text),
        CLIPTextModelWithProjection(text_2),
        UNet2DConditionModel.from_config(unet),
    )


def _assemble(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection,
    unet: UNet2DConditionModel,
) -> StableDiffusionXLPipeline:
    with torch.device("cpu"):
        return StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=build_tokenizer(),
            tokenizer_2=build_tokenizer(),
            unet=unet,
            scheduler=sdxl_scheduler(),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
