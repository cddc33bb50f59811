"""Recipes: loading, overrides, error messages."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field, model_validator

from fairhuman import config
from fairhuman.compare.paper.recipe import ReproduceRecipe
from fairhuman.compare.paper.settings import SheetSettings
from fairhuman.compare.settings import CompareRecipe
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.errors import RecipeError
from fairhuman.refine.settings import RefineSettings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import GRADIENT_BALANCING, LOSS_WEIGHTING
from fairhuman.utils.plugins import STRATEGIES, plugin_names
from helpers.places import RECIPES


class Inner(config.Settings):
    rank: int = Field(default=4, ge=1)
    names: tuple[str, ...] = ("a",)


class Outer(config.Settings):
    steps: int
    learning_rate: float = 1e-3
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _check(self) -> "Outer":
        if self.steps < 0:
            raise ValueError(f"SDXL takes no negative steps, found {self.steps}")
        return self


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_overrides_win_over_the_file_and_reach_into_sections(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "steps: 3\ninner:\n  rank: 2\n")
    loaded = config.load(Outer, path, ["inner.rank=8", "learning_rate=1e-5", "inner.names=[x, y]"])
    assert loaded == Outer(steps=3, learning_rate=1e-5, inner=Inner(rank=8, names=("x", "y")))


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("odd & photos #1 ü", "odd & photos #1 ü"),
        ("#1", "#1"),
        ("a#b", "a#b"),
        ('"a #b"', "a #b"),
        ("[a, '#b']", ["a", "#b"]),
    ],
)
def test_a_typed_value_has_no_comment(typed: str, value: object) -> None:
    assert config.overridden({}, [f"inner.names={typed}"]) == {"inner": {"names": value}}


def test_a_typed_mapping_is_merged_as_that_of_a_file_and_an_empty_one_replaces(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "steps: 3\ninner:\n  rank: 2\n  names: [q]\n")
    assert config.load(Outer, path, ["inner={rank: 5}"]).inner == Inner(rank=5, names=("q",))
    assert config.load(Outer, path, ["inner={}"]).inner == Inner()
    assert config.load(Outer, path, ["inner={}", "inner={rank: 5}"]).inner == Inner(rank=5)
    recipe = config.load(CompareRecipe, RECIPES / "evidence-quick.yaml", ["train.regions.scale={face: 25, hand: 25}"])
    cells = {"kept": {}, "emptied": {"regions": {"scale": {}}}, "another": {"regions": {"scale": {"hand": 2}}}}
    scales = [recipe.model_copy(update={"cells": cells}).run(cell, 1, None, "test").regions.scale for cell in cells]
    assert scales == [{"face": 25, "hand": 25}, {}, {"face": 25, "hand": 2}]


def test_a_saved_recipe_loads_back_equal(tmp_path: Path) -> None:
    settings = Outer(steps=7, learning_rate=1e-5, inner=Inner(rank=2, names=("ä", "b")))
    config.save(settings, tmp_path / "r.yaml")
    assert config.load(Outer, tmp_path / "r.yaml") == settings
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_extends_starts_from_another_file(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "steps: 3\ninner:\n  rank: 2\n  names: [q]\n")
    path = write(tmp_path, "r.yaml", "extends: base.yaml\ninner:\n  rank: 5\n")
    assert config.load(Outer, path) == Outer(steps=3, inner=Inner(rank=5, names=("q",)))
    emptied = write(tmp_path, "emptied.yaml", "extends: base.yaml\ninner: {}\n")
    assert config.load(Outer, emptied) == Outer(steps=3)
    loop = write(tmp_path, "loop.yaml", "extends: loop.yaml\nsteps: 1\n")
    with pytest.raises(RecipeError, match="extends itself"):
        config.load(Outer, loop)


def test_errors_of_extends_name_the_file_that_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"a": "extends: b.yaml", "b": "extends: c.yaml", "c": "extends: a.yaml", "missing": "extends: d.yaml"}
    for name, text in (files | {"list": "[1]", "of-list": "extends: list.yaml", "two": "extends: [a.yaml]"}).items():
        write(tmp_path, f"{name}.yaml", f"{text}\n")
    for name, message in (
        ("a", "a.yaml: extends itself: a.yaml extends b.yaml extends c.yaml extends a.yaml"),
        ("missing", "d.yaml: no such recipe (missing.yaml extends it); "),
        ("of-list", "list.yaml: expected a mapping of settings, found list (of-list.yaml extends it)"),
        ("two", "two.yaml: extends must name one recipe file, found ['a.yaml']"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            config.read(Path(f"{name}.yaml"))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("steps: 1\ninner:\n  rnak: 2\n", [], r"unknown setting 'inner.rnak'; did you mean 'inner.rank'"),
        ("steps: 1\n", ["lerning_rate=1"], r"unknown setting 'lerning_rate'; did you mean 'learning_rate'"),
        ("learning_rate: 1\n", [], r"the setting 'steps' is missing"),
        ("steps: 1\n", ["inner.rank=0"], r"inner.rank: input should be greater than or equal to 1, found 0"),
        ("steps: many\n", [], r"steps: .*integer.*found 'many'"),
        ("steps: -4\n", [], r"r.yaml: SDXL takes no negative steps, found -4$"),
        ("steps: 1\n", ["steps"], r"override 'steps': expected key=value"),
        ("steps: 1\n", ["r.yaml"], r"override 'r.yaml': expected key=value; .* given as --recipe"),
        ("steps: 1\n", ["steps.x=1"], r"override 'steps.x=1': steps is the value 1, not a section"),
        ("steps: 1\n", ["steps=[1"], r"override 'steps=\[1': the value is not valid YAML"),
        ("steps: 1\n", ["lr=1"], r"unknown setting 'lr'; did you mean 'learning_rate'"),
        ("steps: 1\n", ["rank=2"], r"unknown setting 'rank'; did you mean 'inner.rank'\?"),
        ("steps: 1\n", ["iner.rank=2"], r"unknown setting 'iner'; did you mean 'inner'\?"),
        ("steps: 1\n", ["inner.zzz=2"], r"unknown setting 'inner.zzz'; known are inner.rank, inner.names$"),
        ("- 1\n", [], r"r.yaml: expected a mapping of settings, found list"),
        ("steps: [\n", [], r"r.yaml: expected a YAML file"),
        ("learning_rate: 1\n", [], r"'steps' is missing: give it in the recipe, or as steps=VALUE$"),
        ("steps: 1\ninner:\n  rank: 2\n  'rank': 3\n", [], r"r.yaml: .*the key 'rank' is given in lines 3 and 4"),
        ("steps: 1\n", ["inner={rank: 2, rank: 3}"], r"override 'inner=.*the key 'rank' is given twice in line 1"),
    ],
)
def test_errors_name_the_setting(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config.load(Outer, write(tmp_path, "r.yaml", text), overrides)


def test_a_recipe_that_is_not_here_is_the_one_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = config.shipped(Path("recipes/lora-small.yaml"))
    assert found is not None
    assert found.read_bytes() == (RECIPES / "lora-small.yaml").read_bytes()
    for other in ("recipes/none.yaml", "lora-small.yaml", "/recipes/lora-small.yaml", "other/lora-small.yaml"):
        assert config.shipped(Path(other)) is None
    with pytest.raises(RecipeError, match=r"did you mean recipes/lora-small\.yaml"):
        config.read(Path("lora-smal"))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "lora-small.yaml").touch()
    assert config.shipped(Path("recipes/lora-small.yaml")) is None, "one's own comes first"


def test_a_recipe_extends_one_that_ships_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path, "own.yaml", "extends: recipes/lora-small.yaml\nsteps: 7\n")
    assert config.read(own) == config.read(RECIPES / "lora-small.yaml") | {"steps": 7}
    (tmp_path / "recipes").mkdir()
    write(tmp_path, "recipes/lora-small.yaml", "seed: 4\n")
    assert config.read(own) == {"seed": 4, "steps": 7}, "one's own comes first"


def test_recipes_that_ship_resolve_as_when_an_empty_mapping_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def earlier(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
        both = {name for name, value in over.items() if isinstance(value, dict) and isinstance(base.get(name), dict)}
        return base | {name: earlier(base[name], over[name]) if name in both else over[name] for name in over}

    def resolved() -> list[dict[str, Any]]:
        values = [config.read(path) for path in sorted(RECIPES.rglob("*.yaml"))]
        cells = [config.merge(one["train"], cell) for one in values if "cells" in one for cell in one["cells"].values()]
        return [*values, *cells]

    now = resolved()
    monkeypatch.setattr(config, "merge", earlier)
    assert resolved() == now


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere.yaml: no such recipe"):
        config.load(Outer, tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("regions.names=face,hand", ("face", "hand")),
        ("regions.names=face", ("face",)),
        ("validation.timesteps=0.1, 0.5", (0.1, 0.5)),
        ("resolution=512,768", (512, 768)),
        ("resolution=512", 512),
        ("lora.targets=to_q,to_k", ["to_q", "to_k"]),
        ("lora.targets=to_q", ["to_q"]),
        ("lora.targets=attention", "attention"),
        ("preview.prompts=a hat", ("a hat",)),
        ("preview.prompts=['a hat, red']", ("a hat, red",)),
    ],
)
def test_lists_of_plain_values_may_be_typed_without_brackets(override: str, value: object) -> None:
    loaded = config.load(TrainRecipe, RECIPES / "lora-small.yaml", [override, "view.bucket_aspect=null"])
    found: object = loaded
    for name in override.partition("=")[0].split("."):
        found = getattr(found, name)
    assert found == value


def test_a_path_with_a_comma_stays_a_path() -> None:
    assert str(config.load(TrainRecipe, RECIPES / "lora-small.yaml", ["data=a,b"]).data) == "a,b"


def test_a_recipe_on_the_screen_ends_with_its_only_empty_line() -> None:
    text = config.to_yaml(Outer(steps=1, inner=Inner(names=("two\n\nlines", "ä"))))
    assert "\n\n" not in text
    assert yaml.safe_load(text)["inner"]["names"] == ["two\n\nlines", "ä"]


def test_differences_are_listed_by_dotted_name() -> None:
    assert config.differences(Outer(steps=1), Outer(steps=2, inner=Inner(rank=9))) == {
        "steps": (1, 2),
        "inner.rank": (4, 9),
    }


def test_invalid_items_are_reported_without_too_short() -> None:
    """Pydantic also reports the number of valid items."""
    with pytest.raises(RecipeError) as error:
        config.build(RefineSettings, {}, ["parts=[foot]"])
    assert str(error.value) == "recipe: parts.0: input should be 'face' or 'hand', found 'foot'"
    with pytest.raises(RecipeError, match="parts: tuple should have at least 1 item"):
        config.build(RefineSettings, {}, ["parts=[]"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_of_the_repository_is_valid(path: Path) -> None:
    if path.name.startswith(("compare", "evidence", "table")):
        if path.name == "evidence-balancers.yaml" and "torchjd:UPGrad" not in plugin_names(STRATEGIES):
            pytest.skip("torchjd's strategies aren't registered in this environment: pip install -e '.[balancers]'")
        compared = config.load(ReproduceRecipe if path.name.startswith("table") else CompareRecipe, path)
        assert all(compared.run(cell, seed, None, "test").steps for cell in compared.cells for seed in compared.seeds)
        return
    if path.name == "refine.yaml":
        assert config.load(RefineSettings, path).attempts
        return
    if path.name.startswith("paper"):
        assert config.load(SheetSettings, path).costs is not None
        return
    loaded = config.load(TrainRecipe, path)
    if path.name.startswith("lora-sdxl"):
        assert (loaded.steps, loaded.learning_rate, loaded.optimizer.name, loaded.size) == (
            50_000,
            1e-5,
            "adam",
            (1024, 1024),
        )


def test_the_recipe_of_alpha_4_differs_from_the_papers_in_that_alone() -> None:
    paper, ours = (config.load(TrainRecipe, RECIPES / f"lora-sdxl{name}.yaml") for name in ("", "-alpha4"))
    assert set(config.differences(paper, ours)) == {"out", "strategy", "fairness.alpha"}
    assert (ours.strategy, ours.fairness.alpha) == ("alpha", 4.0)


def test_runs_of_the_full_size_comparison_are_the_papers() -> None:
    paper = config.load(TrainRecipe, RECIPES / "lora-sdxl.yaml")
    compared = config.load(CompareRecipe, RECIPES / "compare-sdxl.yaml")
    own = {"out", "seed", "validation.data", "validation.every", "validation.count"}
    runs = {cell: compared.run(cell, 1, None, "test") for cell in compared.cells}
    assert set(config.differences(paper, runs["MPD"])) == own
    assert [run.lora.rank for cell, run in runs.items() if cell.startswith("MPD")] == [256, 64, 128]
    assert {run.strategy for run in runs.values()} == {"ls", "dwa", "uw", "rlw", "si", "nash", "mpd", "alpha"}


@pytest.mark.parametrize("rank", [64, 128, 256])
def test_the_paper_s_ranks_are_recipes(rank: int) -> None:
    name = "lora-sdxl.yaml" if rank == 256 else f"lora-sdxl-{rank}.yaml"
    assert config.load(TrainRecipe, RECIPES / name).lora.rank == rank


KNOWN = (*LOSS_WEIGHTING, *GRADIENT_BALANCING, *plugin_names(STRATEGIES))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["strategy=mdp"],
            rf"strategy: .*must be one of {', '.join(KNOWN)}, or a strategy of an "
            r"installed package \(see fairhuman doctor\), found 'mdp'",
        ),
        (["regions.scale={hnad: 2}"], "regions.scale names 'hnad', the objectives are global, face, hand"),
        (["regions.names=[face, face]"], "regions.names: .*must be distinct"),
        (["regions.names=[global]"], "must be distinct, not empty and not 'global'"),
        (["resolution=8"], "resolution: .*at least 16 pixels"),
        (["validation.timesteps=[1.0]"], "validation.timesteps: .*0 <= t < 1"),
        (["controlnet.conditions=[edges]"], "conditions.0: input should be 'pose' or 'depth', found 'edges'$"),
        (
            ["controlnet.conditions=[depth]"],
            "controlnet: these settings apply to kind controlnet only, found kind lora",
        ),
        (["kind=controlnet", "t2i_adapter.start=a"], "t2i_adapter: .* kind t2i_adapter only, found kind controlnet"),
        (["learning_rate=0"], "learning_rate: input should be greater than 0"),
        (["view.zoom=[0.5, 1]"], r"view.zoom: must be \[low, high\] with 1 <= low <= high, found .*0\.5"),
        (["optimizer.betas=[0.9, 1.5]"], "optimizer.betas: must be two numbers, each in 0 <= beta < 1, found .*1.5"),
        (["data=[{path: a, regions: [face]}]", "regions.names=[]"], "region 'face', regions.names is empty"),
        (["resolution=1024x1024"], "^[^\n]*: resolution: expected whole number or list of 2: .*, found '1024x1024'$"),
        (["resolution=[a, 64]"], r"^[^\n]*: resolution: expected whole number or list .*, found \['a', 64\]$"),
        (["view.bucket_aspect=0.5"], "^[^\n]*: view.bucket_aspect: input .* greater than or equal to 1, found 0.5$"),
        (["lora.targets=atention"], "^[^\n]*: lora.targets: expected one of attention, .* texts, found 'atention'$"),
        (["max_train_epochs=3"], "there are no epochs: steps = pictures x repeats x epochs / "),
        (["network_alpha=3"], r"unknown setting 'network_alpha'; did you mean 'lora\.alpha'\?$"),
    ],
)
def test_contradictory_settings_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config.load(TrainRecipe, RECIPES / "lora-sdxl.yaml", overrides)


@pytest.mark.parametrize(
    "value",
    ["[" * 5000, "9" * 5000, '"a\\0b"', "&a [*a]", "&a {b: *a}", "!!timestamp 2020-13-45", "x" * 2_000_000],
    ids=["deep", "long integer", "NUL", "list in itself", "mapping in itself", "no date", "long"],
)
def test_what_can_t_be_read_is_one_line_in_recipes_and_overrides(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "r.yaml", f"steps: {value}\n")
    with pytest.raises(RecipeError, match=r"r\.yaml: expected a YAML file") as error:
        config.load(Outer, path)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(RecipeError, match="the value is not valid YAML") as error:
        config.load(Outer, write(tmp_path, "good.yaml", "steps: 1\n"), [f"steps={value}"])
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 1000


def test_what_a_recipe_extends_is_read_within_limits(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"/dev/zero: expected a YAML file, must have at most"):
        config.load(Outer, write(tmp_path, "r.yaml", "extends: /dev/zero\n"))


def test_a_mistake_is_blamed_on_the_place_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("inner:\n  rnak: 2\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("extends: base.yaml\nstepz: 1\n")
    with pytest.raises(RecipeError) as told:
        config.load(Outer, recipe, ["lerning_rate=1"])
    places = {line.partition(": unknown setting ")[0] for line in str(told.value).splitlines() if "unknown" in line}
    assert places == {str(tmp_path / "base.yaml"), str(recipe), "the command line"}
    assert f"{recipe}: the setting 'steps' is missing" in str(told.value)


def test_a_mapping_needs_a_space_after_a_colon() -> None:
    said = r"'fairness.weights=\{global: 1, face:0.3\}': write 'face: 0.3' with a space, and the override in quotes"
    with pytest.raises(RecipeError, match=said):
        config.load(TrainRecipe, RECIPES / "lora-small.yaml", ["fairness.weights={global: 1, face:0.3}"])


@pytest.mark.parametrize("typed", [["steps", "=", "2"], ["steps=", "2"], ["steps", "=2"]])
def test_spaces_around_the_sign_are_named(typed: list[str]) -> None:
    with pytest.raises(RecipeError, match="expected key=value without spaces around ="):
        config.overridden({}, typed)


def test_a_refused_address_is_shown_without_its_password() -> None:
    with pytest.raises(RecipeError, match=r"no user and password.*found 'https://\.\.\.@host/v1'"):
        config.build(BuildRecipe, {}, ["data=a", "out=b", "caption.endpoint.base_url=https://me:pass1@host/v1"])
