"""Configurations of published models, by which a run's memory is known before anything is downloaded. Needs no torch.

Only what decides on shapes is here; all else is the classes' default. Sources: the models' pages on the hub, and the
defaults of diffusers' and transformers' classes.
"""

from collections.abc import Mapping
from typing import Any

Part = tuple[str, str, Mapping[str, Any]]  # library, class, configuration


def _transformers(kind: str, model_type: str, **values: Any) -> Part:
    return "transformers", kind, {"model_type": model_type, **values}


def _clip(kind: str, width: int, layers: int, heads: int) -> Part:
    """A CLIP text encoder of 77 tokens; the projection is as wide as the encoder."""
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    return _transformers(kind, "clip_text_model", **shape, num_hidden_layers=layers, num_attention_heads=heads)


def _qwen3(kind: str, width: int, inner: int, tied: bool) -> Part:
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    shape = {"vocab_size": 151936, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 36, **heads}
    return _transformers(kind, "qwen3", **shape, tie_word_embeddings=tied)


def _sd3(layers: int, side: int, **more: Any) -> Mapping[str, Part]:
    """Stable Diffusion 3.5 with as many heads as layers."""
    shape = {"num_layers": layers, "num_attention_heads": layers, "caption_projection_dim": 64 * layers}
    text = {"joint_attention_dim": 4096, "pooled_projection_dim": 2048}
    network = {"sample_size": 128, "in_channels": 16, "attention_head_dim": 64, "qk_norm": "rms_norm", **more}
    return {
        "transformer": ("diffusers", "SD3Transformer2DModel", {**network, **shape, **text, "pos_embed_max_size": side}),
        "vae": _vae(1.5305, 0.0609),
        "text_encoder": _clip("CLIPTextModelWithProjection", 768, 12, 12),
        "text_encoder_2": _clip("CLIPTextModelWithProjection", 1280, 32, 20),
        "text_encoder_3": T5_XXL,
        "scheduler": _flow(shift=3.0),
    }


def _klein(layers: int, single: int, heads: int, text_encoder: Part) -> Mapping[str, Part]:
    """FLUX.2 klein; it reads three layers of its text encoder."""
    shape = {"num_layers": layers, "num_single_layers": single, "num_attention_heads": heads, "attention_head_dim": 128}
    text = {"joint_attention_dim": 3 * text_encoder[2]["hidden_size"], "guidance_embeds": False}
    return {
        "transformer": ("diffusers", "Flux2Transformer2DModel", {"in_channels": 128, **shape, **text}),
        "vae": ("diffusers", "AutoencoderKLFlux2", {}),
        "text_encoder": text_encoder,
        "scheduler": _flow(shift=3.0, use_dynamic_shifting=True),
    }


def _vae(scale: float, shift: float) -> Part:
    """The VAE of 16 channels that Stable Diffusion 3.5, FLUX.1 and Z-Image have, with factors of their own."""
    shape = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    bare = {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": scale, "shift_factor": shift}
    return "diffusers", "AutoencoderKL", {"sample_size": 1024, **shape, **blocks, **bare}


def _flow(**values: Any) -> Part:
    return "diffusers", "FlowMatchEulerDiscreteScheduler", values


T5_XXL = _transformers(
    *("T5EncoderModel", "t5"),
    vocab_size=32128,
    d_model=4096,
    d_kv=64,
    d_ff=10240,
    num_layers=24,
    num_heads=64,
    feed_forward_proj="gated-gelu",
)
QWEN_VL = _transformers(
    *("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"),
    text_config={
        **{"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28},
        **{"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False},
    },
    vision_config={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    },
    tie_word_embeddings=False,
)

# Parts that hold weights, and the scheduler, by hub id.
PUBLISHED: Mapping[str, Mapping[str, Part]] = {
    "stabilityai/stable-diffusion-3.5-medium": _sd3(24, 384, dual_attention_layers=list(range(13))),
    "stabilityai/stable-diffusion-3.5-large": _sd3(38, 192),
    "Tongyi-MAI/Z-Image": {
        "transformer": ("diffusers", "ZImageTransformer2DModel", {}),
        "vae": _vae(0.3611, 0.1159),
        "text_encoder": _qwen3("Qwen3Model", 2560, 9728, tied=True),
        "scheduler": _flow(shift=6.0),
    },
    "black-forest-labs/FLUX.2-klein-base-4B": _klein(5, 20, 24, _qwen3("Qwen3ForCausalLM", 2560, 9728, tied=True)),
    "black-forest-labs/FLUX.2-klein-base-9B": _klein(8, 24, 32, _qwen3("Qwen3ForCausalLM", 4096, 12288, tied=False)),
    "black-forest-labs/FLUX.1-dev": {
        "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
        "vae": _vae(0.3611, 0.1159),
        "text_encoder": _clip("CLIPTextModel", 768, 12, 12),
        "text_encoder_2": T5_XXL,
        "scheduler": _flow(shift=3.0, use_dynamic_shifting=True),
    },
    "Alpha-VLLM/Lumina-Image-2.0": {
        "transformer": ("diffusers", "Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
        "vae": _vae(0.3611, 0.1159),
        "text_encoder": _transformers("Gemma2Model", "gemma2"),
        "scheduler": _flow(shift=6.0),
    },
    "Qwen/Qwen-Image": {
        "transformer": ("diffusers", "QwenImageTransformer2DModel", {}),
        "vae": ("diffusers", "AutoencoderKLQwenImage", {}),
        "text_encoder": QWEN_VL,
        "scheduler": _flow(use_dynamic_shifting=True),
    },
}
