"""The table of what training runs need."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from fairhuman import config
from fairhuman.bases.published import PUBLISHED
from fairhuman.bench.memory_table import memory_table, row_count
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.train.memory import Memory, memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.parse import parse_json
from helpers.places import RECIPES
from helpers.shapes import write_shape


def test_the_settings_that_fit_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., tuple[int, str, str]]
) -> None:
    """As the command says them, with needs that are easy to follow: 4 GiB, 2 with int8, 1 with nf4."""

    def simple(recipe: TrainRecipe, _models: object = None) -> Memory:
        weights = 2**32 // {"none": 1, "int8": 2, "nf4": 4}[recipe.base.quantize] - recipe.lora.rank
        return Memory(frozen=weights, trained=0, optimizer=0, encode=0, step=0, audit=None, update=0)

    monkeypatch.setattr("fairhuman.train.memory.memory_of", simple)
    cards = [part for size in ("6GB", "3GB", "1.6", "1GB") for part in ("--fit", size)]
    out = tmp_path / "fits.json"
    code, said, errors = typed("bench", "--memory", *cards, "--out", out, "model=small", "ranks=[8]", "kinds=[lora]")
    assert code == 0, errors
    for text in ("fits as it is (4.7 GiB)", "base.quantize=int8 (2.6 GiB)", "base.quantize=nf4 (1.5 GiB)", "no change"):
        assert text in said
    rows = parse_json(out.read_text())["rows"]
    assert [row["change"] and row["change"]["overrides"] for row in rows] == [
        *([], ["base.quantize=int8"], ["base.quantize=nf4"], None),
        *([], ["base.quantize=int8"], ["base.quantize=nf4"], None),
    ]
    code, said, errors = typed("bench", "--memory", "--recipe", RECIPES / "lora-sdxl-64.yaml", "--fit", "3GB")
    assert "3GB: base.quantize=int8 (2.6 GiB)" in said, errors
    assert "add --memory" in typed("bench", "--fit", "8GB")[2]
    assert "--fit: expected a size such as 12GB, found 'small'" in typed("bench", "--memory", "--fit", "small")[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--memory", "--profile", "trace.json"), "--memory computes and runs no steps: remove --profile"),
        (("--memory", "--rounds", "3"), "--memory computes and runs no steps: remove --rounds"),
        (("--profile", "trace.json", "--rounds", "3"), "no numbers: remove --rounds"),
        (("--profile", "trace.json", "--out", "speed.json"), "no numbers: remove --out"),
    ],
)
def test_options_that_another_one_would_silence_are_refused(
    typed: Callable[..., tuple[int, str, str]], options: tuple[str, ...], said: str
) -> None:
    code, _, errors = typed("bench", *options)
    assert code == 2
    assert said in " ".join(errors.split())


def test_the_settings_that_fit_cards_on_all_bases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., tuple[int, str, str]]
) -> None:
    def simple(recipe: TrainRecipe, _models: object = None) -> Memory:
        return Memory(frozen=2**30, trained=0, optimizer=0, encode=0, step=0, audit=None, update=0)

    monkeypatch.setattr("fairhuman.train.memory.memory_of", simple)
    out = tmp_path / "fits.json"
    code, said, errors = typed("bench", "--memory", "--fit", "8GB", "--out", out, "model=all", "batch_sizes=[1]")
    assert code == 0, errors
    rows = parse_json(out.read_text())["rows"]
    assert {row["model"] for row in rows} == {"sdxl", *PUBLISHED}
    kinds = ["LoRA 64", "LoRA 128", "LoRA 256", "ControlNet", "T2I-adapter"]
    assert [row["kind"] for row in rows] == [*kinds, *["LoRA 16"] * len(PUBLISHED)]
    assert "Tongyi-MAI/Z-Image, LoRA 16, MPD, batch 1, bf16; recipes/lora-zimage.yaml" in " ".join(said.split())
    for name in {row["recipe"] for row in rows if row["recipe"]}:
        assert (RECIPES / name).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "controlnet"])
def test_rows_of_amortised_modes_equal_memory_of(kind: str, tmp_path: Path) -> None:
    model = str(write_shape(tmp_path / "model"))
    settings = MemoryTableSettings(model=model, resolution=64, ranks=(4,), kinds=(kind,), batch_sizes=(2,))
    rows = {row.way: row.memory for row in memory_table(settings)}
    assert len(rows) == row_count(settings) == 5
    for way, pairwise in {"MPD, amortised": False, "MPD, amortised, pairs": True}.items():
        values = {
            **{"model": model, "data": "none", "out": "none", "steps": 1, "resolution": 64, "batch_size": 2},
            **{"kind": kind, "precision": "bf16", "gradient_checkpointing": True},
            **({"lora": {"rank": 4}} if kind == "lora" else {}),
            "fairness": {"mode": "output", "pairwise": pairwise},
        }
        expected = memory_of(config.build(TrainRecipe, values))
        assert expected.audit is not None
        assert asdict(rows[way]) == asdict(expected)
