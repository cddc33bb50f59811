"""A handful of drawn people, and recipes that train on them in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairhuman import config
from fairhuman.train.recipe import TrainRecipe
from helpers.figures import write_figures

MakeRecipe = Callable[..., TrainRecipe]


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without curves, which take a second a run to draw: `tests/report` draws them."""
    monkeypatch.setattr("fairhuman.report.html.to_svg", lambda _: b"<svg/>")


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_figures(folder, 12, 64, seed=1)
    return folder


@pytest.fixture
def make_recipe(people: Path, tmp_path: Path) -> MakeRecipe:
    """Return a function from settings to a tiny recipe whose run is in `tmp_path / out`, with caches of its own."""

    def make(out: str = "run", *overrides: str, **values: Any) -> TrainRecipe:
        base: dict[str, Any] = {
            "data": str(people),
            "out": str(tmp_path / out),
            "steps": 4,
            "batch_size": 2,
            "resolution": 32,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
            "lora": {"rank": 4},
            "view": {"keep_region": 1.0},
            "validation": {"every": 0},
            "preview": {"count": 0},
        }
        cache = {"folder": str(tmp_path / "caches" / out), **values.pop("cache", {})}
        return config.build(TrainRecipe, {**base, **values, "cache": cache}, overrides)

    return make
