"""Configurations of a pipeline of SDXL's architecture that is as small as can be: for what only counts its tensors."""

import json
import shutil
from pathlib import Path

from fairhuman.utils.shipped import SMALL_FOLDER

CHANGES = {
    "unet": {
        "block_out_channels": [32, 160],
        "attention_head_dim": [1, 5],
        "transformer_layers_per_block": [1, 1],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "vae": {
        "block_out_channels": [16, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    },
    "text_encoder": {"num_hidden_layers": 1},
    "text_encoder_2": {"num_hidden_layers": 1},
}


def write_shape(folder: Path) -> Path:
    """The small SDXL's configurations with fewer blocks and layers, without weights."""
    for part, changes in CHANGES.items():
        shutil.copytree(SMALL_FOLDER / part, folder / part, ignore=shutil.ignore_patterns("*.safetensors"))
        file = folder / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return folder
