"""`fairhuman settings`."""

from collections.abc import Callable
from importlib import import_module

import pytest

from fairhuman.cli.settings import CLASSES
from fairhuman.utils.settings_reference import settings_of

Typed = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("of", CLASSES)
def test_every_setting_is_explained(of: str, typed: Typed) -> None:
    code, said, _ = typed("settings", of)
    module, _, name = CLASSES[of].partition(":")
    assert code == 0
    for entry in settings_of(getattr(import_module(f"fairhuman.{module}"), name)):
        assert f"\n{entry.name}" in f"\n{said}"
        assert entry.description.split()[0] in said


def test_a_section_and_a_setting(typed: Typed) -> None:
    _, lora, _ = typed("settings", "train", "lora")
    assert lora.startswith("lora:\n")
    assert "lora.rank = 64  (whole number, ≥ 1)\n    rank of every update\n" in lora
    assert "mole" not in lora
    assert (
        typed("settings", "train", "lora.rank")[1] == "lora.rank = 64  (whole number, ≥ 1)\n    rank of every update\n"
    )
    assert "steps, required  (whole number, ≥ 1)\n" in typed("settings")[1]
    code, _, error = typed("settings", "train", "rank")
    assert (code, "did you mean 'lora.rank' or 'mole.rank'?" in error) == (2, True)
    assert typed("settings", "data", "build", "min_side") == typed("settings", "data", "min_side")
    assert typed("settings", "data", "build")[1] == typed("settings", "data")[1]
    assert "found 'x' too" in typed("settings", "train", "lora", "x")[2]
    assert "did you mean 'train'?" in typed("settings", "trian")[2]


def test_the_help_of_train_names_it(typed: Typed) -> None:
    assert "`fairhuman settings train`" in " ".join(typed("train", "--help")[1].split())
