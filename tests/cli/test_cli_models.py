"""Models and LoRA files on the command line: single files everywhere, merging, and one line for what is wrong."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file

from fairhuman.models.lora import KOHYA_FILE, LoraModel
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import LoraSettings
from fairhuman.models.single_file import save_single_file
from fairhuman.utils.hub import failure, plain
from helpers.figures import write_figures
from helpers.places import ROOT

Typed = Callable[..., tuple[int, str, str]]
TINY = ("--steps", 1, "--height", 32, "--width", 32, "--prompt", "a hat")
LEAKS = re.compile(
    r"local_files_only|stacktrace|Traceback|from_pretrained|offline-mode|Please|make sure", re.IGNORECASE
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a LoRA, people and files that are neither."""
    folder = tmp_path_factory.mktemp("models")
    save_single_file(load_pipeline("small"), folder / "base.safetensors", torch.float16)
    LoraModel(load_pipeline("small"), LoraSettings(rank=2), seed=0).save(folder / "lora")
    write_figures(folder / "people", 4, 64, seed=2)
    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    (folder / "cut.safetensors").write_bytes((folder / "base.safetensors").read_bytes()[:-1000])
    return folder


def recipe(folder: Path, kept: Path, *overrides: str) -> tuple[object, ...]:
    few = (
        "steps=1",
        "batch_size=1",
        "resolution=32",
        "validation.every=0",
        "preview.count=0",
        "schedule.name=constant",
    )
    places = (f"data={kept / 'people'}", f"out={folder / 'run'}", f"model={kept / 'base.safetensors'}")
    return ("train", ROOT / "recipes" / "lora-small.yaml", *places, *few, *overrides)


@pytest.mark.slow
def test_a_single_file_is_taken_everywhere(tmp_path: Path, kept: Path, typed: Typed) -> None:
    model = kept / "base.safetensors"
    code, _, errors = typed(
        *recipe(tmp_path, kept, "lora.rank=2", "lora.targets=attention", f"lora.start={kept / 'lora' / KOHYA_FILE}")
    )
    assert (code, errors) == (0, "")
    lora = tmp_path / "run" / "lora"
    drawn = ("sample", tmp_path / "one", "--model", model, "--lora", lora, *TINY)
    assert typed(*drawn)[0] == 0
    assert typed("sample", tmp_path / "two", "--lora", lora, *TINY)[0] == 0
    one, two = ((tmp_path / name / "00000-00.png") for name in ("one", "two"))
    assert Image.open(one).tobytes() == Image.open(two).tobytes()
    few = ("resolution=32", "timesteps=[0.4]", "count=2")
    code, said, _ = typed("losses", kept / "people", "--model", f"file={model}", "--model", "small=small", *few)
    assert code == 0
    assert "0.00 %" in said
    assert typed("refine", one, "--out", tmp_path / "refined", "--model", model, "--dry-run")[0] == 0
    code, said, _ = typed("bench", "--memory", f"model={model}", "resolution=64", "ranks=[2]", "batch_sizes=[1]")
    assert code == 0
    compared = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert compared["trained_values"] > 0
    grid = ("grid", tmp_path / "grid", "--method", f"a={model}", "--prompts", tmp_path / "prompts.txt")
    (tmp_path / "prompts.txt").write_text("a hat\n", encoding="utf-8")
    assert typed(*grid, "resolution=32", "steps=1")[0] == 0


def test_a_run_does_not_resume_on_another_base_of_the_same_name(tmp_path: Path, kept: Path, typed: Typed) -> None:
    model = tmp_path / "base.safetensors"
    shutil.copy(kept / "base.safetensors", model)
    assert typed(*recipe(tmp_path, kept, f"model={model}"))[0] == 0
    tensors = load_file(model)
    tensors["model.diffusion_model.out.2.weight"] += 1.0
    save_file(tensors, model)
    code, _, errors = typed(*recipe(tmp_path, kept, f"model={model}", "steps=2"))
    assert code == 1
    assert re.search(r"base\.safetensors.*differ from those that the run in .* began with", errors)
    shutil.copy(kept / "base.safetensors", model)
    assert typed(*recipe(tmp_path, kept, f"model={model}", "steps=2"))[0] == 0


def test_v_prediction_is_trained_and_sampled(tmp_path: Path, kept: Path, typed: Typed) -> None:
    settings = ("base.prediction=v", "base.zero_snr=true", "noise.min_snr_gamma=5", "steps=2")
    code, _, errors = typed(*recipe(tmp_path, kept, *settings))
    assert (code, errors) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss/global"] > 0 for row in rows)
    options = ("--prediction", "v", "--zero-snr", "true")
    assert typed("sample", tmp_path / "v", *TINY, *options)[0] == 0
    assert typed("sample", tmp_path / "noise", *TINY)[0] == 0
    v, noise = (Image.open(tmp_path / name / "00000-00.png").tobytes() for name in ("v", "noise"))
    assert v != noise
    code, _, errors = typed("sample", tmp_path / "x", *TINY, "--prediction", "velocity")
    assert code == 2
    assert "prediction" in errors


