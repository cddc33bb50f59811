"""ImageReward's network built from transformers modules, and the mapping of its checkpoint's names."""

import re
from collections.abc import Mapping

from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

# ViT-L/16 and BERT-base with cross-attention to the picture: train/src/models/{blip,vit}.py and med_config.json of
# github.com/THUDM/ImageReward. The defaults of transformers differ in eps and number of heads.
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "encoder_hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
}

# Substitutions from the checkpoint's names to those of `RewardNetwork`, applied in order.
_RENAMED = [
    (r"^mlp\.layers\.", "mlp."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^blip\.visual_encoder\.", "vision."),
    (r"^vision\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^vision\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^vision\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^vision\.norm\.", "vision.post_layernorm."),
    (r"^vision\.blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"^vision\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"^vision\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^vision\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
]
# Position indices and the heads of BLIP's contrastive training; the reward uses neither.
IGNORED = frozenset(
    (
        "blip.text_encoder.embeddings.position_ids",
        "blip.vision_proj.weight",
        "blip.vision_proj.bias",
        "blip.text_proj.weight",
        "blip.text_proj.bias",
    )
)


class RewardNetwork(nn.Module):
    """Predicts a scalar human-preference reward of a picture for a prompt.

    The bidirectional text encoder cross-attends to the picture's patches in each layer; the output of its first token
    passes through five linear layers with only dropout in between.
    """

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.mlp = nn.Sequential(
            nn.Linear(text.hidden_size, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, images_bchw: Tensor, tokens_bl: Tensor, mask_bl: Tensor) -> Tensor:
        """Raw reward [B] of pictures and tokenised prompts; the mask is 1 for tokens and 0 for padding."""
        patches_bnd = self.vision(pixel_values=images_bchw).last_hidden_state
        read_bld = self.text(input_ids=tokens_bl, attention_mask=mask_bl, encoder_hidden_states=patches_bnd)
        rewards_b1: Tensor = self.mlp(read_bld.last_hidden_state[:, 0])
        return rewards_b1[:, 0]


def rename_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors renamed to those of `RewardNetwork`, without `IGNORED`; unknown names stay."""
    return {_name(name): tensor for name, tensor in state.items() if name not in IGNORED}


def _name(name: str) -> str:
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    return name
