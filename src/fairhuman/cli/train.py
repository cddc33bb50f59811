"""`fairhuman train`."""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import Full, Overrides, SkipMemoryCheck, find_recipe
from fairhuman.errors import RecipeError

DryRun = Annotated[bool, Option("--dry-run", help="Print all settings, then what a run needs; write nothing.")]


def train(
    recipe: Annotated[Path, Argument(callback=find_recipe, help="YAML file of settings.")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
    device_memory: Annotated[
        str | None,
        Option(help="With --dry-run: memory of the device to train on, such as 12GB; this one's by default."),
    ] = None,
    full: Full = False,
    skip_memory_check: SkipMemoryCheck = False,
) -> None:
    """Train a model. Run the same command again to resume. `fairhuman settings train` explains every setting.

    A dry run ends with 0 if the run could start now, 1 if something is missing here, 2 if a setting is wrong.

    Example: fairhuman train recipes/photos-sdxl.yaml data=people out=runs/photos
    """
    from fairhuman.train.built import build_data, built_recipe
    from fairhuman.train.preflight import check_at_once, check_main_memory, findings, parse_memory, slow_precision
    from fairhuman.train.resume import load_recipe
    from fairhuman.utils.signals import announced

    display = ConsoleDisplay()
    first = os.environ.get("RANK", "0") == "0"  # of the processes of `accelerate launch`
    settings = load_recipe(recipe, overrides or (), display.say if first else lambda _: None)
    if device_memory is not None and not dry_run:
        raise RecipeError("--device-memory is what a dry run compares with: add --dry-run")
    memory = parse_memory(device_memory) if device_memory is not None else None
    if dry_run:
        display.settings(settings, full)
        found = []
        for finding in findings(settings, memory):
            display.say(finding.line())
            found.append(finding)
        raise Exit(display.verdict(found))
    check_at_once(settings)
    if settings.build:
        with display, announced("Stopping; run the same command again to resume"):
            build_data(settings, display.progress)
        settings = built_recipe(settings)
    if not skip_memory_check:
        check_main_memory(settings)
    for note in slow_precision(settings) if first else ():
        display.say(note.line())
    from fairhuman.cli.watch import Previews, ProgressBar, report
    from fairhuman.train import loop

    with display, announced("Stopping"):
        run = loop.train(settings, [ProgressBar(display), Previews(display)])
    if run.main:
        report(run, display)
    if run.stopped_by is not None:
        raise Exit(128 + run.stopped_by)
