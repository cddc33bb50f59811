"""Held-out losses: a model that is made worse has higher ones, the more the worse it is."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from fairhuman.bases.sdxl import SDXL
from fairhuman.errors import ModelError
from fairhuman.evaluate.metrics.held_out_losses import ModelSpec, measure_losses
from fairhuman.evaluate.settings import LossSettings
from fairhuman.models.lora import LoraModel
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import LoraSettings
from fairhuman.synth.people import write_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.step import Objectives
from helpers.figures import write_figures

WEIGHTS = (0.0, 0.5, 1.0, 2.0)


def test_more_noise_in_a_lora_is_a_higher_loss_of_each_objective(tmp_path: Path) -> None:
    """On what the small model has learned to draw: on other pictures noise may help."""
    write_people(tmp_path / "people", SynthSettings(count=4, size=128, seed=7), workers=1)
    model = LoraModel(load_pipeline("small"), LoraSettings(rank=4), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.trained().items():
        if "lora_B" in name:  # zero at the start: the update is this noise times A
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save(tmp_path / "noise")
    models = {str(weight): ModelSpec("small", tmp_path / "noise", weight) for weight in WEIGHTS}
    settings = LossSettings(resolution=128, timesteps=(0.2, 0.5, 0.8))
    found = [one.losses() for one in measure_losses(models, tmp_path / "people", settings).values()]
    for objective in ("global", "face", "hand"):
        losses = [one[objective] or 0.0 for one in found]
        assert losses == sorted(losses), objective
        assert losses[-1] > 1.02 * losses[0] > 0, objective


def test_one_model_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the device, too: two models of full size don't fit on a card."""
    write_figures(tmp_path, 1, 64, seed=2)
    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def load(*args: Any, **more: Any) -> Any:
        alive.append(sum(one() is not None for one in loaded))
        pipeline = load_pipeline(*args, **more)
        loaded.append(weakref.ref(pipeline.unet))
        return pipeline

    monkeypatch.setattr("fairhuman.evaluate.metrics.held_out_losses.load_pipeline", load)
    models = {name: ModelSpec("small") for name in "abc"}
    measure_losses(models, tmp_path, LossSettings(resolution=32, timesteps=(0.5,)))
    assert alive == [0, 0, 0]


def test_pictures_and_captions_are_encoded_once_for_all_timesteps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_figures(tmp_path, 2, 64, seed=2)
    models, settings = {"a": ModelSpec("small")}, LossSettings(resolution=32, timesteps=(0.2, 0.5, 0.8), batch_size=2)
    called: list[str] = []
    for name in ("moments", "_texts"):
        own = getattr(SDXL, name)
        monkeypatch.setattr(SDXL, name, lambda *given, n=name, f=own: called.append(n) or f(*given))
    once = measure_losses(models, tmp_path, settings)
    assert sorted(called) == ["_texts", "moments"]
    with monkeypatch.context() as patched:
        patched.setattr(Objectives, "encoded", lambda _, batch: (batch, None))
        assert measure_losses(models, tmp_path, settings) == once
    assert len(called) == 2 + 2 * 3


def test_a_device_that_is_too_small_is_told_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    write_figures(tmp_path, 1, 64, seed=2)
    monkeypatch.setattr("fairhuman.evaluate.metrics.held_out_losses.load_pipeline", fail)
    with pytest.raises(
        ModelError, match=r"^CUDA out of memory\. Tried .* GiB\. What helps: batch_size=1, precision=bf16"
    ):
        measure_losses({"a": ModelSpec("small")}, tmp_path, LossSettings(resolution=32))
