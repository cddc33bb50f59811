"""A tiny, real Depth Anything with random weights, saved as any of its kind is."""

from pathlib import Path

import torch
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

SIDE = 28


def save_depth_model(folder: Path, **config: object) -> str:
    backbone = Dinov2Config(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=SIDE,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    model_config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=8,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        head_in_channels=8,
        head_hidden_size=8,
        **config,
    )
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(model_config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return str(folder)
