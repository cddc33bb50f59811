"""Training, resuming, sampling and files of a model of SDXL's true size."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from fairhuman import config
from fairhuman.models.lora import KOHYA_FILE
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.single_file import save_single_file
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import write_atomically
from fairhuman.utils.safetensors_header import read_header
from helpers.lora_readers import a1111, comfyui, kohya
from helpers.sizes import Place

pytestmark = pytest.mark.timeout(6 * 3600)
STEPS = 3
LAYERS = {"sdxl": 560, "small": 56}
GB = 10**9


def recipe_of(place: Place, name: str, side: int, **values: Any) -> TrainRecipe:
    """A run of few steps with a checkpoint after each."""
    common: dict[str, Any] = {
        "model": str(place.model),
        "data": str(place.data(side)),
        "out": str(place.folder / name),
        "steps": STEPS,
        "batch_size": 1,
        "resolution": side,
        "precision": "bf16",
        "gradient_checkpointing": True,
        "checkpoint_every": 1,
        "lora": {"rank": place.rank, "kohya_precision": "fp32"},
        "view": {"crop": "center"},
        "preview": {"count": 0},
        "validation": {"every": 0},
        "cache": {"latents": True, "text": True, "folder": str(place.folder / "cache")},
    }
    return config.build(TrainRecipe, config.merge(common, values))


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fairhuman.cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def started(recipe: TrainRecipe) -> "subprocess.Popen[str]":
    file = recipe.out.with_suffix(".yaml")
    config.save(recipe, file)
    return start("train", file)


class Peak(NamedTuple):
    """The peak of a process's own memory, and what it had mapped of files then, such as frozen weights, in bytes."""

    own: int
    mapped: int


def finish(process: "subprocess.Popen[str]") -> Peak:
    """Wait for the end; return the peak."""
    peak = Peak(0, 0)
    while process.poll() is None:
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            found = (int(status.split(f"{kind}:")[1].split()[0]) * 1024 for kind in ("RssAnon", "RssFile"))
            peak = max(peak, Peak(*found))
        time.sleep(0.1)
    said, _ = process.communicate()
    assert process.returncode == 0, said[-4000:]
    return peak


def train(recipe: TrainRecipe) -> Path:
    """Train, unless that is done; return the run's folder, in which `peak.json` has the peak."""
    file = recipe.out / "peak.json"
    if not file.exists():
        peak = finish(started(recipe))
        file.write_text(json.dumps(peak), encoding="utf-8")
    return recipe.out


def peak_of(run: Path) -> Peak:
    return Peak(*json.loads((run / "peak.json").read_text(encoding="utf-8")))


def check_peak(place: Place, recipe: TrainRecipe) -> None:
    """The peak is within 10 % of the predicted one; the small model's is mostly the program, and only limited.

    Quantised weights are the process's own; the files that they were made from stay mapped, but nobody reads them.
    """
    measured, predicted = peak_of(recipe.out), memory_of(recipe).on_cpu
    needed = sum(measured) if place.true and recipe.base.quantize == "none" else measured.own
    assert needed < 1.1 * predicted
    if place.true:
        assert needed > 0.9 * predicted
        assert needed < 16 * GB


@pytest.mark.parametrize("mode", ["output", "exact"])
def test_a_run_takes_the_predicted_memory(place: Place, mode: str) -> None:
    recipe = recipe_of(place, mode, place.side, fairness={"mode": mode})
    run = train(recipe)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["loss/global"] > 0.0 and row["exact"] for row in rows), "the first steps of both are exact"
    check_peak(place, recipe)


@pytest.mark.parametrize("times", [2, 4])
def test_a_larger_picture_takes_the_predicted_memory(place: Place, times: int) -> None:
    """At true size a step each at 512 and at 1024 px."""
    side = times * place.side
    recipe = recipe_of(place, f"side-{side}", side, fairness={"mode": "exact"}, steps=1)
    train(recipe)
    check_peak(place, recipe)


