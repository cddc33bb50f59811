"""Which LoRA keys ComfyUI reads, for each base: those that its map has under the prefix `transformer.`.

Stated from Comfy-Org/ComfyUI: `model_lora_keys_unet` in `comfy/lora.py` at 17358c8, and `mmdit_to_diffusers`,
`flux_to_diffusers` and `z_image_to_diffusers` in `comfy/utils.py` at 09708ea. FLUX.2 is a FLUX there
(`comfy/model_base.py` at 094c74c), and the map has the layers of its single blocks too; a Qwen-Image there has
diffusers' own names. ComfyUI only warns of others. A base that isn't here has names that it doesn't read.
"""

import re

_JOINT = r"attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out)"
_FEED_FORWARD = r"ff(_context)?\.net\.(0\.proj|2)"
_BLOCK, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\."
_SD3 = re.compile(rf"{_BLOCK}({_JOINT}|attn2\.(to_[qkv]|to_out\.0)|{_FEED_FORWARD}|norm1(_context)?\.linear)")
COMFY_KEYS = {
    "sd3": _SD3,
    "small_flow": _SD3,
    "flux": re.compile(rf"{_BLOCK}({_JOINT}|{_FEED_FORWARD})|{_SINGLE}(attn\.to_[qkv]|proj_mlp|proj_out)"),
    "flux2": re.compile(rf"{_BLOCK}{_JOINT}|{_SINGLE}attn\.(to_qkv_mlp_proj|to_out)"),
    "z_image": re.compile(r"(layers|noise_refiner|context_refiner)\.\d+\.attention\.(to_[qkv]|to_out\.0)"),
    "qwen_image": re.compile(rf"{_BLOCK}({_JOINT}|(img|txt)_mlp\.net\.(0\.proj|2))"),
}
