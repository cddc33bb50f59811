"""`fairhuman demo`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, settings_of


def demo(
    out: Annotated[Path, Argument(help="Folder for data, runs and report.")],
    targets: Annotated[str, Option(help="attention (the paper) or attention+conv.")] = "attention",
    model: Annotated[str, Option(help="'small', 'small-flow', or another base: a folder or a hub id.")] = "small",
    dry_run: DryRun = False,
) -> None:
    """Render people, fine-tune a small model with MPD, with fixed weights and with LS, sample, measure and report.

    Run the same command again to resume.

    Example: fairhuman demo runs/demo
    """
    from fairhuman.demo.settings import DemoSettings
    from fairhuman.models.locations import check_location, name_of

    check_location(model)
    base = name_of(model)
    given = {"targets": targets, "model": model, **({"guidance": base.guidance} if base.flow else {})}
    settings = settings_of(DemoSettings, "demo", None, given=given)
    from fairhuman.demo.run import demo_recipes, run_demo

    display = ConsoleDisplay()
    if dry_run:
        for recipe in demo_recipes(out, settings).values():
            display.settings(recipe)
        return
    signal = run_demo(out, settings, display)
    if signal is not None:
        raise Exit(128 + signal)