def test_a_killed_run_goes_on_to_the_same_file(place: Place) -> None:
    whole = train(recipe_of(place, "exact", place.side, fairness={"mode": "exact"}))
    recipe = recipe_of(place, "killed", place.side, fairness={"mode": "exact"})
    if not (recipe.out / "lora").exists():
        process = started(recipe)
        while process.poll() is None and not any((recipe.out / "checkpoints").glob("step-*[0-9]")):
            time.sleep(0.1)
        process.kill()
        process.communicate()
        assert not (recipe.out / "lora").exists()
        finish(started(recipe))
    names = sorted(file.name for file in (whole / "lora").iterdir())
    assert any(name.endswith(".safetensors") for name in names)
    assert [(whole / "lora" / name).read_bytes() == (recipe.out / "lora" / name).read_bytes() for name in names] == [
        True
    ] * len(names)


def test_the_lora_is_whole_for_diffusers(place: Place) -> None:
    run = train(recipe_of(place, "exact", place.side, fairness={"mode": "exact"}))
    pipeline = StableDiffusionXLPipeline.from_pretrained(place.model, dtype=torch.bfloat16)
    pipeline.load_lora_weights(run / "lora")
    found = dict(pipeline.unet.named_parameters())
    downs = [name for name in found if ".lora_A." in name]
    assert len(downs) == len([name for name in found if ".lora_B." in name]) == LAYERS[place.shape]
    assert sum(bool(found[name.replace("lora_A", "lora_B")].any()) for name in downs) == LAYERS[place.shape]


def test_the_single_file_holds_the_same_tensors_and_names_every_layer_of_the_lora(place: Place) -> None:
    file = place.folder / "model.safetensors"
    if not file.exists():
        pipeline = load_pipeline(str(place.model), dtype=torch.bfloat16)
        write_atomically(file, lambda partial: save_single_file(pipeline, partial, torch.bfloat16))
        del pipeline
    run = train(recipe_of(place, "exact", place.side, fairness={"mode": "exact"}))
    lora = load_file(run / "lora" / KOHYA_FILE)
    base = dict.fromkeys(read_header(file, "the single file").tensors)
    for program in (comfyui, a1111, kohya):
        found = program(lora, base)
        assert len(found) == len(set(found.values())) == len(lora) / 3 == LAYERS[place.shape], program.__name__
    del lora
    pipeline = load_pipeline(str(file), dtype=torch.bfloat16)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        state = getattr(pipeline, part).state_dict()
        (weights,) = (place.model / part).glob("*.safetensors")
        with safe_open(weights, "pt") as kept:
            assert {name.removeprefix("text_model.") for name in kept.keys()} == {  # noqa: SIM118 - no mapping
                name.removeprefix("text_model.") for name in state
            }
            for name in kept.keys():  # noqa: SIM118
                own = state.get(name, state.get(f"text_model.{name}"))
                own = state[name.removeprefix("text_model.")] if own is None else own
                assert torch.equal(kept.get_tensor(name).to(own.dtype), own), (part, name)


def test_sampling_with_the_lora(place: Place) -> None:
    run = train(recipe_of(place, "exact", place.side, fairness={"mode": "exact"}))
    out = place.folder / "samples"
    options = ["--model", place.model, "--lora", run / "lora", "--precision", "bf16", "--steps", 2, "--redraw"]
    options += ["--height", place.side, "--width", place.side, "--prompt", "a woman waving with both hands"]
    peak = finish(start("sample", out, *options))
    assert peak.own < 16 * GB
    (file,) = out.rglob("*.png")
    with Image.open(file) as picture:
        assert picture.size == (place.side, place.side)


def test_eight_bits_take_less_memory(place: Place) -> None:
    whole = recipe_of(place, "output", place.side, fairness={"mode": "output"})
    recipe = recipe_of(place, "int8", place.side, fairness={"mode": "output"}, base={"quantize": "int8"})
    train(whole)
    run = train(recipe)
    check_peak(place, recipe)
    tensors = load_file(run / "lora" / KOHYA_FILE)
    assert len(tensors) == 3 * LAYERS[place.shape]
    if place.true:
        assert sum(peak_of(whole.out)) - peak_of(run).own > 1.5 * GB
