"""The recipes of the new bases: honest about their sources, and true for the tiny pipeline of their base."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman import config
from fairhuman.bases.base import networks
from fairhuman.bases.names import BASES
from fairhuman.train.bases import check_settings
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe
from helpers.base_cases import Case
from helpers.figures import write_figures
from helpers.places import RECIPES

NAMES = {"sd3": "lora-sd35", "z_image": "lora-zimage", "flux2": "lora-flux2-klein", "qwen_image": "lora-qwen-image"}
UNSOURCED = ("kind", "model", "data", "out")


def recipe_of(case: Case, *overrides: str) -> TrainRecipe:
    if case.name not in NAMES:
        pytest.skip("has no recipe")
    return config.load(TrainRecipe, RECIPES / f"{NAMES[case.name]}.yaml", overrides)


@pytest.mark.parametrize("name", NAMES.values())
def test_each_setting_has_its_source(name: str) -> None:
    """S, R, M and P are explained at the top; `ours` is what no source says."""
    text = (RECIPES / f"{name}.yaml").read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.split("kind: lora")[0].splitlines())
    assert "Never run with the real weights" in head
    used = set()
    for line in text.splitlines():
        if line.startswith("#") or line.endswith(":") or line.startswith(UNSOURCED):
            continue
        source = re.search(r"  # (ours\b|[SRMP]\b)", line)
        assert source, line
        used.add(source[1])
    for letter in used - {"ours"}:
        assert re.search(rf"\b{letter}\b.*?: ", head), letter


def test_its_settings_go_with_its_base(case: Case) -> None:
    recipe = recipe_of(case, f"model={case.folder}")
    check_settings(recipe)
    noising = case.base.noising(recipe.noise.times)
    expected = {"sd3": 3.0, "z_image": 2.0, "flux2": 1.0, "qwen_image": 2.2}[case.name]
    assert noising.shift_at(4096) == expected  # type: ignore[attr-defined]
    assert recipe.lora.targets in case.base.targets


def test_its_memory_is_computed_from_shapes(case: Case) -> None:
    """Weights of all components in bf16, but the VAE's in float32; a step and its audit need memory beside them."""
    memory = memory_of(recipe_of(case, f"model={case.folder}", "resolution=64", "lora.rank=4", "batch_size=2"))
    parts = networks(case.base.pipeline)
    updates = sum(parameter.numel() for parameter in case.parameters)
    frozen = sum(
        parameter.numel() * (4 if part is case.base.vae else 2) for part in parts for parameter in part.parameters()
    )
    assert memory.frozen == frozen - 2 * updates
    assert memory.trained == 4 * updates
    assert memory.optimizer == 2 * memory.trained
    assert memory.audit is not None
    assert 0 < memory.step <= memory.audit


def test_every_flow_base_has_a_recipe_or_none_is_promised() -> None:
    places = {entry.place.partition(":")[0] for entry in BASES.values()} - {"sdxl", "flux", "lumina2"}
    assert places == NAMES.keys()
    page = (RECIPES.parent / "docs/bases.md").read_text()
    assert all(f"{name}.yaml" in page for name in NAMES.values())


@pytest.mark.slow
def test_it_trains_the_tiny_pipeline(case: Case, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    recipe_of(case)
    write_figures(tmp_path / "people", 12, 64, seed=1)
    smaller = ["resolution=64", "steps=2", "batch_size=2", "source.workers=0", "lora.rank=4", "preview.steps=2"]
    places = [f"model={case.folder}", f"data={tmp_path / 'people'}", f"out={tmp_path / 'run'}"]
    recipe = RECIPES / f"{NAMES[case.name]}.yaml"
    cache = f"cache.folder={tmp_path / 'cache'}"
    code, said, errors = typed("train", recipe, *places, *smaller, cache)
    assert code == 0, said + errors
    assert (tmp_path / "run/lora/pytorch_lora_weights.safetensors").is_file()
