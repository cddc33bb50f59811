"""CLIPScore against transformers' own processor and logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from fairhuman.evaluate.networks.clip_score import CLIPScore
from fairhuman.evaluate.networks.extractor import WeightsError
from helpers.tiny_prompt_networks import PROMPTS, check_rows_depend_on_their_own_picture_and_prompt, picture, write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def score(folder: str) -> CLIPScore:
    return CLIPScore(folder)


# Where an odd number of pixels is cut off, transformers may cut one more on the other side than CLIP's own code.
@pytest.mark.parametrize("size", [(56, 80), (80, 56), (28, 28), (14, 20), (300, 100)])
def test_pictures_are_prepared_as_by_clip_s_processor(score: CLIPScore, size: tuple[int, int]) -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    image = picture(1, size)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(score.prepare(image), expected, rtol=0, atol=1e-5)


def test_the_score_is_the_logit_without_its_scale(score: CLIPScore, folder: str) -> None:
    images = torch.stack([score.prepare(picture(number)) for number in range(len(PROMPTS))])
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        read = tokenizer(PROMPTS, padding=True, return_tensors="pt")
        logits = model(pixel_values=images, **read).logits_per_image.diagonal()
        expected = logits / model.logit_scale.exp()
    np.testing.assert_allclose(score.extract(images, PROMPTS)[:, 0], expected.numpy(), atol=1e-5)
    assert abs(expected).max() <= 1.0


def test_rows_depend_on_their_own_picture_and_prompt(score: CLIPScore) -> None:
    check_rows_depend_on_their_own_picture_and_prompt(score)


def test_prompts_are_cut_at_what_clip_reads_and_counted(score: CLIPScore) -> None:
    images = score.prepare(picture())[None].expand(3, -1, -1, -1)
    fits, cut, other = ("hat " * 14).strip(), "hat " * 14 + "red", "hat " * 13 + "red"
    cosines = score.extract(images, [fits, cut, other])
    assert cosines[0] == pytest.approx(cosines[1], rel=1e-5)
    assert abs(cosines[0] - cosines[2]) > 1e-4
    assert score.count_truncated([fits, cut, other]) == 1


def test_half_precision_is_computed_in_float32(tmp_path: Path, folder: str, score: CLIPScore) -> None:
    CLIPModel.from_pretrained(folder).half().save_pretrained(tmp_path)
    CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    half = CLIPScore(str(tmp_path))
    image = score.prepare(picture())[None]
    np.testing.assert_allclose(half.extract(image, PROMPTS[:1]), score.extract(image, PROMPTS[:1]), atol=0.02)
    assert half.fingerprint != score.fingerprint


def test_tables_show_a_hundred_times_the_cosine_and_nothing_below_zero() -> None:
    np.testing.assert_allclose(CLIPScore.reported(np.array([[0.25], [-0.5]], np.float32)), [[25.0], [0.0]])


def test_a_clip_that_lacks_weights_is_refused(tmp_path: Path, folder: str) -> None:
    CLIPModel.from_pretrained(folder).save_pretrained(tmp_path)
    CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = "clip_score.weights: expected a transformers CLIP in .*; 1 weights are missing, such as visual_proj"
    with pytest.raises(WeightsError, match=message):
        CLIPScore(str(tmp_path))


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"clip_score\.weights: expected a transformers CLIP in"):
        CLIPScore(str(tmp_path))


def test_only_rgb_is_taken(score: CLIPScore) -> None:
    with pytest.raises(ValueError, match="the picture must be RGB, not RGBA"):
        score.prepare(Image.new("RGBA", (40, 40)))
