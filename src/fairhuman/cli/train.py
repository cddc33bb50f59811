"""`fairhuman train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, Overrides

if TYPE_CHECKING:
    from fairhuman.train.recipe import TrainRecipe


def train(
    recipe: Annotated[Path, Argument(help="YAML file of settings.")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model. Run the same command again to resume.

    Example: fairhuman train recipes/lora-sdxl.yaml data=photos out=runs/lora strategy=mpd
    """
    from fairhuman import config
    from fairhuman.train.recipe import TrainRecipe

    settings = config.load(TrainRecipe, recipe, overrides or ())
    display = ConsoleDisplay()
    if dry_run:
        _show(settings, display)
        return
    from fairhuman.cli.watch import Previews, ProgressBar, report
    from fairhuman.train import loop

    with display:
        run = loop.train(settings, [ProgressBar(display), Previews()])
    if run.main:
        report(run, display)
    if run.stopped_by is not None:
        raise Exit(128 + run.stopped_by)


def _show(recipe: "TrainRecipe", display: ConsoleDisplay) -> None:
    """Print the resolved recipe and, if the data exists, what the run would train on."""
    import torch

    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.train.cache.plan import budget
    from fairhuman.train.data import load_data
    from fairhuman.train.fairness import build_strategy

    display.settings(recipe)
    build_strategy(recipe, torch.device("cpu"))  # raises if its package can't be loaded or its options don't fit
    missing = [source.path for source in recipe.sources if not source.path.exists()]
    for path in missing:
        display.say(f"data {path}: doesn't exist yet")
    for name, start in recipe.mole.starts.items():
        if start is not None and not start.exists():
            display.say(f"mole.start_{name} {start}: doesn't exist yet")
    if missing:
        return
    notes = LoadReport()
    data = load_data(recipe, notes)
    held_out = len(data.held_out) if data.held_out is not None else 0
    display.say(
        f"data {recipe.data_name}: {len(data.train)} pictures to train on, {held_out} held out; "
        f"{data.cropped_share:.1%} of a picture's area is cropped away on average"
    )
    for text in data.lines():
        display.say(f"  {text}")
    display.counts(notes.counts(), "  ")
    if recipe.cache.latents or recipe.cache.text:
        display.say(budget(recipe, data).line())
