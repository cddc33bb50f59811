"""Small random stand-ins for the networks that read prompts, in the layout of the originals' files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import BertTokenizer, CLIPConfig, CLIPModel

from fairhuman.evaluate.networks.extractor import Extractor
from fairhuman.models.tokenizer import build_tokenizer

Shapes = dict[str, tuple[int, ...]]

TINY_HPS = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 16, "head_width": 8, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "woman", "in", "red", "blue", "hat", "waving"]
TINY_VISION = {
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
TINY_TEXT = {
    "vocab_size": len(WORDS) + 2,
    "hidden_size": 12,
    "encoder_hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-12,
    "bos_token_id": 2,
    "sep_token_id": 3,
}
PROMPTS = ["a man in a red hat", "woman waving", "a blue hat", "a man waving in blue", "red"]


def picture(number: int = 0, size: tuple[int, int] = (45, 61)) -> Image.Image:
    """Noise in blocks, of a size [width, height]."""
    small = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Gains near 1 and matrices that keep the size of what they multiply: each weight matters."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, tensor in state.items():
        if tensor.ndim == 2 and "embedding" not in name:
            tensor /= 0.7 * tensor.shape[1] ** 0.5
        elif tensor.ndim == 1:
            tensor *= 0.3
            if "norm" in name.lower() or "ln_" in name:
                tensor += name.endswith("weight")
    return state


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, add: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + add) v, a head at a time, of [B, L, D]."""
    parts = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        parts.append((scores if add is None else scores + add).softmax(-1) @ v)
    return torch.cat(parts, -1)


def apply(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def normed(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def write_hps(folder: Path, state: Mapping[str, Tensor]) -> str:
    """Path of the weights; the architecture is known to open_clip as `tiny-hps`."""
    import open_clip

    (folder / "tiny-hps.json").write_text(json.dumps(TINY_HPS), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny-hps.json")
    torch.save({"state_dict": dict(state)}, folder / "hps.pt")
    return str(folder / "hps.pt")


def write_bert_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> str:
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return str(folder)


def write_clip(folder: Path) -> str:
    """A CLIP of 28 pixels and 16 tokens."""
    tokenizer = build_tokenizer(max_length=16)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={**sizes, **marks, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
            vision_config={**sizes, "image_size": 28, "patch_size": 14},
            projection_dim=8,
        )
    )
    for parameter in model.parameters():
        parameter.data *= 3.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def check_rows_depend_on_their_own_picture_and_prompt(extractor: Extractor) -> None:
    """Alone, together and in another order, each row is the same to 1e-4; pictures and prompts both count."""
    sizes = [(45, 61), (61, 45), (28, 28), (200, 40), (33, 90)]
    images = torch.stack([extractor.prepare(picture(number, size)) for number, size in enumerate(sizes)])
    together = extractor.extract(images, PROMPTS)
    assert together.shape == (5, 1)
    assert together.dtype == np.float32
    assert together.std() > 1e-3
    alone = np.concatenate([extractor.extract(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-6)
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(
        extractor.extract(images[order], [PROMPTS[i] for i in order]), together[order], rtol=1e-4, atol=1e-6
    )
    other_prompt = extractor.extract(images[:1], PROMPTS[1:2])
    other_picture = extractor.extract(images[1:2], PROMPTS[:1])
    assert abs(other_prompt - together[0]).item() > 1e-3
    assert abs(other_picture - together[0]).item() > 1e-3
