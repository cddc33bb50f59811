"""Going on with a run that was begun: which settings are the run's own, and which may differ."""

import os
import re
import shlex
import warnings
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.train.levels import Level, changes, checked_recipe, levels_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import reading_own
from fairhuman.utils.parse import as_typed, parse_json

# Settings that may change on resume, as no step's result depends on them; "x." is a whole section.
# Data sets may move: their records are checked separately.
# `steps` may change only if the learning rate doesn't depend on it.
FREE_ON_RESUME = frozenset(
    {
        "data",
        "build",
        "validation.data",
        "steer.data",
        "out",
        "steps",
        "checkpoint_every",
        "keep_checkpoints",
        "source.format",
        "source.workers",
        "source.cache",
        "cache.folder",
        "track.",
        "base.offload",
        "lora.kohya_precision",
        "lora.title",
        "preview.",
        "processes.timeout",
    }
)
_CHECKPOINT = re.compile(r"step-(\d+)")


# What earlier versions did where their resolved recipes don't have these settings.
EARLIER: dict[str, Any] = {"view": {"min_in_view": 0.0, "bucket_area": None, "bucket_crop": 1.0}}


def load_recipe(path: Path, overrides: Sequence[str] = (), say: Callable[[str], object] = warnings.warn) -> TrainRecipe:
    """Read the recipe of a run, which may have begun: settings that neither file nor overrides name are the run's own.

    So a run goes on as it began, whatever the defaults of this version are. A new LoRA is named after `path`.

    Args:
        path: a recipe file.
        overrides: `key=value`.
        say: gets a line for settings that are left out, as a higher level makes them void (`train/levels.py`).

    Raises:
        RecipeError: as for `config.load`, or a setting has no effect with the others.
    """
    values, levels = config.overridden(config.read(path), overrides), levels_of(path, overrides)
    if "cells" in values:
        kind = "reproduce" if "sampling" in values else "compare"
        raise RecipeError(f"{path}: this is a recipe of `fairhuman {kind}`, as it has `cells`")
    out = Path(str(values.get("out")))
    if checkpoint_folders(out / "checkpoints") and (out / "recipe.yaml").is_file():
        run = _values_of_run(out)
        values, levels = config.merge(run, values), [Level("", run, -1), *levels]
    elif values.get("kind", "lora") == "lora":
        title = {"lora": {"title": path.stem}}
        values, levels = config.merge(title, values), [Level("", title, -1), *levels]
    return checked_recipe(values, levels, str(path), say)


def recipe_of_run(out: Path) -> TrainRecipe:
    """Read the resolved recipe in a run's folder.

    Raises:
        RecipeError: it can't be read.
    """
    return config.build(TrainRecipe, _values_of_run(out), origin=str(out / "recipe.yaml"))


def _values_of_run(out: Path) -> dict[str, Any]:
    return config.merge(EARLIER, config.read(out / "recipe.yaml"))


