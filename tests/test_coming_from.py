"""docs/coming-from.md: its recipe is valid, and the settings that it names exist and take the values that it gives."""

import re

import pytest
import yaml

from fairhuman import config
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.settings_reference import settings_of
from helpers.places import RECIPES, ROOT

PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
WISHES = ROOT.parent / "shared" / "docs" / "wishes.md"
START = {"data": "photos", "out": "run", "steps": 1}
OF_KINDS = {"processes.sharding", "full.text_encoders"}  # settings that a LoRA doesn't have


def here() -> list[str]:
    """What stands in the last column of the tables, as code."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row.split("|")[-2])]


def test_the_recipe_is_valid() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block is not None
    assert config.build(TrainRecipe, yaml.safe_load(block.group(1))).lora.rank == 32
    assert yaml.safe_load(block.group(1)) == config.read(RECIPES / "photos-sdxl.yaml"), "as the one that ships"


def test_the_settings_that_it_names_exist() -> None:
    known = {entry.name for entry in settings_of(TrainRecipe)}
    sections = {name.partition(".")[0] for name in known if "." in name}
    names = [code.partition(":")[0] for code in here()]
    named = {name for name in names if name.partition(".")[0] in sections and re.fullmatch(r"[a-z0-9_.]+", name)}
    assert len(named) > 40
    assert named - known - sections == set()


@pytest.mark.parametrize(
    "setting", sorted({code for code in here() if re.fullmatch(r"[a-z0-9_.]+: [^:]*|data: .*", code)})
)
def test_the_values_that_it_gives_are_taken(setting: str) -> None:
    name, _, value = setting.partition(": ")
    kind = "full" if name in OF_KINDS or name == "kind" else "lora"
    config.build(TrainRecipe, {**START, "kind": kind}, [f"{name}={value}"])


def test_every_wish_has_an_answer() -> None:
    """Repository and number of each; the list is beside the checkout."""
    if not WISHES.is_file():
        pytest.skip(f"needs {WISHES}")
    text = " ".join(WISHES.read_text(encoding="utf-8").split())
    asked = {
        number for number in re.findall(r"(?<![\w.])\d{1,5}(?![\w.%])", text) if number not in ("1", "2", "40", "2026")
    }
    answered = set(re.findall(r"\d+", PAGE[PAGE.index("## What people ask for") :]))
    assert {"236", "10860"} <= asked
    assert asked - answered == set()
