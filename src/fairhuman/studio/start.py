"""Start a training run from a form: what can be set, what a dry run finds, and the process that trains."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.errors import DataError, RecipeError
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import GRADIENT_BALANCING, LOSS_WEIGHTING
from fairhuman.utils.files import free_name
from fairhuman.utils.plugins import STRATEGIES, plugin_names
from fairhuman.utils.settings_reference import flow_yaml, settings_of

DRY_SECONDS = 300
FIRST = (
    "model",
    "data",
    "out",
    "strategy",
    "steps",
    "batch_size",
    "resolution",
    "learning_rate",
    "lora.rank",
    "regions.names",
)
_SETTING = re.compile(r"[a-z_]+(\.[A-Za-z_0-9]+)*=.*", re.DOTALL)
_TEXTS, _NUMBERS, _NOT_NAMED = {"text", "path"}, {"number", "whole number", "true or false"}, object()
_FINDING = re.compile(r"(ok|note|missing) ")  # how a dry run's lines after the settings begin


@cache
def form() -> dict[str, Any]:
    """Every setting of a training run with type, default, range and meaning.

    `first` are those that most runs set; `choices` are all values of a setting whose type doesn't list them.
    """
    every = settings_of(TrainRecipe)
    entries = [asdict(entry) for entry in every if not entry.section or entry.name in FIRST]
    return {
        "first": list(FIRST),
        "choices": {"strategy": [*LOSS_WEIGHTING, *GRADIENT_BALANCING, *plugin_names(STRATEGIES)]},
        "settings": [entry for entry in entries if not re.search(r"\[\]|NAME", entry["name"])],
    }


def recipes() -> list[str]:
    """Recipes of `fairhuman train` at hand: those in `recipes/` here, and those that ship with the package."""
    names = {file.name for folder in (config.RECIPES, config.SHIPPED) for file in folder.glob("*.yaml")}
    return [f"{config.RECIPES}/{name}" for name in sorted(names) if _trains(config.RECIPES / name)]


def recipe_values(recipe: str) -> dict[str, str]:
    """Values of the settings that a recipe names, as YAML, by dotted name."""
    values = _read(recipe)
    found = ((entry["name"], _value(values, entry["name"])) for entry in form()["settings"])
    return {name: flow_yaml(value) for name, value in found if value is not _NOT_NAMED}


def _value(values: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return _NOT_NAMED
        values = values[part]
    return values


def _read(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    return config.read(config.shipped(path) or path)


def _trains(path: Path) -> bool:
    """Whether a recipe is one of a training run, as at least half of its settings are; others may be mistakes."""
    try:
        names = set(_read(str(path)))
    except RecipeError:
        return False
    return "cells" not in names and 2 * len(names & set(TrainRecipe.model_fields)) >= len(names)


def command(recipe: str, overrides: Sequence[str]) -> list[str]:
    """The words of `fairhuman train RECIPE key=value ...`. The value of a setting that takes a text is taken literally.

    Raises:
        RecipeError: the recipe is none of `recipes`, or an override isn't `key=value`.
    """
    if recipe not in recipes():
        raise RecipeError(f"recipe must be one of those listed, found {recipe!r}")
    for text in overrides:
        if not _SETTING.fullmatch(text):
            raise RecipeError(f"expected key=value, found {text!r}")
    types = {entry["name"]: entry["type"].split(" or ") for entry in form()["settings"]}
    split = [text.partition("=")[::2] for text in overrides]
    return ["fairhuman", "train", recipe, *(f"{name}={_typed(value, types.get(name, []))}" for name, value in split)]


def _typed(value: str, types: Collection[str]) -> str:
    """What the form's value is on the command line, by the types that its setting takes."""
    others = set(types) - _TEXTS - {"null"}
    if others == set(types) - {"null"} or others & _NUMBERS:
        return value
    try:
        read = config.overridden({}, [f"value={value}"])["value"]
    except RecipeError:  # it isn't YAML
        return as_text(value)
    other = (read is None and "null" in types) or (isinstance(read, list | dict) and others)
    return value if other else as_text(value)


def as_text(text: str) -> str:
    """A text as the value of a setting on the command line: in quotes where YAML would make something else of it."""
    try:
        same = config.overridden({}, [f"value={text}"])["value"] == text
    except RecipeError:
        same = False
    return text if same else json.dumps(text, ensure_ascii=False)


def dry_run(words: Sequence[str]) -> dict[str, Any]:
    """What `--dry-run` says, and whether the run could start."""
    try:
        done = subprocess.run(
            _process([*words, "--dry-run"]),
            capture_output=True,
            text=True,
            timeout=DRY_SECONDS,
            check=False,
            env=_plain(),
        )
    except subprocess.TimeoutExpired:
        return {"ready": False, "findings": [f"the dry run took over {DRY_SECONDS} s; type it: {shlex.join(words)}"]}
    found = [line for line in done.stdout.splitlines() if _FINDING.match(line)]
    problems = [line for line in done.stderr.splitlines() if line.strip()] if done.returncode else []
    return {"ready": done.returncode == 0, "findings": [*problems, *found], "command": shlex.join(words)}


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the run as a process of its own, which goes on when the studio ends; what it prints goes into `log`.

    Raises:
        DataError: the log can't be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return subprocess.Popen(
                _process(words),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=_plain(),
            )
    except OSError as error:
        raise DataError(f"{error.filename or log.parent}: can't be written: {error.strerror}") from error


def _process(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "fairhuman", *words[1:]]


def _plain() -> dict[str, str]:
    """The environment for output that isn't a terminal's."""
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def check_place(out: Path, folders: Sequence[Path]) -> None:
    """Check that a run's folder is where the studio looks.

    Raises:
        DataError: it isn't below `folders`.
    """
    place = out.resolve()
    if not any(folder.is_dir() and place.is_relative_to(folder) for folder in folders):
        raise DataError(
            f"out is {out}, which must be at or below a folder that the studio was given, such as {folders[0]}, so "
            "that the run appears here"
        )


def free_place(out: Path) -> Path:
    """The folder itself, or beside it the first of NAME-2, NAME-3, ... that isn't there."""
    return out.with_name(free_name(out.name, lambda name: out.with_name(name).exists()))


def out_of(words: Sequence[str]) -> Path:
    """The folder of the run of a `command`.

    Raises:
        RecipeError: it isn't given.
    """
    values = config.overridden(_read(words[2]), words[3:])
    if not isinstance(values.get("out"), str):
        raise RecipeError("out: give the run's folder")
    return Path(values["out"])
