"""A recipe as it is given, in levels, and what becomes of settings without effect.

The levels: files that a recipe extends, the settings that the cells of a comparison share, the recipe's own file or a
cell, the command line. A setting without effect (`train/effects.py`) is an error where it is given at the level of the
setting that makes it void, or above: somebody wants two things that exclude each other. Where a higher level makes void
what a lower one holds, as `kind=full` does with a file's `lora.rank`, that is dropped and named.

A run's resolved recipe names every setting, with or without effect, and is never checked.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.train.effects import Condition, failing
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.parse import as_typed

# Only a resolved recipe names all of these: sections that every version wrote, of kinds that exclude each other too.
_RESOLVED = frozenset(
    {"lora", "full", "view", "noise", "fairness", "optimizer", "ema", "validation", "preview", "track"}
)
_NOWHERE = {"data": ".", "out": ".", "steps": 1}


class Level(NamedTuple):
    """Settings that were given in one place.

    Attributes:
        place: its name in messages; empty: its settings are neither refused nor named.
        values: nested, as in a recipe file.
        rank: of the level; a higher one overrules a lower one.
    """

    place: str
    values: dict[str, Any]
    rank: int


class Dropped(NamedTuple):
    """A setting of a lower level that a higher one makes void: its place, name and value, and what makes it so."""

    place: str
    setting: str
    value: Any
    because: str


def levels_of(path: Path, overrides: Sequence[str]) -> list[Level]:
    """Return the levels of a recipe file: what it extends, itself, and the command line.

    Raises:
        RecipeError: as for `config.read`; an override isn't key=value.
    """
    levels = [Level(str(file), values, rank) for rank, (file, values) in enumerate(config.read_levels(path))]
    return [*levels, Level(config.COMMAND_LINE, config.overridden({}, overrides), len(levels))]


def checked_recipe(
    values: dict[str, Any], levels: Sequence[Level], origin: str, say: Callable[[str], object]
) -> TrainRecipe:
    """Return the recipe as `recipe_of` does; `say` gets a line for each place and reason that settings are dropped."""
    recipe, dropped = recipe_of(values, levels, origin)
    for line in lines_of(dropped):
        say(line)
    return recipe


def recipe_of(values: dict[str, Any], levels: Sequence[Level], origin: str) -> tuple[TrainRecipe, list[Dropped]]:
    """Return the recipe of settings that were given in levels, and what was dropped of them.

    Args:
        values: all settings that were given, nested.
        levels: where they were given; a setting is from the last one that names it.
        origin: the recipe's name in messages.

    Raises:
        RecipeError: a setting is wrong, or has no effect and isn't overruled by a higher level.
    """
    sources = {name: level for level in levels for name in config.flatten(level.values)}
    given = config.flatten(values)
    known = {**config.flatten(TrainRecipe.model_validate(_NOWHERE).model_dump(mode="json")), **given}
    refused: list[str] = []
    dropped: list[Dropped] = []
    for name, needs in _void(given, known).items():
        level = sources[name]
        if not level.place or level.values.keys() >= _RESOLVED:
            continue
        clashing = [need for need in needs if level.rank >= _rank_of(need, name, sources)]
        reason = _reason(name, (clashing or needs)[0], known)
        if clashing:
            place = level.place if level.place == config.COMMAND_LINE else origin
            refused.append(
                f"{place}: {name}={as_typed(given[name])} has no effect with {reason}; it needs {clashing[0]}"
            )
        else:
            dropped.append(Dropped(level.place, name, given[name], reason))
    left = _without(values, {one.setting for one in dropped})
    places = config.places_of((level.place or origin, level.values) for level in levels)
    recipe = config.build(TrainRecipe, left, (), origin, places)  # other mistakes are told first
    if refused:
        raise RecipeError("\n".join(refused))
    return recipe, dropped


def lines_of(dropped: Iterable[Dropped]) -> list[str]:
    """Say what was dropped, a line for each place and reason."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for one in dropped:
        groups.setdefault((one.place, one.because), {})[f"{one.setting}={as_typed(one.value)}"] = None
    return [
        f"{place}: {', '.join(settings)} {'has' if len(settings) == 1 else 'have'} no effect with {because} and "
        f"{'is' if len(settings) == 1 else 'are'} left out"
        for (place, because), settings in groups.items()
    ]


def void_settings(recipe: TrainRecipe) -> set[str]:
    """Return the dotted names of a recipe's settings that have no effect with its others."""
    values = config.flatten(recipe.model_dump(mode="json"))
    return {name for name in values if failing(name, values)}


def changes(a: TrainRecipe, b: TrainRecipe) -> dict[str, tuple[Any, Any]]:
    """Return the differences of two recipes, without those of settings that have no effect in both."""
    void = void_settings(a) & void_settings(b)
    return {name: values for name, values in config.differences(a, b).items() if name not in void}


def _void(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, list[Condition]]:
    """The given settings that have no effect, and the conditions that fail; unknown names are left to others."""
    names = set(config.setting_names(TrainRecipe))
    found = {}
    for name, value in given.items():
        ancestors = {name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)}
        if value != {} and ancestors & names and (needs := failing(name, known)):
            found[name] = needs
    return found


def _rank_of(need: Condition, setting: str, sources: Mapping[str, Level]) -> int:
    """The rank of the level that makes a setting void; -1: the defaults."""
    return max(sources[one].rank if one in sources else -1 for one in need.deciders if one != setting)


def _reason(setting: str, need: Condition, known: Mapping[str, Any]) -> str:
    """The values that make a setting void."""
    return " and ".join(f"{one}={as_typed(known.get(one))}" for one in need.deciders if one != setting)


def _without(values: dict[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    """Nested values without those of the dotted `names`."""
    return {
        key: _without(value, names, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in names
    }
