from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from fairhuman.bases.latents import decode_latents, encode_pictures
from fairhuman.errors import ModelError, RecipeError
from fairhuman.generate.guide import ActiveControl
from fairhuman.models.architecture import build_small
from fairhuman.models.controlnet import ControlNet
from fairhuman.refine.inpaint import Inpainter
from fairhuman.refine.painter import open_painter
from fairhuman.refine.settings import RefineSettings

SETTINGS = RefineSettings(steps=4, strength=0.5, size=32, guidance=2.0)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return build_small(0)


def crop_and_mask() -> tuple[Image.Image, Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    return Image.fromarray(pixels), Image.fromarray(mask)


def drawn(painter: Inpainter, seed: int = 0, conditions: dict[str, torch.Tensor] | None = None) -> np.ndarray:
    crop, mask = crop_and_mask()
    noise = torch.Generator().manual_seed(seed)
    return np.asarray(painter(crop, mask, "a hand", conditions or {}, noise)).astype(int)


def test_sides_fit_the_pipeline_the_vae_and_the_u_nets_levels(pipeline: StableDiffusionXLPipeline) -> None:
    painter = Inpainter(pipeline, RefineSettings(size=33, steps=4))
    assert painter.grid == 16
    assert painter.least == 48
    assert Inpainter(pipeline, RefineSettings(steps=4)).least == pipeline.unet.config.sample_size * 4


def test_latents_outside_of_the_mask_are_those_of_the_picture(pipeline: StableDiffusionXLPipeline) -> None:
    painter = Inpainter(pipeline, SETTINGS)
    crop, mask = crop_and_mask()
    black = np.asarray(painter(crop, Image.new("L", (32, 32)), "a hand", {}, torch.Generator())).astype(int)
    picture_bchw = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float() / 127.5 - 1
    decoded = decode_latents(pipeline.vae, encode_pictures(pipeline.vae, picture_bchw))[0]
    expected = ((decoded + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(black - expected).max() <= 1
    inside = np.asarray(mask) > 0
    assert np.abs(drawn(painter) - expected)[inside].mean() > 3


def test_a_redrawn_crop_follows_from_its_generator_and_the_pipeline_stays(pipeline: StableDiffusionXLPipeline) -> None:
    painter, scheduler = Inpainter(pipeline, SETTINGS), pipeline.scheduler
    assert (drawn(painter, 1) == drawn(painter, 1)).all()
    assert (drawn(painter, 1) != drawn(painter, 2)).any()
    assert pipeline.scheduler is scheduler


def test_a_guide_steers_by_its_condition_and_follows_zeros_where_there_is_none(
    pipeline: StableDiffusionXLPipeline,
) -> None:
    control = ControlNet.new(pipeline, ["depth"], seed=0)
    with torch.no_grad():
        for parameter in control.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    control.network.eval()
    painter = Inpainter(pipeline, SETTINGS, [ActiveControl(control)])
    assert painter.follows == ("depth",)
    nothing = drawn(painter)
    assert (nothing == drawn(painter, conditions={"depth": torch.zeros(1, 1, 32, 32)})).all()
    assert (nothing != drawn(painter, conditions={"depth": torch.rand(1, 1, 32, 32)})).any()
    assert (nothing != drawn(Inpainter(pipeline, SETTINGS))).any()


def test_a_device_that_is_too_small_is_told_what_helps() -> None:
    with pytest.raises(ModelError, match=r"^CUDA out of memory\. What helps: --precision bf16"):  # noqa: SIM117
        with open_painter(SETTINGS, []):
            raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("work", [encode_pictures, decode_latents])
def test_the_u_net_leaves_a_device_that_is_too_small_for_the_vae_beside_it(
    work: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, places = Inpainter(own := build_small(0), SETTINGS), list[str]()
    expected = drawn(painter)
    monkeypatch.setattr(own.unet, "to", lambda place: places.append(str(place)))

    def limited(*given: Any) -> torch.Tensor:
        if not places:
            raise torch.OutOfMemoryError
        return work(*given)

    monkeypatch.setattr(f"fairhuman.refine.inpaint.{work.__name__}", limited)
    assert (drawn(painter) == expected).all()
    assert places == ["cpu", "cpu"]


def test_too_many_steps_are_refused(pipeline: StableDiffusionXLPipeline) -> None:
    with pytest.raises(RecipeError, match="steps"):
        Inpainter(pipeline, RefineSettings(steps=5000))
