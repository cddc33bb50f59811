"""SDXL's original names (sgm, Stability AI's generative-models) for the weights of a diffusers pipeline.

Single-file checkpoints use these names, and so do the LoRA files of kohya, ComfyUI and A1111. One table serves reading
and writing. Source: generative-models, `sgm/modules/diffusionmodules/openaimodel.py` and `model.py`, and open_clip,
`transformer.py`; diffusers' `scripts/convert_original_stable_diffusion_to_diffusers.py` has the same table.

    unet            model.diffusion_model.*
    vae             first_stage_model.*
    text_encoder    conditioner.embedders.0.transformer.text_model.*
    text_encoder_2  conditioner.embedders.1.model.*
"""

import re
from typing import NamedTuple

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(.*)")


class Original(NamedTuple):
    """Where a tensor of a pipeline is in the original layout.

    key: its name there.
    third: 0, 1 or 2 where the original is q, k and v in one tensor [3 d, ...]; None: the whole tensor.
    transposed: the original is the transpose.
    convolution: the original has the shape [out, in, 1, 1].
    """

    key: str
    third: int | None = None
    transposed: bool = False
    convolution: bool = False


def original_of(part: str, name: str, unet_layers: int, vae_levels: int) -> Original:
    """Return where the tensor `name` of a part's `state_dict` is in the original layout.

    Args:
        part: a key of `PREFIXES`.
        name: for example `down_blocks.1.attentions.0.proj_in.weight`.
        unet_layers: the U-Net's `layers_per_block`: 2 in SDXL.
        vae_levels: levels of the VAE: 4 in SDXL.
    """
    prefix = PREFIXES[part]
    if part == "unet":
        return Original(prefix + unet_name(name, unet_layers))
    if part == "vae":
        inside = ".mid_block.attentions." in name and name.endswith(".weight") and "group_norm" not in name
        return Original(prefix + _vae_name(name, vae_levels), convolution=inside)
    name = name.removeprefix("text_model.")  # transformers 5 leaves it out for the first encoder
    if part == "text_encoder":
        return Original(f"{prefix}text_model.{name}")
    if name == "text_projection.weight":
        return Original(prefix + "text_projection", transposed=True)
    return _open_clip(prefix, name)


def unet_name(name: str, layers_per_block: int) -> str:
    """Return the original name of a layer or tensor of the U-Net.

    A level has `layers_per_block` layers on the way down, each with a residual block (0) and, if the level has
    attention, transformers (1), then a downsampler; and `layers_per_block` + 1 layers on the way up, the last with an
    upsampler (2, after the attention).
    """
    for ours, theirs in _UNET_ENDS.items():
        if name == ours or name.startswith(ours + "."):
            rest = name.removeprefix(ours)
            return theirs + (_resnet(rest) if ".resnets." in ours else rest)
    matched = _BLOCK.fullmatch(name)
    if matched is None:
        return name
    way, level, kind, layer, rest = matched[1], int(matched[2]), matched[3], int(matched[4]), matched[5]
    position = level * (layers_per_block + 1)
    if way == "down" and kind == "downsamplers":
        return f"input_blocks.{position + layers_per_block + 1}.0.op{rest.removeprefix('.conv')}"
    if kind == "upsamplers":
        return f"output_blocks.{position + layers_per_block}.2{rest}"
    blocks = f"input_blocks.{position + layer + 1}" if way == "down" else f"output_blocks.{position + layer}"
    return f"{blocks}.0{_resnet(rest)}" if kind == "resnets" else f"{blocks}.1{rest}"


def _resnet(rest: str) -> str:
    layer, dot, end = rest.removeprefix(".").partition(".")
    return f".{_RESNET.get(layer, layer)}{dot}{end}"


def _vae_name(name: str, levels: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    if ".mid_block.attentions.0." in name:
        side, _, layer = name.partition(".mid_block.attentions.0.")
        ours, _, end = layer.rpartition(".")
        return f"{side}.mid.attn_1.{_VAE_ATTENTION.get(ours, ours)}.{end}"
    matched = re.fullmatch(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(.*)", name)
    if matched is None:
        return name
    side, level, kind, layer, rest = matched[1], int(matched[2]), matched[3], matched[4], matched[5]
    # the decoder's levels are numbered from the finest
    where = f"encoder.down.{level}" if side == "encoder" else f"decoder.up.{levels - 1 - level}"
    return f"{where}.block.{layer}{rest}" if kind == "resnets" else f"{where}.{kind.removesuffix('rs')}{rest}"


def _open_clip(prefix: str, name: str) -> Original:
    if name in _OPEN_CLIP_ENDS:
        return Original(prefix + _OPEN_CLIP_ENDS[name])
    number, _, rest = name.removeprefix("encoder.layers.").partition(".")
    block = f"{prefix}transformer.resblocks.{number}."
    layer, _, end = rest.rpartition(".")
    third = _THIRDS.get(layer.removeprefix("self_attn."))
    if third is not None:
        return Original(f"{block}attn.in_proj_{end}", third=third)
    return Original(f"{block}{_OPEN_CLIP.get(layer, layer)}.{end}")
