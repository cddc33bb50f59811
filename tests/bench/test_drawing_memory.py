"""What drawing needs: against the measured peak, and told before a model is loaded that main memory can't hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from fairhuman.bases.base import networks
from fairhuman.bench.drawing_memory import check_drawing_memory, drawing_needs
from fairhuman.errors import ModelError
from fairhuman.generate.sample import sample
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import BaseSettings
from fairhuman.train.memory import Memory
from fairhuman.train.recipe import TrainRecipe
from helpers.shapes import write_shape
from peak_memory import peak_allocated_bytes


def test_drawing_needs_the_computed_memory() -> None:
    """Bytes of weights, and the peak of PyTorch's CPU allocator within 10 %: pictures are decoded one by one."""
    found = drawing_needs("small", "fp32", size=(64, 64), batch_size=4).memory
    pipeline, settings = load_pipeline("small"), SampleSettings(steps=1, height=64, width=64, batch_size=4)
    weights = sum(p.nbytes for part in networks(pipeline) for p in part.parameters())
    assert weights < found.frozen < 1.01 * weights  # with a LoRA of rank 1
    assert found.preview is not None
    assert found.decode is not None
    prompts = ["a hat"] * 4
    list(sample(pipeline, prompts, settings))
    measured = peak_allocated_bytes(lambda: list(sample(pipeline, prompts, settings)))
    assert max(found.preview, found.decode) == pytest.approx(measured, rel=0.1)
    beside = found.frozen - found.aside  # the network leaves a GPU that is too small to decode beside it
    assert found.total == max(found.frozen + max(found.preview, found.texts), beside + found.decode)


def test_fewer_bits_and_pictures_take_less() -> None:
    plain, few, bits = (
        drawing_needs("small", "fp32", overrides, size=(64, 64)).needed
        for overrides in ((), ("batch_size=1",), ("base.quantize=int8",))
    )
    assert few < plain
    assert bits < plain


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, and needs that are easy to follow: 4 GiB and the program, half as much in bf16, half of that in int8."""

    def memory(recipe: TrainRecipe) -> Memory:
        half = (recipe.precision == "bf16") + (recipe.base.quantize == "int8")
        return Memory(frozen=2**32 >> half, trained=0, optimizer=0, encode=0, step=0, audit=None, update=0)

    monkeypatch.setattr("fairhuman.bench.drawing_memory.sampling_memory", memory)
    monkeypatch.setattr("fairhuman.bench.drawing_memory.PLENTY", 2**20)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("simple")
def test_drawing_that_main_memory_can_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(write_shape(tmp_path / "model"))  # without weights: nothing is loaded

    def check(gib: float, precision: str = "fp32", name: str = model) -> str:
        monkeypatch.setattr("fairhuman.bench.drawing_memory.main_memory_bytes", lambda: int(gib * 2**30))
        try:
            check_drawing_memory(name, precision, BaseSettings(), (None, 64), 4)
        except ModelError as error:
            return str(error).removeprefix(f"model {model!r}: there is no GPU, and ")
        return ""

    assert check(5.3) == ""
    assert check(5.2) == (
        "drawing needs about 4.9 GiB of main memory, or up to 8 % more; it has 5.2. What fits: precision bf16 "
        "(2.9 GiB). --skip-memory-check starts it all the same"
    )
    assert "What fits: quantize int8 (1.9 GiB)" in check(2.1, "bf16")
    assert "What fits: precision bf16 and quantize int8 (1.9 GiB)" in check(2.1)
    assert "What fits: smaller pictures, or a GPU" in check(1)
    assert check(1, name="no/such/folder") == "", "loading says that"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "of main memory for each of 2 processes, or up to 8 % more; it has 10.0" in check(10)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check(1) == ""


@pytest.mark.usefixtures("simple")
@pytest.mark.parametrize("command", ["sample", "refine"])
def test_the_commands_check_main_memory_before_they_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., tuple[int, str, str]], command: str
) -> None:
    loaded: list[object] = []

    def load(*given: object, **_: object) -> None:
        loaded.append(given)
        raise ModelError("loaded")

    for place in ("generate.run", "refine.painter"):
        monkeypatch.setattr(f"fairhuman.{place}.load_pipeline", load)
    monkeypatch.setattr("fairhuman.bench.drawing_memory.main_memory_bytes", lambda: 2**20)
    Image.new("RGB", (64, 64)).save(tmp_path / "hat.png")
    line = {
        "sample": ("sample", tmp_path / "out", "--prompt", "a hat"),
        "refine": ("refine", tmp_path / "hat.png", "--out", tmp_path / "out"),
    }[command]
    code, _, errors = typed(*line)
    assert (code, loaded) == (1, [])
    assert "there is no GPU, and drawing needs about" in errors
    assert not (tmp_path / "out").exists()
    assert "loaded" in typed(*line, "--skip-memory-check")[2]
