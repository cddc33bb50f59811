"""HPS v2.1 against a plain statement of it: CLIP in a dozen lines, and bicubic resizing as a matrix."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.networks.hps import HumanPreferenceScore, fit_square
from fairhuman.evaluate.networks.prompt_score import CLIP_MEAN, CLIP_STD, normalize_for_clip
from helpers.published_shapes import hps_shapes
from helpers.tiny_prompt_networks import (
    PROMPTS,
    TINY_HPS,
    apply,
    attend,
    check_rows_depend_on_their_own_picture_and_prompt,
    normed,
    picture,
    random_state,
    write_hps,
)


def run_tower(state: Mapping[str, Tensor], name: str, x: Tensor, heads: int, add: Tensor | None = None) -> Tensor:
    for layer in range(2):
        block = f"{name}resblocks.{layer}"
        qkv = functional.linear(
            normed(state, f"{block}.ln_1", x, 1e-5),
            state[f"{block}.attn.in_proj_weight"],
            state[f"{block}.attn.in_proj_bias"],
        )
        x = x + apply(state, f"{block}.attn.out_proj", attend(*qkv.chunk(3, -1), heads, add))
        inner = functional.gelu(apply(state, f"{block}.mlp.c_fc", normed(state, f"{block}.ln_2", x, 1e-5)))
        x = x + apply(state, f"{block}.mlp.c_proj", inner)
    return x


def plain_score(state: Mapping[str, Tensor], image_chw: Tensor, tokens: list[int]) -> float:
    """Cosine of CLIP's features of one picture and one prompt."""
    patches = functional.conv2d(image_chw[None], state["visual.conv1.weight"], stride=14).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"][None, None], patches], 1) + state["visual.positional_embedding"]
    x = run_tower(state, "visual.transformer.", normed(state, "visual.ln_pre", x, 1e-5), heads=2)
    seen = normed(state, "visual.ln_post", x[:, 0], 1e-5) @ state["visual.proj"]
    words = state["token_embedding.weight"][tokens][None] + state["positional_embedding"][: len(tokens)]
    later = torch.full((len(tokens), len(tokens)), float("-inf")).triu(1)
    words = normed(state, "ln_final", run_tower(state, "transformer.", words, heads=2, add=later), 1e-5)
    read = words[:, -1] @ state["text_projection"]
    return functional.cosine_similarity(seen, read).item()


def resize_matrix(length: int, to: int, antialias: bool) -> np.ndarray:
    """Keys' cubic convolution [to, length]: with antialias stretched over the pixels that shrink into one, a = -1/2."""
    scale = length / to
    stretch, a = (max(scale, 1.0), -0.5) if antialias else (1.0, -0.75)
    matrix = np.zeros((to, length))
    for i in range(to):
        centre = (i + 0.5) * scale - 0.5
        for j in range(int(np.floor(centre - 2 * stretch)), int(np.ceil(centre + 2 * stretch)) + 1):
            t = abs(j - centre) / stretch
            weight = (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4)
            if t < 2 and antialias and 0 <= j < length:
                matrix[i, j] = weight
            elif t < 2 and not antialias:  # pixels beyond the edge are those of the edge
                matrix[i, min(max(j, 0), length - 1)] += weight
    return matrix / matrix.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(hps_shapes(TINY_HPS))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> str:
    return write_hps(tmp_path_factory.mktemp("hps"), state)


@pytest.fixture(scope="module")
def score(weights: str) -> HumanPreferenceScore:
    return HumanPreferenceScore(weights, architecture="tiny-hps")


def test_the_score_is_the_cosine_of_clip_s_features(score: HumanPreferenceScore, state: dict[str, Tensor]) -> None:
    import open_clip

    images = torch.stack([score.prepare(picture(number)) for number in range(len(PROMPTS))])
    tokenizer = open_clip.SimpleTokenizer()
    tokens = [[49406, *tokenizer.encode(prompt), 49407] for prompt in PROMPTS]
    expected = [plain_score(state, image, ids) for image, ids in zip(images, tokens, strict=True)]
    np.testing.assert_allclose(score.extract(images, PROMPTS)[:, 0], expected, atol=1e-5)


def test_rows_depend_on_their_own_picture_and_prompt(score: HumanPreferenceScore) -> None:
    check_rows_depend_on_their_own_picture_and_prompt(score)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(45, 61), (100, 31), (17, 11), (28, 28)])
