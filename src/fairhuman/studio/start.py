"""Start a training run from a form: what can be set, what a dry run finds, and the process that trains."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.errors import DataError, RecipeError
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.settings_reference import settings_of

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
_FINDING = re.compile(r"(ok|note|missing) ")  # how a dry run's lines after the settings begin
_OUTSIDE = "which must be at or below a folder that the studio was given, such as {}, so that the run appears here"


def form() -> dict[str, Any]:
    """Every setting of a training run with type, default, range and meaning; `first` are those that most runs set."""
    every = settings_of(TrainRecipe)
    entries = [asdict(entry) for entry in every if not entry.section or entry.name in FIRST]
    return {
        "first": list(FIRST),
        "settings": [entry for entry in entries if not re.search(r"\[\]|NAME", entry["name"])],
    }


def recipes() -> list[str]:
    """Recipes of `fairhuman train` at hand: those in `recipes/` here, and those that ship with the package."""
    names = {file.name for folder in (config.RECIPES, config.SHIPPED) for file in folder.glob("*.yaml")}
    return [f"{config.RECIPES}/{name}" for name in sorted(names) if _trains(config.RECIPES / name)]


def _trains(path: Path) -> bool:
    try:
        return "cells" not in config.read(config.shipped(path) or path)
    except RecipeError:
        return False


def command(recipe: str, overrides: Sequence[str]) -> list[str]:
    """The words of `fairhuman train RECIPE key=value ...`.

    Raises:
        RecipeError: the recipe is none of `recipes`, or an override isn't `key=value`.
    """
    if recipe not in recipes():
        raise RecipeError(f"recipe must be one of those listed, found {recipe!r}")
    for text in overrides:
        if not _SETTING.fullmatch(text):
            raise RecipeError(f"expected key=value, found {text!r}")
    return ["fairhuman", "train", recipe, *overrides]


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


def start(words: Sequence[str], out: Path, folders: Sequence[Path]) -> int:
    """Start the run as a process of its own, which goes on when the studio ends; its number.

    What it prints goes into `NAME.log` beside the run's folder.

    Raises:
        DataError: `out` is outside the studio's folders, or its folder can't be written.
    """
    place = out.resolve()
    if not any(folder.is_dir() and place.is_relative_to(folder) for folder in folders):
        raise DataError(f"out is {out}, {_OUTSIDE.format(folders[0])}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_name(f"{place.name}.log").open("ab") as log:
            process = subprocess.Popen(
                _process(words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_plain()
            )
    except OSError as error:
        raise DataError(f"{error.filename or place.parent}: can't be written: {error.strerror}") from error
    return process.pid


def _process(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "fairhuman", *words[1:]]


def _plain() -> dict[str, str]:
    """The environment for output that isn't a terminal's."""
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def out_of(recipe: str, overrides: Sequence[str]) -> Path:
    """The folder of the run.

    Raises:
        RecipeError: it isn't given.
    """
    path = Path(recipe)
    values = config.overridden(config.read(config.shipped(path) or path), overrides)
    if not isinstance(values.get("out"), str):
        raise RecipeError("out: give the run's folder")
    return Path(values["out"])
