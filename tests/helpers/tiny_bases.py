"""The smallest random pipelines of the true diffusers classes, one for each base of `fairhuman.bases`.

They are built without a download, saved, and loaded like any other. Every parameter has a part in what the network
predicts: layers that start at zero get small random values.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.tokenizer import WORDS, build_tokenizer
from fairhuman.utils.shipped import FLOW_UNTRAINED

WIDTH = 32  # of networks and text encoders, with 2 heads of 16
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sd3() -> StableDiffusion3Pipeline:
    """SD 3.5 medium: `attn2` in the first block; 3 encoders; shift 3."""
    vae = _vae(AutoencoderKL, 16, scaling_factor=1.5305, shift_factor=0.0609)
    network = SD3Transformer2DModel(
        sample_size=16,
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=4 * WIDTH,  # T5's: twice both CLIP encoders' together, as in the published model
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=32,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=_awake(network),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=_clip(CLIPTextModelWithProjection),
        tokenizer=build_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection),
        tokenizer_2=build_tokenizer(),
        text_encoder_3=_t5(4 * WIDTH),
        tokenizer_3=_t5_tokenizer(),
    )


def z_image() -> ZImagePipeline:
    """Z-Image, the base: shift 6, where the turbo has 3."""
    network = ZImageTransformer2DModel(
        in_channels=16,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    return ZImagePipeline(
        transformer=_awake(network),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=_vae(AutoencoderKL, 16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_qwen3(Qwen3Model, 3),
        tokenizer=_qwen_tokenizer(),
    )


def flux2() -> Flux2KleinPipeline:
    """FLUX.2 klein base: a batch norm after the VAE, without a guidance embedding."""
    network = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=False,
    )
    vae = _vae(AutoencoderKLFlux2, 32)
    vae.bn.running_mean.normal_(generator=torch.Generator().manual_seed(2))
    vae.bn.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(3))
    return Flux2KleinPipeline(
        transformer=_awake(network),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=_qwen3(Qwen3ForCausalLM, 27),  # its layers 9, 18 and 27 are read
        tokenizer=_qwen_tokenizer(),
    )


def flux() -> FluxPipeline:
    """FLUX.1 dev: with a guidance embedding."""
    network = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=[4, 6, 6],
    )
    return FluxPipeline(
        transformer=_awake(network),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(AutoencoderKL, 16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_clip(CLIPTextModel),
        tokenizer=build_tokenizer(),
        text_encoder_2=_t5(WIDTH),
        tokenizer_2=_t5_tokenizer(),
    )


def qwen_image() -> QwenImagePipeline:
    """Qwen-Image: a video VAE with a mean and deviation of each channel."""
    network = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1 * channel for channel in range(16)],
        latents_std=[1.0 + 0.1 * channel for channel in range(16)],
    )
    text = {
        "vocab_size": 300,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 1e6},
    }
    vision = {"depth": 1, "hidden_size": WIDTH, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": WIDTH}
    encoder = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    )
    return QwenImagePipeline(
        transformer=_awake(network),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
        vae=vae.eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(encoder).eval(),
        tokenizer=_qwen_tokenizer(1024),
    )


def small_flow() -> Any:
    """The package's own of SD 3's classes: two encoders, a VAE of factor 4."""
    pipeline = load_pipeline(FLOW_UNTRAINED)
    _awake(pipeline.transformer)
    return pipeline


def lumina2() -> Lumina2Pipeline:
    """Lumina Image 2: shift 6."""
    network = Lumina2Transformer2DModel(
        hidden_size=WIDTH,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(300, 64, 64),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=_awake(network),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=_vae(AutoencoderKL, 16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_gemma(),
        tokenizer=_gemma_tokenizer(),
    )


BUILD: dict[str, Callable[[], Any]] = {
    "sd3": sd3,
    "small_flow": small_flow,
    "z_image": z_image,
    "flux2": flux2,
    "flux": flux,
    "qwen_image": qwen_image,
    "lumina2": lumina2,
}


def save_tiny(name: str, folder: Path) -> Path:
    """Build a base's pipeline, always the same, and save it to a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BUILD[name]().save_pretrained(folder)
    return folder


def _awake(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2 or not bool(parameter.any()):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def _vae(kind: Any, channels: int, **more: float) -> Any:
    return kind(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **more,
    ).eval()


def _clip(kind: Any) -> Any:
    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=512,
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return T5EncoderModel(config).eval()


def _qwen3(kind: Any, layers: int) -> Any:
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
    )
    return kind(config).eval()


def _gemma() -> Gemma2Model:
    config = Gemma2Config(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
    )
    return Gemma2Model(config).eval()


def _gemma_tokenizer() -> GemmaTokenizer:
    """A letter a token, so that the system prompt takes 174."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(33, 127))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = GemmaTokenizer(vocab=vocabulary, model_max_length=8192)
    begin = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    tokenizer.backend_tokenizer.post_processor = begin
    return tokenizer


def _qwen_tokenizer(length: int = 512) -> Qwen2Tokenizer:
    """A byte a token."""
    special = ["<|im_start|>", "<|im_end|>"]
    tokens = ["<|endoftext|>", *special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        model_max_length=length,
        extra_special_tokens=special,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def _t5_tokenizer() -> T5Tokenizer:
    """The words of the small SDXL, and letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -5.0) for word in WORDS] + [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz,.-"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
