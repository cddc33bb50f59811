"""training/small_sdxl/vae.py, run as a user does, on a few drawn figures."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from fairhuman.errors import DataError
from fairhuman.models.architecture import build_small
from fairhuman.models.sdxl import load_pipeline
from helpers.figures import write_figures
from helpers.places import ROOT

SCRIPT = ROOT / "training" / "small_sdxl" / "vae.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("small_sdxl_vae", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(folder, count=6, size=40)
    return folder


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, steps: int = 4) -> None:
    arguments = [str(SCRIPT), "--data", str(data), "--out", str(out), "--steps", str(steps), "--size", "32"]
    monkeypatch.setattr("sys.argv", [*arguments, "--batch-size", "2"])
    script.main()


def test_folding_normalises_and_keeps_the_pictures(script: ModuleType, pictures: Path) -> None:
    vae = build_small(0).vae
    training, held_out = script.read_pictures(pictures, 32)
    batch = script.to_tensor(training + held_out)
    assert ((batch[:, 3:] > 0).flatten(1).any(1) & (batch[:, 3:] < 1).flatten(1).any(1)).all()  # faces and hands
    batch = batch[:, :3]
    before, _ = script.reconstruct(vae, batch)
    statistics = script.normalise_latents(vae, training, 32)
    after, _ = script.reconstruct(vae, batch)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    with torch.no_grad():
        posterior = vae.encode(script.to_tensor(training)[:, :3]).latent_dist
    variance_c = posterior.mean.var((0, 2, 3)) + posterior.var.mean((0, 2, 3))
    torch.testing.assert_close(posterior.mean.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(variance_c, torch.ones(4), rtol=0, atol=1e-3)
    assert max(abs(value) for value in statistics["mean"]) > 1e-3


def test_an_interrupted_run_goes_on_exactly(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, pictures: Path, tmp_path: Path
) -> None:
    run(script, monkeypatch, pictures, tmp_path / "whole")
    draw = script.draw_batch

    def interrupt(*arguments: object) -> object:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return draw(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(script, "CHECKPOINT_SECONDS", 0)
        patch.setattr(script, "draw_batch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(script, patch, pictures, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    run(script, monkeypatch, pictures, tmp_path / "parts")
    whole, parts = (load_pipeline(str(tmp_path / name)).vae.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    report = json.loads((tmp_path / "parts" / "vae_training.json").read_text())
    assert report["steps"] == 4
    assert np.isfinite(report["held_out_psnr_db"])
    with Image.open(tmp_path / "parts" / "vae_reconstructions.png") as sheet:
        assert sheet.size == (8 * 32, 2 * 32)


def test_a_folder_without_pictures_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no picture in .*, which is empty"):
        script.read_pictures(tmp_path, 32)
