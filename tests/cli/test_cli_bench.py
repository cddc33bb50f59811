"""`fairhuman bench`, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.bench import noise
from helpers.shapes import write_shape

Typed = Callable[..., tuple[int, str, str]]
TINY = ("resolution=32", "batch_size=2", "lora.rank=2")


@pytest.mark.slow
def test_speed_against_a_bare_loop(tmp_path: Path, typed: Typed) -> None:
    code, said, errors = typed("bench", *TINY, "--rounds", 2, "--out", tmp_path / "speed.json")
    assert code == 0, errors
    found = {one["name"]: one for one in json.loads((tmp_path / "speed.json").read_text())["speed"]}
    assert list(found) == ["bare loop", "LS", "mpd, exact", "mpd, output", "mpd, split", "mpd, tail"]
    assert found["bare loop"]["ratio"] == [1.0, 1.0, 1.0]
    assert 0.0 < found["mpd, exact"]["ratio"][1] < found["LS"]["ratio"][1] < 1.0
    amortised = ("mpd, output", "mpd, split", "mpd, tail")
    assert [found[name]["exact"] for name in amortised] == [0.0, 0.0, 0.0], "their first, exact steps are over"
    assert found["LS"]["waiting"][1] > found["bare loop"]["waiting"][1] == 0.0
    assert "mpd, output" in said


@pytest.mark.slow
def test_a_trace(tmp_path: Path, typed: Typed) -> None:
    code, said, errors = typed("bench", *TINY, "precision=bf16", "--profile", tmp_path / "trace.json")
    assert code == 0, errors
    assert f"trace: {tmp_path / 'trace.json'}" in said
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"aten::conv2d", "fairhuman: prediction"} <= names
    parts = ("loading", "latents", "prediction", "direction", "optimizer", "the rest")
    shares = [
        float(row.split("│")[3].rstrip(" %")) for part in parts for row in said.splitlines() if f" {part} " in row
    ]
    assert len(shares) == len(parts)
    assert min(shares) >= 0.0
    assert sum(shares) == pytest.approx(100.0, abs=0.5)


@pytest.mark.parametrize("ranks", [[4], pytest.param([4, 8], marks=pytest.mark.slow)], ids=str)
def test_memory_of_a_model_as_a_table_and_of_a_recipe(tmp_path: Path, typed: Typed, ranks: list[int]) -> None:
    model = write_shape(tmp_path / "model")
    small = (f"model={model}", "resolution=64", f"ranks={ranks}", "batch_sizes=[2]", "kinds=[lora]")
    code, said, errors = typed("bench", "--memory", *small, "--out", tmp_path / "memory.json")
    assert code == 0, errors
    rows = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert [(row["kind"], row["way"]) for row in rows[:2]] == [("LoRA 4", "LS"), ("LoRA 4", "MPD, exact")]
    assert len(rows) == 5 * len(ranks)
    assert rows[-5]["memory"]["trained"] == ranks[-1] // ranks[0] * rows[0]["memory"]["trained"]
    pairs = {row["way"]: row["memory"] for row in rows[:5]}
    assert pairs["MPD, exact, pairs"]["step"] == pairs["MPD, amortised, pairs"]["audit"]
    assert f"LoRA {ranks[-1]}, MPD, amortised" in said
    recipe = tmp_path / "run.yaml"
    recipe.write_text(f"model: {model}\ndata: none\nout: none\nsteps: 1\nresolution: 64\n", encoding="utf-8")
    code, said, errors = typed("bench", "--memory", "--recipe", recipe, "lora.rank=4")
    assert code == 0, errors
    assert "a device must have" in said


def test_dry_runs_and_mistakes(tmp_path: Path, typed: Typed) -> None:
    assert "resolution: 128" in typed("bench", "--dry-run")[1]
    assert "ranks" in typed("bench", "--memory", "--dry-run")[1]
    assert "unknown setting 'rank'" in typed("bench", "--memory", "rank=3")[2]
    assert "no such recipe" in typed("bench", "--recipe", tmp_path / "none.yaml")[2]


def test_settings_without_effect_are_refused_or_named(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "write_noise", lambda *_: None)  # a dry run reads none of it
    said = "the command line: fairness.alpha=7 has no effect with strategy=mpd; it needs strategy=alpha"
    assert said in typed("bench", "--dry-run", "strategy=mpd", "fairness.alpha=7")[2]
    assert typed("bench", "--dry-run", "kind=full")[0] == 0, "the noise's own rank is no setting of the user's"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: .\nout: run\nsteps: 1\nlora: {rank: 4}\n")
    code, text, errors = typed("bench", "--dry-run", "--recipe", recipe, "kind=full")
    assert code == 0, errors
    assert f"{recipe}: lora.rank=4 has no effect with kind=full and is left out" in text
