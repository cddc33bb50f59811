"""Check that a run may be resumed with a recipe: which settings may differ."""

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.train.recipe import TrainRecipe

# Settings that may change on resume, as no step's result depends on them; "x." is a whole section.
# Data sets may move: their records are checked separately.
# `steps` may change only if the learning rate doesn't depend on it.
FREE_ON_RESUME = frozenset(
    {
        "data",
        "validation.data",
        "out",
        "steps",
        "checkpoint_every",
        "keep_checkpoints",
        "source.format",
        "source.workers",
        "source.cache",
        "cache.folder",
        "track.",
        "preview.",
        "processes.timeout",
    }
)


def free_on_resume(name: str) -> bool:
    """Whether the setting with this dotted name may change on resume."""
    return name in FREE_ON_RESUME or f"{name.partition('.')[0]}." in FREE_ON_RESUME


def check_resumable(recipe: TrainRecipe, at_step: int, samples: int | None, processes: int) -> None:
    """Check that a recipe may resume the run in its folder.

    The number of processes, `batch_size` and `accumulate` may change as long as a step has equally many samples: then
    it has the same ones in the same order, and its result is the same up to the rounding of sums.

    Args:
        recipe: the recipe to resume with.
        at_step: step of the checkpoint.
        samples: samples per step of the earlier run, over all processes; None: unknown, so these settings are fixed.
        processes: current number of processes.

    Raises:
        RecipeError: a setting that affects results differs, a step would have another number of samples, or the
            checkpoint is beyond `steps`; names the setting.
    """
    path = recipe.out / "recipe.yaml"
    if not path.is_file():
        return
    earlier, now = config.load(TrainRecipe, path), recipe.samples(processes)
    if samples is not None and samples != now:
        raise RecipeError(
            f"{recipe.out} holds a run with {samples} samples per step, but batch_size {recipe.batch_size} x "
            f"accumulate {recipe.accumulate} x {processes} processes give {now}. Set batch_size and accumulate to give "
            f"{samples}, or choose another out"
        )
    fixed = () if recipe.schedule.name.startswith("constant") else ("steps",)
    divided = frozenset(("batch_size", "accumulate") if samples is not None else ())
    if recipe.fairness.mode in ("output", "split", "tail") and (earlier.accumulate > 1) != (recipe.accumulate > 1):
        divided -= {"accumulate"}  # accumulation switches the estimator to ema
    for name, (old, new) in config.differences(earlier, recipe).items():
        if name in divided:
            continue
        if name in fixed or not free_on_resume(name):
            raise RecipeError(
                f"{recipe.out} holds a run with another {name}: {old!r} there, {new!r} now. "
                "Choose another out, or the same settings to resume"
            )
    if at_step > recipe.steps:
        raise RecipeError(f"steps is {recipe.steps}, but the run in {recipe.out} is at step {at_step} already")
