"""What may differ between the parts of a resumed run, and the check of it."""

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.train.recipe import TrainRecipe

# What may differ between the parts of a run that is resumed, as no step's result depends on it; "x." is a section.
# Data sets may move: which records they hold is checked apart.
# `steps` is one only where the learning rate doesn't depend on it.
FREE_ON_RESUME = frozenset(
    {
        "data",
        "validation.data",
        "out",
        "steps",
        "checkpoint_every",
        "keep_checkpoints",
        "source.workers",
        "source.cache",
        "cache.folder",
        "track.",
        "preview.",
        "processes.timeout",
    }
)


def free_on_resume(name: str) -> bool:
    """Whether the setting of this dotted name is one of `FREE_ON_RESUME`."""
    return name in FREE_ON_RESUME or f"{name.partition('.')[0]}." in FREE_ON_RESUME


def check_resumable(recipe: TrainRecipe, at_step: int, samples: int | None, processes: int) -> None:
    """Check that the run that goes on from a checkpoint is the one that the folder's recipe started.

    The number of processes may be another one, and with it `batch_size` and `accumulate`, as long as a step has the
    same samples: then it has them in the same order, and its result is the same up to the rounding of sums.

    Args:
        recipe: what is to be gone on with.
        at_step: of the checkpoint.
        samples: of a step of the earlier part, over all processes; None: not known, then all must be the same.
        processes: now.

    Raises:
        RecipeError: a setting that steps depend on differs, a step would have other samples, or the run has gone
            further than `steps`; names it.
    """
    path = recipe.out / "recipe.yaml"
    if not path.is_file():
        return
    earlier, now = config.load(TrainRecipe, path), recipe.samples(processes)
    if samples is not None and samples != now:
        raise RecipeError(
            f"{recipe.out} holds a run of {samples} samples a step, but batch_size {recipe.batch_size} x accumulate "
            f"{recipe.accumulate} x {processes} processes are {now}. Choose batch_size and accumulate so that they are "
            f"{samples}, or another out"
        )
    fixed = () if recipe.schedule.name.startswith("constant") else ("steps",)
    divided = frozenset(("batch_size", "accumulate") if samples is not None else ())
    if recipe.fairness.mode in ("output", "split", "tail") and (earlier.accumulate > 1) != (recipe.accumulate > 1):
        divided -= {"accumulate"}  # another estimator would go on, ema
    for name, (old, new) in config.differences(earlier, recipe).items():
        if name in divided:
            continue
        if name in fixed or not free_on_resume(name):
            raise RecipeError(
                f"{recipe.out} holds a run with another {name}: {old!r} there, {new!r} now. "
                "Choose another out, or the same settings to go on"
            )
    if at_step > recipe.steps:
        raise RecipeError(f"steps is {recipe.steps}, but the run in {recipe.out} is at step {at_step} already")
