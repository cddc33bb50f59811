"""Evaluation networks load random weights of their true shapes under the published names; none is left over.

Inception's is among the everyday tests.
"""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fairhuman.evaluate.networks.blip import IGNORED, TEXT, VISION
from fairhuman.evaluate.networks.clip_score import CLIPScore
from fairhuman.evaluate.networks.hps import HumanPreferenceScore
from fairhuman.evaluate.networks.image_reward import ImageReward
from fairhuman.utils.clip_tokenizer import clip_tokenizer
from helpers.published_shapes import clip_shapes, hps_shapes, reward_shapes
from helpers.tiny_prompt_networks import WORDS, Shapes, picture, write_bert_tokenizer

pytestmark = [pytest.mark.size, pytest.mark.timeout(3600)]
PROMPT = "a woman waving with both hands"


def numbers(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Small random numbers, in half precision."""
    return {name: 0.02 * torch.randn(shape, dtype=torch.float16) for name, shape in shapes.items()}


def weights_of(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())


def count(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def test_hps(tmp_path: Path) -> None:
    shapes = hps_shapes(open_clip.get_model_config("ViT-H-14"))
    torch.save({"state_dict": numbers(shapes)}, tmp_path / "hps.pt")
    score = HumanPreferenceScore(str(tmp_path / "hps.pt"))
    assert weights_of(score._network) == count(shapes)
    assert abs(score.extract(score.prepare(picture(1))[None], [PROMPT])).max() <= 1.0


def test_image_reward(tmp_path: Path) -> None:
    shapes = reward_shapes(VISION, TEXT)
    torch.save(numbers(shapes), tmp_path / "reward.pt")
    words = [*WORDS, *(f"[unused{number}]" for number in range(TEXT["vocab_size"] - 2 - len(WORDS)))]
    score = ImageReward(str(tmp_path / "reward.pt"), write_bert_tokenizer(tmp_path / "bert", words))
    assert weights_of(score._network) == count({name: of for name, of in shapes.items() if name not in IGNORED})
    assert score.extract(score.prepare(picture(1))[None], [PROMPT]).shape == (1, 1)


def test_clip(tmp_path: Path) -> None:
    shapes = clip_shapes()
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    settings = {"model_type": "clip", "projection_dim": 768, "text_config": text}
    settings |= {"vision_config": {**vision, "patch_size": 14, "image_size": 224}}
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    clip_tokenizer().save_pretrained(tmp_path)
    save_file(numbers(shapes), tmp_path / "model.safetensors", metadata={"format": "pt"})
    score = CLIPScore(str(tmp_path))
    assert weights_of(score._network) == count(shapes)
    assert abs(score.extract(score.prepare(picture(1))[None], [PROMPT])).max() <= 1.0
