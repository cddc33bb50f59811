"""Measuring speed: the available modes, and that the bare loop trains the run's parameters."""

import gzip
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from fairhuman import config
from fairhuman.bench import speed
from fairhuman.bench.noise import write_noise
from fairhuman.bench.speed import BARE, available_modes, measure_speed
from fairhuman.train.recipe import TrainRecipe


def recipe_of(folder: Path, **values: Any) -> TrainRecipe:
    common = {"data": str(folder), "out": str(folder / "out"), "steps": 1, "resolution": 32, "lora": {"rank": 2}}
    common |= {"batch_size": 2, "validation": {"every": 0}, "preview": {"count": 0}}
    return config.build(TrainRecipe, {**common, **values})


def test_unsupported_modes_are_not_measured(tmp_path: Path) -> None:
    assert available_modes(recipe_of(tmp_path)) == ("exact", "output", "split", "tail")
    convolutions = {"rank": 2, "targets": "attention+conv"}
    assert available_modes(recipe_of(tmp_path, lora=convolutions)) == ("exact", "output", "tail")
    assert available_modes(recipe_of(tmp_path, kind="t2i_adapter")) == ("exact", "output")
    assert available_modes(recipe_of(tmp_path, fairness={"pairwise": True})) == ("exact", "output")


def test_an_adapter_is_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_noise(tmp_path, 4, (32, 32))
    monkeypatch.setattr(speed, "WARM_UP", 1)
    recipe = recipe_of(tmp_path, kind="t2i_adapter")
    found = measure_speed(recipe, 1, ["exact"])
    assert [one.name for one in found] == [BARE, "LS", "mpd, exact"]
    assert found[0].ratio == (1.0, 1.0, 1.0)
    assert all(one.images_per_s[0] > 0.0 for one in found)


def test_a_device_holds_one_model_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's meta device stands for a GPU; a run's parts refer to each other."""
    begun: list[weakref.ref[Any]] = []

    class Parts:
        """Of a run."""

    def start(_: TrainRecipe) -> Parts:
        assert all(one() is None for one in begun)
        parts: Any = Parts()
        parts.itself = parts
        begun.append(weakref.ref(parts))
        return parts

    def way_of(run: Any, bare: bool) -> Callable[[], speed.StepFacts]:
        return lambda: speed.StepFacts(exact=run is None or bare)

    monkeypatch.setattr(speed, "PartialState", lambda **_: SimpleNamespace(device=torch.device("meta")))
    monkeypatch.setattr(speed, "start", start)
    monkeypatch.setattr(speed, "way_of", way_of)
    measure_speed(recipe_of(tmp_path), 1, ["exact", "output"])
    assert len(begun) == 4


def test_an_amortised_mode_is_warm_after_its_exact_steps() -> None:
    taken = []

    def step() -> speed.StepFacts:
        taken.append(len(taken) < 5)
        return speed.StepFacts(exact=taken[-1])

    speed.warm_up(step, amortised=True)
    assert taken == [True] * 5 + [False] * speed.WARM_UP
    taken.clear()
    speed.warm_up(step, amortised=False)
    assert len(taken) == speed.WARM_UP


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_trace_is_written_whole_or_not_at_all(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "start", lambda recipe: recipe)
    monkeypatch.setattr(speed, "way_of", lambda _: lambda: speed.StepFacts(exact=True))
    file = tmp_path / name
    speed.trace(recipe_of(tmp_path), file)
    before = file.read_bytes()
    text = gzip.decompress(before) if name.endswith(".gz") else before
    assert json.loads(text)["traceEvents"]

    def killed(profiler: object, path: str) -> None:
        Path(path).write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(speed.profile, "export_chrome_trace", killed)
    with pytest.raises(OSError, match="No space left"):
        speed.trace(recipe_of(tmp_path), file)
    assert file.read_bytes() == before
    assert [*tmp_path.iterdir()] == [file]


def test_noise_is_the_same_each_time_and_of_the_size_asked_for(tmp_path: Path) -> None:
    write_noise(tmp_path / "a", 2, (24, 40))
    write_noise(tmp_path / "b", 2, (24, 40))
    first, second = ((tmp_path / name / "1.jpg").read_bytes() for name in "ab")
    assert first == second != (tmp_path / "a" / "0.jpg").read_bytes()
    with Image.open(tmp_path / "a" / "1.jpg") as picture:
        assert picture.size == (40, 24)
