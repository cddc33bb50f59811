"""Entries of settings: names, words for types, ranges, defaults and where descriptions come from."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from fairhuman.config import Settings, load
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.settings_reference import settings_of, summary, type_in_words


class Part(Settings):
    """A part.

    Attributes:
        side: pixels of a side, which may
            go over two lines.
        other: the next one.
    """

    side: int = Field(default=3, ge=1, le=9)
    other: float | None = None


class Whole(Settings):
    """All of it: two lines
    of one sentence.

    And more.
    """

    name: str
    kind: Literal["a", "b"] = Field(default="a", description="which")
    part: Part = Part(side=5)
    parts: dict[str, Part] = Field(default_factory=dict)
    places: tuple[Path, ...] = Field(default=(), min_length=1)


def test_every_setting_has_an_entry_in_the_order_of_the_class() -> None:
    entries = {entry.name: entry for entry in settings_of(Whole)}
    assert list(entries) == [
        *("name", "kind", "part", "part.side", "part.other"),
        *("parts", "parts.NAME.side", "parts.NAME.other", "places"),
    ]
    assert (entries["name"].default, entries["name"].type) == ("required", "text")
    assert (entries["kind"].type, entries["kind"].default, entries["kind"].description) == ("one of a, b", "a", "which")
    assert (entries["places"].type, entries["places"].range) == ("list of paths", "not empty")
    assert [name for name, entry in entries.items() if entry.section] == ["part", "parts"]


def test_defaults_of_a_section_are_those_that_it_has_there() -> None:
    entries = {entry.name: entry for entry in settings_of(Whole)}
    assert (entries["part.side"].default, entries["parts.NAME.side"].default) == ("5", "3")
    assert entries["part.side"].range == "≥ 1, ≤ 9"
    assert (entries["part.other"].default, entries["part.other"].type) == ("null", "number or null")
    build = {entry.name: entry.default for entry in settings_of(BuildRecipe)}
    validation = {entry.name: entry.default for entry in settings_of(ValidationSetSettings)}
    assert (build["min_persons"], validation["filters.min_persons"]) == ("null", "1")


def test_descriptions_come_from_the_field_or_the_docstring() -> None:
    entries = {entry.name: entry for entry in settings_of(Whole)}
    assert entries["part.side"].description == "pixels of a side, which may go over two lines."
    assert entries["part.other"].description == "the next one."
    assert entries["part"].description == "A part."
    assert summary(Whole) == "All of it: two lines of one sentence."
    assert all(entry.description for entry in settings_of(SynthSettings))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (int | None, "whole number or null"),
        (list[str], "list of texts"),
        (tuple[float, float], "list of 2: number, number"),
        (dict[str, list[str]], "table of lists of texts"),
        (tuple[Literal["pose", "depth"], ...], "list, each one of pose, depth"),
    ],
)
def test_types_in_words(annotation: object, words: str) -> None:
    assert type_in_words(annotation) == words


def test_every_name_but_those_of_lists_can_be_overridden(tmp_path: Path) -> None:
    """A name that is shown is one that `key=value` takes: with its own default all stays as it was."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{data: a, out: b, steps: 3}", encoding="utf-8")
    plain = load(TrainRecipe, recipe)
    entries = [one for one in settings_of(TrainRecipe) if not one.section and "[]" not in one.name]
    given = [f"{one.name}={one.default}" for one in entries if one.default != "required"]
    assert len(given) > 80
    assert load(TrainRecipe, recipe, given) == plain
