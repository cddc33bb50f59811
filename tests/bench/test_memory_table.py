"""The table of what training runs need."""

from dataclasses import asdict
from pathlib import Path

import pytest

from fairhuman import config
from fairhuman.bench.memory_table import memory_table, row_count
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe
from helpers.shapes import write_shape


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