def free_on_resume(name: str, free: Collection[str] = FREE_ON_RESUME) -> bool:
    """Whether the setting with this dotted name may change on resume."""
    return name in free or f"{name.partition('.')[0]}." in free


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a run's `checkpoints/`, oldest first."""
    found = [path for path in folder.glob("step-*") if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """Return the step of a checkpoint, from the name of its folder."""
    return int(path.name.removeprefix("step-"))


def check_resumable_early(recipe: TrainRecipe) -> int:
    """Check as `check_resumable` does, from the run's files alone; return the step from which the run goes on.

    Raises:
        RecipeError: as in `check_resumable`.
    """
    found = checkpoint_folders(recipe.out / "checkpoints")
    if not found:
        return 0
    step, samples = checkpoint_step(found[-1]), None
    try:
        summary = parse_json((recipe.out / "summary.json").read_text(encoding="utf-8"))
        samples = recipe_of_run(recipe.out).samples(int(summary["processes"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecipeError):
        pass  # a file is missing: the checkpoint itself is read later
    else:
        check_resumable(recipe, step, samples, int(os.environ.get("WORLD_SIZE", "1")))
    return step


def check_resumable(recipe: TrainRecipe, at_step: int, samples: int | None, processes: int) -> None:
    """Check that a recipe may resume the run in its folder.

    The number of processes, `batch_size` and `accumulate` may change as long as a step has equally many samples: then
    it has the same ones in the same order, and its result is the same up to the rounding of sums. With `lora.dropout`
    they may not, as its draws depend on how a step is divided. A finished run may go on with more `steps`; if its
    schedule ended with it, at a constant learning rate.

    Args:
        recipe: the recipe to resume with.
        at_step: step of the checkpoint.
        samples: samples per step of the earlier run, over all processes; None: unknown, so these settings are fixed.
        processes: current number of processes.

    Raises:
        RecipeError: a setting that affects results differs, a step would have another number of samples, or the
            checkpoint is beyond `steps`; names all settings that differ, and which of them may.
    """
    path = recipe.out / "recipe.yaml"
    if not path.is_file():
        return
    earlier, now = recipe_of_run(recipe.out), recipe.samples(processes)
    changed = changes(earlier, recipe)
    free = _free(earlier, recipe, at_step)
    if samples == now and not recipe.lora.dropout:
        free |= {"batch_size", "accumulate"}
        if _becomes_ema(earlier, recipe):
            free -= {"accumulate"}
    fixed = [name for name in changed if not free_on_resume(name, free)]
    another = samples not in (None, now)
    if fixed or another:
        raise RecipeError("\n".join(_mismatch(earlier, recipe, at_step, fixed, (samples, now) if another else None)))
    if at_step > recipe.steps:
        raise RecipeError(
            f"steps is {recipe.steps}, but the run in {recipe.out} is at step {at_step} already: set more steps"
        )


def _becomes_ema(earlier: TrainRecipe, recipe: TrainRecipe) -> bool:
    """Whether one of two recipes accumulates, so that its estimator is ema, and the other doesn't."""
    estimated = recipe.needs_gram and recipe.fairness.mode in ("output", "split", "tail")
    return estimated and (earlier.accumulate > 1) != (recipe.accumulate > 1)


def _free(earlier: TrainRecipe, recipe: TrainRecipe, at_step: int) -> set[str]:
    """The settings that may change from `earlier` to `recipe`."""
    if recipe.schedule.name.startswith("constant"):
        if earlier.schedule.name.startswith("constant"):
            return set(FREE_ON_RESUME)
        if at_step == earlier.steps < recipe.steps:
            return {*FREE_ON_RESUME, "schedule.", "learning_rate"}
    return set(FREE_ON_RESUME - {"steps"})


def _mismatch(
    earlier: TrainRecipe, recipe: TrainRecipe, at_step: int, fixed: list[str], samples: tuple[int | None, int] | None
) -> list[str]:
    """Return the lines of the error: what can't change, what may, and what to type."""
    changed = changes(earlier, recipe)
    if earlier.out.resolve() == recipe.out.resolve():
        changed.pop("out", None)  # the same folder, named in another way
    ends = "steps" in changed and all(one.validation.every == one.steps for one in (earlier, recipe))
    if ends and "validation.every" in fixed:  # a comparison measures at the end, so that it follows from the steps
        del changed["validation.every"]
        fixed = ["steps", *(name for name in fixed if name not in ("steps", "validation.every"))]
    own = shlex.join(["fairhuman", "train", str(recipe.out / "recipe.yaml")])
    longer = "steps" in fixed and recipe.steps > earlier.steps and not ends
    if longer and (at_step == earlier.steps or "schedule.name" not in fixed):
        fixed = [name for name in fixed if name != "steps"]
    free = [name for name in changed if name not in (*fixed, "steps")]
    typed = [shlex.quote(f"{name}={as_typed(changed[name][1])}") for name in free]
    lines = []
    if fixed or samples is not None:
        lines.append(f"{recipe.out} holds a run with other settings, which can't change on resuming:")
        reasons = (
            {"accumulate": f"; above 1, mode {recipe.fairness.mode} becomes ema"}
            if _becomes_ema(earlier, recipe)
            else {}
        )
        lines += [
            f"  {name}: {changed[name][0]!r} there, {changed[name][1]!r} now{reasons.get(name, '')}" for name in fixed
        ]
    if samples is not None:
        processes = samples[1] // (recipe.batch_size * recipe.accumulate)
        lines.append(
            f"  samples per step: {samples[0]} there; batch_size {recipe.batch_size} x accumulate "
            f"{recipe.accumulate} x {processes} processes give {samples[1]} now"
        )
    if longer:
        constant = " ".join([own, f"steps={recipe.steps}", "schedule.name=constant", *typed])
        first = "" if at_step == earlier.steps else f"`{own}` to finish them, then "
        lines.append(
            f"{recipe.out} holds a run of {earlier.steps} steps, after which the {earlier.schedule.name} schedule "
            f"ends. To go on to step {recipe.steps} at a constant rate: {first}`{constant}`; learning_rate may change "
            "then too."
        )
    if free:
        lines.append(f"These differ too, and may: {', '.join(free)}.")
    if fixed or samples is not None:
        back = " ".join(f"{name}={as_typed(changed[name][0])}" for name in fixed)
        same = back or "batch_size and accumulate that give as many samples"
        lines.append(f"Choose another out, or {same} to resume; `{own}` goes on with the run's own settings.")
    return lines


def note_start(recipe: TrainRecipe, step: int, other_records: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the starts of the run in the recipe's folder, and this one at `step`: the `starts` of `summary.json`.

    Call it before the folder's recipe is replaced. Each start has its step, its date (UTC), and as `changed` the
    settings that differ from the start before, {name: [earlier, now]}, and the `other_records` (see `Run`). A start
    without progress or changes is dropped.

    Raises:
        DataError: the earlier starts can't be read.
    """
    summary, written = recipe.out / "summary.json", recipe.out / "recipe.yaml"
    earlier: list[dict[str, Any]] = []
    if summary.is_file():
        with reading_own(summary, "delete it: only the list of the run's earlier starts is lost"):
            before = parse_json(summary.read_text(encoding="utf-8")).get("starts", [])
            earlier = [one for one in before if one["step"] < step or (one["step"] == step and one["changed"])]
    changed = changes(recipe_of_run(recipe.out), recipe) if step and written.is_file() else {}
    changed |= {f"{name} records": ("as before", "other sizes, captions, boxes or masks") for name in other_records}
    return [*earlier, {"step": step, "date": datetime.now(UTC).isoformat(timespec="seconds"), "changed": changed}]
