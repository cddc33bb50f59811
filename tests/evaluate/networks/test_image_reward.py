"""ImageReward against a plain statement of it, on weights under the names of the original checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BlipTextConfig, BlipVisionConfig

from fairhuman.evaluate.networks.blip import IGNORED, TEXT, VISION, RewardNetwork, rename_tensors
from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.networks.image_reward import MAX_TOKENS, ImageReward
from helpers.published_shapes import EYE, MIND, reward_shapes
from helpers.tiny_prompt_networks import (
    PROMPTS,
    TINY_TEXT,
    TINY_VISION,
    WORDS,
    apply,
    attend,
    check_rows_depend_on_their_own_picture_and_prompt,
    normed,
    picture,
    random_state,
    write_bert_tokenizer,
)


def look(state: Mapping[str, Tensor], image_chw: Tensor) -> Tensor:
    """The picture's patches by a ViT that normalises before each part, [1, N, D]."""
    weight, bias = state[f"{EYE}.patch_embed.proj.weight"], state[f"{EYE}.patch_embed.proj.bias"]
    patches = functional.conv2d(image_chw[None], weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{EYE}.cls_token"], patches], 1) + state[f"{EYE}.pos_embed"]
    for number in range(TINY_VISION["num_hidden_layers"]):
        block = f"{EYE}.blocks.{number}"
        qkv = apply(state, f"{block}.attn.qkv", normed(state, f"{block}.norm1", x, 1e-6))
        x = x + apply(state, f"{block}.attn.proj", attend(*qkv.chunk(3, -1), TINY_VISION["num_attention_heads"]))
        inner = functional.gelu(apply(state, f"{block}.mlp.fc1", normed(state, f"{block}.norm2", x, 1e-6)))
        x = x + apply(state, f"{block}.mlp.fc2", inner)
    return normed(state, f"{EYE}.norm", x, 1e-6)


def attention(state: Mapping[str, Tensor], name: str, x: Tensor, source: Tensor, add: Tensor | None) -> Tensor:
    query, key, value = (
        apply(state, f"{name}.self.{part}", of) for part, of in (("query", x), ("key", source), ("value", source))
    )
    found = attend(query, key, value, TINY_TEXT["num_attention_heads"], add)
    return normed(state, f"{name}.output.LayerNorm", apply(state, f"{name}.output.dense", found) + x, 1e-12)


def plain_reward(state: Mapping[str, Tensor], image_chw: Tensor, prompt: str) -> float:
    """[CLS] words [SEP] padded to 35; BERT with a look at the picture in each layer; linear layers on [CLS]."""
    tokens = [WORDS.index(word) for word in ("[CLS]", *prompt.split(), "[SEP]")]
    add = torch.tensor([0.0] * len(tokens) + [-10000.0] * (35 - len(tokens)))
    tokens += [0] * (35 - len(tokens))
    patches = look(state, image_chw)
    embeddings = f"{MIND}.embeddings"
    x = state[f"{embeddings}.word_embeddings.weight"][tokens] + state[f"{embeddings}.position_embeddings.weight"][:35]
    x = normed(state, f"{embeddings}.LayerNorm", x[None], 1e-12)
    for number in range(TINY_TEXT["num_hidden_layers"]):
        layer = f"{MIND}.encoder.layer.{number}"
        x = attention(state, f"{layer}.attention", x, x, add)
        x = attention(state, f"{layer}.crossattention", x, patches, None)
        inner = functional.gelu(apply(state, f"{layer}.intermediate.dense", x))
        x = normed(state, f"{layer}.output.LayerNorm", apply(state, f"{layer}.output.dense", inner) + x, 1e-12)
    reward = x[:, 0]
    for number in (0, 2, 4, 6, 7):
        reward = apply(state, f"mlp.layers.{number}", reward)
    return (reward.item() - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(reward_shapes(TINY_VISION, TINY_TEXT))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("image-reward")
    torch.save(state, folder / "ImageReward.pt")
    return {"weights": str(folder / "ImageReward.pt"), "tokenizer": write_bert_tokenizer(folder / "bert")}


@pytest.fixture(scope="module")
def score(files: dict[str, str]) -> ImageReward:
    return ImageReward(**files, vision=TINY_VISION, text=TINY_TEXT)


def test_rewards_are_those_of_the_original_computation(score: ImageReward, state: dict[str, Tensor]) -> None:
    images = torch.stack([score.prepare(picture(number)) for number in range(len(PROMPTS))])
    expected = [plain_reward(state, image, prompt) for image, prompt in zip(images, PROMPTS, strict=True)]
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(score.extract(images, PROMPTS)[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_rows_depend_on_their_own_picture_and_prompt(score: ImageReward) -> None:
    check_rows_depend_on_their_own_picture_and_prompt(score)


def test_a_prompt_counts_up_to_35_tokens(score: ImageReward) -> None:
    images = score.prepare(picture())[None].expand(3, -1, -1, -1)
    fits, cut, other = ("red " * 33).strip(), "red " * 33 + "hat", "red " * 32 + "hat"
    rewards = score.extract(images, [fits, cut, other])
    assert rewards[0] == pytest.approx(rewards[1], rel=1e-5)
    assert abs(rewards[0] - rewards[2]) > 1e-4
    assert score.count_truncated([fits, cut, other]) == 1
    assert score.max_tokens == MAX_TOKENS == 35


def test_blip_s_marks_are_single_tokens_after_bert_s(score: ImageReward) -> None:
    assert score._tokenizer("[DEC] [ENC]").input_ids[1:-1] == [len(WORDS), len(WORDS) + 1]


def test_the_middle_square_is_seen(score: ImageReward) -> None:
    wide = picture(3, (96, 32))
    torch.testing.assert_close(score.prepare(wide), score.prepare(wide.crop((32, 0, 64, 32))))


def test_the_real_network_takes_each_tensor_of_the_checkpoint() -> None:
    shapes = reward_shapes(VISION, TEXT)
    found = rename_tensors({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    with torch.device("meta"):
        own = RewardNetwork(BlipVisionConfig(**VISION), BlipTextConfig(**TEXT)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in own.items()
    }
    assert shapes.keys() >= IGNORED
    # What shapes can't tell: heads are 64 wide, in ViT-L as in BERT-base.
    assert {part["hidden_size"] // part["num_attention_heads"] for part in (VISION, TEXT)} == {64}
    assert (VISION["layer_norm_eps"], TEXT["layer_norm_eps"]) == (1e-6, 1e-12)
    # The published ImageReward.pt, in single precision, is of 1.79 GB.
    assert sum(4 * np.prod(shape) for shape in shapes.values()) == pytest.approx(1.79e9, abs=5e6)


def test_the_reward_needs_none_of_what_is_ignored(
    tmp_path: Path, files: dict[str, str], state: dict[str, Tensor], score: ImageReward
) -> None:
    torch.save({name: tensor for name, tensor in state.items() if name not in IGNORED}, tmp_path / "less.pt")
    less = ImageReward(str(tmp_path / "less.pt"), files["tokenizer"], vision=TINY_VISION, text=TINY_TEXT)
    image = score.prepare(picture())[None]
    assert less.extract(image, PROMPTS[:1]) == score.extract(image, PROMPTS[:1])
    assert less.fingerprint != score.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp.layers.7.bias": None}, "missing: mlp.7.bias"),
        ({"blip.itm_head.weight": torch.ones(2)}, "unknown: blip.itm_head.weight"),
        ({f"{EYE}.cls_token": torch.ones(1, 1, 3)}, r"class_embedding \(1, 1, 3\) instead of \(1, 1, 16\)"),
    ],
)
def test_another_checkpoint_is_refused(
    tmp_path: Path, files: dict[str, str], state: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    torch.save({k: v for k, v in (state | change).items() if v is not None}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=f"other.pt: these aren't weights of RewardNetwork; .*{message}"):
        ImageReward(str(tmp_path / "other.pt"), files["tokenizer"], vision=TINY_VISION, text=TINY_TEXT)


def test_another_tokenizer_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    other = write_bert_tokenizer(tmp_path / "other", WORDS[:-1])
    with pytest.raises(WeightsError, match=r"image_reward\.tokenizer: expected 13 tokens in .*other, .* found 12"):
        ImageReward(files["weights"], other, vision=TINY_VISION, text=TINY_TEXT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"image_reward\.tokenizer: expected"):
        ImageReward(files["weights"], str(tmp_path / "empty"), vision=TINY_VISION, text=TINY_TEXT)


def test_tables_show_a_hundred_times_the_reward() -> None:
    np.testing.assert_allclose(ImageReward.reported(np.array([[1.25], [-0.5]], np.float32)), [[125.0], [-50.0]])
