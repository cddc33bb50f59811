"""Depth by a tiny Depth Anything: each picture at its own size, whatever it is batched with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    GLPNImageProcessor,
)

from fairhuman.config import build
from fairhuman.data.condition.depth_model import open_depth
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.errors import ModelError
from helpers.tiny_depth import SIDE, save_depth_model

SIZES = [(40, 40), (60, 30), (40, 40), (1, 1), (50, 50), (30, 61), (20, 40)]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def test_depth_is_the_output_of_the_model(depth_model: str) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    processor = AutoImageProcessor.from_pretrained(depth_model)
    model = AutoModelForDepthEstimation.from_pretrained(depth_model)
    with torch.inference_mode():
        expected = model(**processor(Image.fromarray(picture), return_tensors="pt")).predicted_depth[0].numpy()
    assert expected.shape == picture.shape[:2]
    assert expected.std() > 0
    with open_depth(DepthSettings(model=depth_model)) as estimate:
        (found,) = estimate([picture])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_depth_is_as_large_as_each_picture_and_does_not_depend_on_the_batch(
    depth_model: str, pictures: list[np.ndarray]
) -> None:
    with open_depth(DepthSettings(model=depth_model, batch_size=2)) as estimate:
        together = estimate(pictures)
        alone = [estimate([picture])[0] for picture in pictures]
        assert estimate([]) == []
        assert (estimate.source, estimate.kind) == (depth_model, "relative")
    assert [depth.shape for depth in together] == SIZES
    for first, second in zip(together, alone, strict=True):
        assert first.dtype == np.float32
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_batch_that_does_not_fit_is_halved_and_convolutions_are_exact(
    depth_model: str, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, exact, room = [], [], 2

    def look(_: torch.nn.Module, __: object, given: dict[str, torch.Tensor]) -> None:
        sizes.append(len(given["pixel_values"]))
        exact.append(not torch.backends.cudnn.allow_tf32)
        if sizes[-1] > room:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with open_depth(DepthSettings(model=depth_model)) as estimate:
        whole = estimate(pictures[:1] * 4)
        estimate._model.register_forward_pre_hook(look, with_kwargs=True)
        for first, second in zip(estimate(pictures[:1] * 4), whole, strict=True):
            np.testing.assert_allclose(first, second, atol=1e-5)
        assert sizes == [4, 2, 2]
        assert all(exact)
        assert torch.backends.cudnn.allow_tf32, "as it was"
        room = 0
        with pytest.raises(ModelError, match=r"not enough memory for a picture, .* smaller depth.model, or depth.dev"):
            estimate(pictures[:1])


def test_the_kind_is_the_config_s_unless_it_is_set(tmp_path: Path, depth_model: str) -> None:
    metric = save_depth_model(tmp_path / "metric", depth_estimation_type="metric", max_depth=20)
    with open_depth(DepthSettings(model=metric)) as estimate:
        assert estimate.kind == "metric_mm"
    with open_depth(DepthSettings(model=depth_model, kind="metric_mm")) as estimate:
        assert estimate.kind == "metric_mm"


def test_a_model_whose_output_would_be_misread_is_refused(tmp_path: Path) -> None:
    config = GLPNConfig(
        hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], depths=[1, 1, 1, 1], decoder_hidden_size=8
    )
    GLPNForDepthEstimation(config).save_pretrained(tmp_path)
    GLPNImageProcessor().save_pretrained(tmp_path)
    with (
        pytest.raises(ModelError, match="must be of the type dpt or depth_anything, found glpn"),
        open_depth(DepthSettings(model=str(tmp_path))),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/no/such/folder"}, "depth.model '/no/such/folder' on 'auto': expected a hub id or the folder"),
        ({"device": "gpu"}, "on 'gpu'"),
        ({"device": "cuda:63"}, "on 'cuda:63'"),
    ],
)
def test_a_model_that_can_not_be_loaded_is_named(changes: dict[str, str], message: str, depth_model: str) -> None:
    settings = build(DepthSettings, {"model": depth_model} | changes)
    with pytest.raises(ModelError, match=message), open_depth(settings):
        pass


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="there is no such folder"), open_depth(DepthSettings(model="nope")):
        pass


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with (
        pytest.raises(ModelError, match="on 'auto': expected a hub id or the folder"),
        open_depth(DepthSettings(model=str(tmp_path))),
    ):
        pass


def test_a_picture_that_the_model_can_not_process_is_named(depth_model: str) -> None:
    with (
        open_depth(DepthSettings(model=depth_model)) as estimate,
        pytest.raises(ModelError, match="can't process a picture of 3000x5 pixels"),
    ):
        estimate([np.zeros((5, 3000, 3), np.uint8)])


def test_what_is_not_a_picture_is_refused(depth_model: str) -> None:
    with open_depth(DepthSettings(model=depth_model)) as estimate, pytest.raises(ValueError, match="must be uint8"):
        estimate([np.zeros((8, 8, 3), np.float32)])  # type: ignore[list-item]
