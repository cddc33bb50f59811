"""Every setting of a recipe that claims to be published is in a table with its value and its source."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from fairhuman import config
from fairhuman.compare.paper.recipe import ReproduceRecipe
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.train.recipe import TrainRecipe

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("published_settings.csv")
DATA = ROOT / "recipes/paper/data.yaml"
PAPER = [ROOT / "recipes/paper" / f"{name}.yaml" for name in ("common", "lora-sdxl", "controlnet-sdxl")]
TABLES = [ROOT / "recipes/paper" / f"table{number}-sdxl.yaml" for number in (2, 3)]
RECIPES = [*PAPER, *sorted((ROOT / "recipes/official").glob("*.yaml")), DATA, *TABLES]
PLACE = {"out": "run", "steps": 1}  # which a shared file leaves to its runs
NOT_SETTINGS = {"kind", "out", "extends", "mole.stage", "mole.start_face", "mole.start_hand"}  # what and where
NOT_SETTINGS |= {"data", "train.data", "sampling.data", "test"}
KINDS = {DATA: BuildRecipe, **dict.fromkeys(TABLES, ReproduceRecipe)}  # of recipes that aren't training runs
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w[\w -]*):(?: (?P<value>[^#]*?))?(?:  # (?P<source>.+))?$")


def written(path: Path) -> dict[str, tuple[object, str]]:
    """{dotted setting: (value, source)} of the lines of a recipe file, without what it extends."""
    found, section = {}, ""
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if line.startswith("#") or line.lstrip().startswith("- ") or not match:
            continue
        indent = len(match["indent"])
        parents = [(depth, key) for depth, key in parents if depth < indent]
        section = ".".join([*(key for _, key in parents), match["key"]])
        if match["value"]:
            found[section] = (yaml.safe_load(match["value"]), match["source"] or "")
        parents.append((indent, match["key"]))
    return {name: value for name, value in found.items() if name not in NOT_SETTINGS}


def table() -> dict[tuple[str, str], tuple[object, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {
            (row["recipe"], row["setting"]): (yaml.safe_load(row["value"]), row["source"])
            for row in csv.DictReader(file)
        }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_setting_of_a_published_recipe_has_its_value_and_source(path: Path) -> None:
    name = f"{path.parent.name}/{path.name}"
    expected = {setting: row for (recipe, setting), row in table().items() if recipe == name}
    assert written(path) == expected
    assert all(source for _, source in expected.values())
    recipe = config.build(KINDS.get(path, TrainRecipe), config.merge({} if path in KINDS else PLACE, config.read(path)))
    values = config.flatten(recipe.model_dump(mode="json"))
    for setting, (value, _) in expected.items():
        for leaf, wanted in config.flatten({setting: value}).items() if isinstance(value, dict) else [(setting, value)]:
            assert values.get(leaf) == wanted, f"{name}: {leaf} is void or replaced"


def test_the_table_names_no_other_recipe() -> None:
    assert {recipe for recipe, _ in table()} == {f"{path.parent.name}/{path.name}" for path in RECIPES}