def test_resizing_is_bicubic_by_the_longer_side(size: tuple[int, int], antialias: bool) -> None:
    pixels_hwc = np.asarray(picture(1, size)) / 255
    height, width = (max(1, round(28 / max(size) * length)) for length in size[::-1])
    rows, columns = resize_matrix(size[1], height, antialias), resize_matrix(size[0], width, antialias)
    expected = np.einsum("ih,jw,hwc->cij", rows, columns, pixels_hwc)
    image_chw = torch.tensor(pixels_hwc, dtype=torch.float32).permute(2, 0, 1)
    square = fit_square(image_chw, 28, antialias)
    assert square.shape == (3, 28, 28)
    top, left = (28 - height) // 2, (28 - width) // 2
    np.testing.assert_allclose(square[:, top : top + height, left : left + width], expected, atol=2e-5)
    square[:, top : top + height, left : left + width] = 0.0
    assert not square.any()


def test_prepared_pictures_have_clip_s_colours_and_black_around(score: HumanPreferenceScore) -> None:
    grey = score.prepare(picture(2).resize((1, 1)).resize((56, 28)))
    black = -torch.tensor(CLIP_MEAN) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(grey[:, :7], black[:, None, None].expand(3, 7, 28))
    torch.testing.assert_close(grey[:, 21:], black[:, None, None].expand(3, 7, 28))
    torch.testing.assert_close(
        normalize_for_clip(torch.full((3, 1, 1), 0.5))[:, 0, 0],
        (0.5 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD),
    )


def test_the_longest_and_narrowest_picture_has_a_row_of_pixels(score: HumanPreferenceScore) -> None:
    assert score.prepare(picture(0, (3000, 2))).shape == (3, 28, 28)


def test_another_resizing_is_another_fingerprint(weights: str, score: HumanPreferenceScore) -> None:
    other = HumanPreferenceScore(weights, architecture="tiny-hps", antialias=False)
    assert other.fingerprint != score.fingerprint
    assert HumanPreferenceScore(weights, architecture="tiny-hps").fingerprint == score.fingerprint
    assert not torch.equal(other.prepare(picture()), score.prepare(picture()))


def test_tables_show_a_hundred_times_the_cosine() -> None:
    np.testing.assert_allclose(
        HumanPreferenceScore.reported(np.array([[0.285], [-0.1]], np.float32)), [[28.5], [-10.0]]
    )


def test_prompts_beyond_77_tokens_are_counted(score: HumanPreferenceScore) -> None:
    assert score.count_truncated(["hat " * 75, "hat " * 76, "a hat"]) == 1


def test_the_real_architecture_has_the_names_of_the_checkpoint() -> None:
    import open_clip

    config = open_clip.get_model_config("ViT-H-14")
    with torch.device("meta"):
        network = open_clip.CLIP(**config)
    shapes = hps_shapes(config)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == shapes
    # The published HPS_v2_1.pt, in half precision, is of 1,972,484,501 bytes.
    assert sum(2 * np.prod(shape) for shape in shapes.values()) == pytest.approx(1_972_484_501, rel=2e-4)


def test_what_is_not_hps_is_refused(tmp_path: Path, state: dict[str, Tensor], weights: str) -> None:
    torch.save({"model": state}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt: expected tensors by name under the key 'state_dict'"):
        HumanPreferenceScore(str(tmp_path / "other.pt"), architecture="tiny-hps")
    torch.save({"state_dict": {k: v for k, v in state.items() if k != "visual.proj"}}, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match=r"less\.pt: these aren't weights of CLIP; missing: visual\.proj$"):
        HumanPreferenceScore(str(tmp_path / "less.pt"), architecture="tiny-hps")
    with pytest.raises(ValueError, match="architecture must be one of open_clip's, not 'ViT-Z'"):
        HumanPreferenceScore(weights, architecture="ViT-Z")
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        HumanPreferenceScore(weights, architecture="tiny-hps", batch_size=0)


def test_what_is_not_a_prepared_picture_with_a_prompt_is_refused(score: HumanPreferenceScore) -> None:
    with pytest.raises(ValueError, match="the picture must be RGB, not L"):
        score.prepare(picture().convert("L"))
    with pytest.raises(ValueError, match=r"hps-v2\.1: expected pictures .* not .1, 3, 28, 28. and 2 prompts"):
        score.extract(torch.zeros(1, 3, 28, 28), ["a", "b"])
