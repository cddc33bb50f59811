"""Names and shapes of the tensors in published checkpoints of evaluation networks."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from helpers.tiny_prompt_networks import Shapes, linear, norm

EYE, MIND = "blip.visual_encoder", "blip.text_encoder"


def tower(name: str, width: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        block = f"{name}resblocks.{layer}"
        shapes |= norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{block}.attn.out_proj", width, width)
        shapes |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(f"{block}.mlp.c_proj", width, 4 * width)
    return shapes


def hps_shapes(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the checkpoint, from the description of open_clip's CLIP."""
    vision, text, out = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    width, words = vision["width"], text["width"]
    return {
        "positional_embedding": (text["context_length"], words),
        "text_projection": (words, out),
        "logit_scale": (),
        "token_embedding.weight": (text["vocab_size"], words),
        **norm("ln_final", words),
        **tower("transformer.", words, text["layers"]),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (patches + 1, width),
        "visual.proj": (width, out),
        "visual.conv1.weight": (width, 3, vision["patch_size"], vision["patch_size"]),
        **norm("visual.ln_pre", width),
        **norm("visual.ln_post", width),
        **tower("visual.transformer.", width, vision["layers"]),
    }


def reward_shapes(vision: Mapping[str, Any], text: Mapping[str, Any]) -> Shapes:
    """Names and shapes of ImageReward.pt, from the authors' modules: a timm ViT, a BERT, linear layers."""
    wide, inner, side = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    width, words = text["hidden_size"], text["intermediate_size"]
    shapes: Shapes = {
        f"{EYE}.cls_token": (1, 1, wide),
        f"{EYE}.pos_embed": (1, (vision["image_size"] // side) ** 2 + 1, wide),
        f"{EYE}.patch_embed.proj.weight": (wide, 3, side, side),
        f"{EYE}.patch_embed.proj.bias": (wide,),
        **norm(f"{EYE}.norm", wide),
        f"{MIND}.embeddings.position_ids": (1, text["max_position_embeddings"]),
        f"{MIND}.embeddings.word_embeddings.weight": (text["vocab_size"], width),
        f"{MIND}.embeddings.position_embeddings.weight": (text["max_position_embeddings"], width),
        **norm(f"{MIND}.embeddings.LayerNorm", width),
        **linear("blip.vision_proj", 256, wide),
        **linear("blip.text_proj", 256, width),
    }
    for number in range(vision["num_hidden_layers"]):
        block = f"{EYE}.blocks.{number}"
        shapes |= norm(f"{block}.norm1", wide) | norm(f"{block}.norm2", wide)
        shapes |= linear(f"{block}.attn.qkv", 3 * wide, wide) | linear(f"{block}.attn.proj", wide, wide)
        shapes |= linear(f"{block}.mlp.fc1", inner, wide) | linear(f"{block}.mlp.fc2", wide, inner)
    for number in range(text["num_hidden_layers"]):
        layer = f"{MIND}.encoder.layer.{number}"
        for attention, source in (("attention", width), ("crossattention", text["encoder_hidden_size"])):
            shapes |= linear(f"{layer}.{attention}.self.query", width, width)
            shapes |= linear(f"{layer}.{attention}.self.key", width, source)
            shapes |= linear(f"{layer}.{attention}.self.value", width, source)
            shapes |= linear(f"{layer}.{attention}.output.dense", width, width)
            shapes |= norm(f"{layer}.{attention}.output.LayerNorm", width)
        shapes |= linear(f"{layer}.intermediate.dense", words, width) | linear(f"{layer}.output.dense", width, words)
        shapes |= norm(f"{layer}.output.LayerNorm", width)
    widths = [width, 1024, 128, 64, 16, 1]
    for number, into, out in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        shapes |= linear(f"mlp.layers.{number}", out, into)
    return shapes


def clip_shapes() -> Shapes:
    """Names and shapes of openai/clip-vit-large-patch14, without the whole numbers of `position_ids`."""
    shapes: Shapes = {
        "logit_scale": (),
        "text_projection.weight": (768, 768),
        "visual_projection.weight": (768, 1024),
        "text_model.embeddings.token_embedding.weight": (49408, 768),
        "text_model.embeddings.position_embedding.weight": (77, 768),
        **norm("text_model.final_layer_norm", 768),
        "vision_model.embeddings.class_embedding": (1024,),
        "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (257, 1024),
        **norm("vision_model.pre_layrnorm", 1024),
        **norm("vision_model.post_layernorm", 1024),
    }
    for part, width, layers in (("text_model", 768, 12), ("vision_model", 1024, 24)):
        for number in range(layers):
            layer = f"{part}.encoder.layers.{number}"
            shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes |= linear(f"{layer}.self_attn.{name}", width, width)
            shapes |= linear(f"{layer}.mlp.fc1", 4 * width, width) | linear(f"{layer}.mlp.fc2", width, 4 * width)
    return shapes


def inception_shapes() -> dict[str, torch.Size]:
    """Names and shapes that torch-fidelity's network expects, found without weights."""

    class ToldError(Exception):
        pass

    class Empty(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: Any) -> None:
            raise ToldError({name: value.shape for name, value in self.state_dict().items()})

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    try:
        with torch.device("meta"):
            Empty("empty", ["2048"], feature_extractor_weights_path=nothing)
    except ToldError as told:
        found: dict[str, torch.Size] = told.args[0]
        return found
    raise AssertionError("torch-fidelity's network loaded no weights")


def inception_state() -> dict[str, Tensor]:
    """Random weights of the real shape, scaled so that features are neither zero nor huge."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in inception_shapes().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("conv.weight"):
            inputs = shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=generator) * (2 / inputs) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=generator)
    return state