def test_merge_writes_what_sampling_with_the_lora_draws(tmp_path: Path, kept: Path, typed: Typed) -> None:
    model, lora = kept / "base.safetensors", kept / "strong"
    if not lora.exists():
        one = LoraModel(load_pipeline("small"), LoraSettings(rank=2), seed=0)
        with torch.no_grad():
            for parameter in one.trainable_parameters():
                parameter.add_(0.05)
        one.save(lora)
    for out in ("merged.safetensors", "merged"):
        given = ("merge", model, lora, tmp_path / out, "--weight", 0.5, "--precision", "fp32")
        code, said, _ = typed(*given, "--dry-run")
        assert code == 0
        assert "would merge" in said
        assert not (tmp_path / out).exists()
        code, said, errors = typed(*given)
        assert (code, errors) == (0, "")
        assert "56 layers of unet changed" in said
        assert typed("sample", tmp_path / f"of-{out}", "--model", tmp_path / out, *TINY)[0] == 0
        code, _, errors = typed(*given)
        assert code == 2
        assert "exists already; give a new name" in errors
    typed("sample", tmp_path / "with", "--model", model, "--lora", lora, "--lora-weight", 0.5, *TINY)
    typed("sample", tmp_path / "plain", "--model", model, *TINY)
    pictures = {
        name: torch.frombuffer(bytearray(Image.open(tmp_path / name / "00000-00.png").tobytes()), dtype=torch.uint8)
        for name in ("with", "plain", "of-merged", "of-merged.safetensors")
    }
    for name in ("of-merged", "of-merged.safetensors"):
        assert (pictures[name].int() - pictures["with"].int()).abs().max() <= 1
    assert (pictures["with"].int() - pictures["plain"].int()).abs().max() > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "lora/pytorch_lora_weights.safetensors"), "a LoRA: give it as --lora"),
        (("--model", "lora"), "it holds a LoRA: give it as --lora, or in a recipe as lora.start"),
        (("--lora", "base.safetensors"), "a whole checkpoint: give it as --model"),
        (("--model", "cut.safetensors"), "the file is cut off"),
        (("--lora", "cut.safetensors"), "the file is cut off"),
        (("--model", "photo.png"), "found a PNG picture"),
        (("--model", "missing.safetensors"), "found no such file"),
        (("--lora", "missing.safetensors"), "expected a file or a folder"),
        (("--vae", "missing.safetensors"), "base.vae .*found none there"),
        (("--vae", "lora"), "base.vae .*expected the folder of a VAE, found none with config.json in it"),
        (("--vae", "photo.png"), "base.vae .*found a PNG picture"),
    ],
)
def test_wrong_files_are_answered_in_one_line(
    tmp_path: Path, kept: Path, typed: Typed, options: tuple[str, str], message: str
) -> None:
    code, _, errors = typed("sample", tmp_path / "out", *TINY, options[0], kept / options[1])
    assert code == 1
    assert re.search(message, errors), errors
    assert errors.count("\n") == 1
    assert not LEAKS.search(errors)


def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nothing in the hub's cache."""

    def connect(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the hub's client waits 23 s between its tries
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def test_the_hub_that_cannot_be_reached(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(tmp_path, monkeypatch)
    name = "owner-of-nothing/no-such-model"
    code, _, errors = typed("sample", tmp_path / "out", *TINY, "--model", name, "--skip-memory-check")
    assert code == 1
    assert re.search(rf"model '{name}': .*isn't in the hub's local cache and .*give a local path, or", errors), errors
    assert errors.count("\n") == 1
    assert not LEAKS.search(errors)


def test_memory_is_computed_though_the_hub_cannot_be_reached(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(tmp_path, monkeypatch)
    monkeypatch.setattr(
        "fairhuman.train.memory._peaks", lambda *_: {"encode": 2**30, "texts": 2**20, "step": 2**30}
    )  # of its networks, built offline
    code, said, _ = typed("bench", "--memory", "--recipe", ROOT / "recipes" / "lora-sdxl.yaml", "strategy=ls")
    assert code == 0
    assert "a device must have" in said


def test_what_libraries_say_becomes_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    cause = LocalEntryNotFoundError("Cannot find the file. Please pass 'local_files_only=False' as input.")
    error = OSError("We couldn't connect to 'https://huggingface.co'. Please check out the stacktrace above.")
    error.__cause__ = cause
    found = failure(error, "owner/name", "an SDXL")
    assert found == (
        "expected an SDXL, but owner/name isn't in the hub's local cache and huggingface.co can't be reached; "
        "give a local path, or connect to download it once"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set; give a local path, or unset HF_HUB_OFFLINE" in failure(error, "owner/name")
    text = "Error no file named x.bin found in folder. Please make sure that it is there. See https://example.org."
    assert plain(OSError(text)) == "Error no file named x.bin found in folder"
    assert plain(KeyError()) == "KeyError"


def test_the_commands_of_the_page(tmp_path: Path, kept: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(kept / "lora", tmp_path / "runs" / "lora-small" / "lora")
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL) for line in block.splitlines()]
    assert commands
    for line in commands:
        code, _, errors = typed(*shlex.split(line)[1:])
        assert code == 0, errors
    assert (tmp_path / "runs" / "merged.safetensors").is_file()
