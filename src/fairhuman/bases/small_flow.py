"""The small flow base: Stable Diffusion 3's classes, with the VAE, text encoders and tokenizers of the small SDXL.

The transformer reads the penultimate hidden states of both encoders side by side, as the small SDXL's U-Net does, and
the pooled outputs of both. There is no T5 and none of its tokens.
"""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fairhuman.bases.latents import cast
from fairhuman.bases.sd3 import SD3
from fairhuman.utils.shipped import SMALL_FLOW_FOLDER, SMALL_FOLDER

MODULATION = 0.02  # deviation of the layers that scale and gate a block's branches, at the start


def load_small_flow(dtype: torch.dtype = torch.float32, seed: int | None = None) -> SD3:
    """Assemble the pipeline from the package's files.

    Args:
        dtype: of the transformer and the text encoders; the VAE is in float32.
        seed: of random weights of the transformer; None: the trained ones.
    """
    if seed is None:
        network = SD3Transformer2DModel.from_pretrained(
            SMALL_FLOW_FOLDER, subfolder="transformer", dtype=dtype, use_safetensors=True
        )
    else:
        network = random_transformer(seed)
        cast(network, dtype)
    one = CLIPTextModel.from_pretrained(SMALL_FOLDER, subfolder="text_encoder", dtype=dtype, use_safetensors=True)
    two = CLIPTextModelWithProjection.from_pretrained(
        SMALL_FOLDER, subfolder="text_encoder_2", dtype=dtype, use_safetensors=True
    )
    vae = AutoencoderKL.from_pretrained(SMALL_FOLDER, subfolder="vae", dtype=torch.float32, use_safetensors=True)
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds it
    tokenizers = (CLIPTokenizer.from_pretrained(SMALL_FOLDER / part) for part in ("tokenizer", "tokenizer_2"))
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(SMALL_FLOW_FOLDER, subfolder="scheduler")
    encoders = (with_projection(one), next(tokenizers), two, next(tokenizers), None, None)
    return SD3(SD3.kind(network, scheduler, vae, *encoders))


def with_projection(encoder: CLIPTextModel) -> CLIPTextModelWithProjection:
    """Return a text encoder with the identity as projection, as Stable Diffusion 3's first encoder has it."""
    with torch.random.fork_rng(devices=[]):  # of weights that are replaced
        found = CLIPTextModelWithProjection(encoder.config)
    found.text_model = encoder
    nn.init.eye_(found.text_projection.weight)
    cast(found, encoder.dtype)
    return found.eval()


def random_transformer(seed: int) -> SD3Transformer2DModel:
    """Build the transformer with random weights from `seed` alone, of the shape that its configuration states.

    Blocks begin near the identity and the prediction near zero (Peebles and Xie, Scalable Diffusion Models with
    Transformers, ICCV 2023, where both begin at zero: then a LoRA would have no gradient).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = SD3Transformer2DModel.load_config(SMALL_FLOW_FOLDER, subfolder="transformer")
        network: SD3Transformer2DModel = SD3Transformer2DModel.from_config(config)
        modulations = [block.norm1.linear for block in network.transformer_blocks]
        modulations += [block.norm1_context.linear for block in network.transformer_blocks]
        for layer in (*modulations, network.norm_out.linear, network.proj_out):
            nn.init.normal_(layer.weight, std=MODULATION)
            nn.init.zeros_(layer.bias)
    return network.eval()
