"""Pictures by every base's own pipeline."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub

from fairhuman.bases.base import evaluating
from fairhuman.bases.names import BASES
from fairhuman.generate import run
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.sdxl import load_pipeline
from helpers.base_cases import HEIGHT, WIDTH, Case, for_pipeline

PROMPTS = ["a woman waving", "a man in a red shirt, with both hands raised above his head"]


def picture(case: Case, prompt: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return case.base.picture(case.base.draw((HEIGHT, WIDTH), prompt, generator, steps=2, guidance=3.0))


def test_a_picture_depends_on_its_prompt_and_seed_alone(case: Case) -> None:
    first = [picture(case, prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    again = [picture(case, prompt, seed) for seed, prompt in reversed(list(enumerate(PROMPTS)))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert first[0].shape == (3, HEIGHT, WIDTH)
    assert not torch.allclose(picture(case, PROMPTS[1], 0), first[0], atol=1e-3)


def test_it_is_the_pipeline_s_own_picture(case: Case) -> None:
    found = case.base.pipeline(
        **case.base.arguments(PROMPTS[0], "", 3.0),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    ours = picture(case, PROMPTS[0], 0).movedim(0, -1).numpy() / 2 + 0.5
    assert np.allclose(ours, found, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_known_texts_give_the_bits_of_the_pipeline_without_text_encoders(
    case: Case, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, size = case.base, (HEIGHT, WIDTH)
    way = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": 2, "output_type": "latent"}
    with torch.no_grad(), evaluating(base.pipeline):
        found = base.pipeline(
            **base.arguments(PROMPTS[0], "", guidance), **way, generator=torch.Generator().manual_seed(0)
        ).images
    read, texts = base.read(PROMPTS[0], "", guidance), base.guided_texts(PROMPTS[0], "", guidance)
    start = torch.zeros(1, base.channels, *case.grid)
    photo = base.redraw(start, 0.5, PROMPTS[0], torch.Generator().manual_seed(0), 2, guidance)
    for encoder in base.text_encoders:
        monkeypatch.setattr(encoder, "forward", None)
    drawn = base.draw(size, "", torch.Generator().manual_seed(0), 2, guidance, read=read)
    assert torch.equal(drawn, base.sampled(found, size))
    assert torch.equal(base.redraw(start, 0.5, "", torch.Generator().manual_seed(0), 2, guidance, texts=texts), photo)


def test_drawn_latents_need_no_vae_on_their_device(case: Case) -> None:
    """With cached latents the VAE rests in main memory while previews are drawn; PyTorch's meta device is the GPU."""
    latents = torch.zeros(1, case.base.channels, *case.grid)
    drawn = latents if case.name == "flux2" else for_pipeline(case, latents)  # flux2's pipeline undoes its patches
    found = case.base.sampled(drawn.to("meta"), (HEIGHT, WIDTH))
    assert (found.device.type, found.shape) == ("meta", latents.shape)


def test_guidance_and_steps_are_those_asked_for(case: Case) -> None:
    steps: list[int] = []
    generator = torch.Generator().manual_seed(0)
    plain = case.base.draw((HEIGHT, WIDTH), PROMPTS[0], generator, 3, 1.0, on_step=lambda: steps.append(1))
    assert len(steps) == 3
    guided = case.base.draw((HEIGHT, WIDTH), PROMPTS[0], torch.Generator().manual_seed(0), 3, 6.0)
    assert not torch.allclose(plain, guided, atol=1e-4)


def test_a_photo_s_preview_has_the_guidance_of_the_pipeline(case: Case) -> None:
    """From pure noise in one step, it is the pipeline's own picture; where latents aren't packed, of the same noise."""
    if case.name not in ("sd3", "z_image"):
        pytest.skip("its pipeline draws packed noise, or normalises guidance")
    start = torch.zeros(1, case.base.channels, HEIGHT // case.base.factor, WIDTH // case.base.factor)
    for guidance in (1.0, 4.0):
        ours, theirs = (torch.Generator().manual_seed(7) for _ in range(2))
        photo = case.base.redraw(start, 1.0, PROMPTS[0], ours, 1, guidance)
        own = case.base.draw((HEIGHT, WIDTH), PROMPTS[0], theirs, 1, guidance)
        assert torch.allclose(photo, own, atol=1e-4)


def test_the_guidance_of_the_base_is_its_pipeline_s(case: Case) -> None:
    """As the signature of its pipeline has it, where none is given."""
    name = BASES[type(case.base.pipeline).__name__]
    way = next(argument for argument, value in case.base.arguments("", "", 2.0).items() if value == 2.0)
    default = inspect.signature(type(case.base.pipeline).__call__).parameters[way].default
    assert name.guidance == default
    assert SampleSettings().of_base(name).guidance == default
    assert SampleSettings(guidance=2.0).of_base(name).guidance == 2.0


def test_a_command_that_downloads_its_model_resumes(
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: Callable[..., tuple[int, str, str]],
) -> None:
    """What its pictures record of the model is what later commands find in the hub's cache."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    name = "stabilityai/stable-diffusion-3.5-medium"
    cached = tmp_path / "hub" / f"models--{name.replace('/', '--')}"

    def downloading(model: str, **more: Any) -> Any:
        if not cached.exists():
            shutil.copytree(tiny_base("sd3"), cached / "snapshots/abc")
            (cached / "refs").mkdir()
            (cached / "refs/main").write_text("abc")
        return load_pipeline(model, **more)

    monkeypatch.setattr(run, "load_pipeline", downloading)
    out, way = tmp_path / "out", ("--model", name, "--steps", 1, "--height", 64, "--width", 64, "--precision", "fp32")
    code, said, errors = typed("sample", out, "--prompt", PROMPTS[0], *way, "--skip-memory-check")
    assert code == 0, said + errors
    code, said, errors = typed("sample", out, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1], *way)
    assert code == 0, said + errors
    assert "1 of 2 pictures are there and kept" in said
