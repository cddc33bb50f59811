"""`fairhuman evaluate` and `losses`: measure pictures and models."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import (
    DryRun,
    Numbers,
    Prompts,
    Recipe,
    check_existing,
    named_folders,
    named_places,
    settings_of,
)
from fairhuman.errors import RecipeError


def evaluate(
    images: Annotated[str, Argument(help="Folder of pictures or any data set, or NAME=FOLDER.")],
    overrides: Annotated[list[str] | None, Argument(help="Settings, such as metrics=[hps,fid].")] = None,
    method: Annotated[list[str] | None, Option("--method", help="NAME=FOLDER of another method; repeatable.")] = None,
    prompts: Prompts = None,
    reference: Annotated[Path | None, Option(help="Real pictures: for FID, and for what to expect.")] = None,
    against: Annotated[str | None, Option(help="Method to compare with; the first by default.")] = None,
    out: Annotated[
        Path | None, Option(help="Folder for numbers and page; IMAGES-evaluation, or a new one beside it, by default.")
    ] = None,
    recipe: Recipe = None,
    cache: Annotated[Path | None, Option(help="Folder for features; in the user's cache by default.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure pictures, every number with its interval, and methods against each other.

    Run the same command again to resume.

    Example: fairhuman evaluate base=samples/base --method MPD=samples/mpd --prompts prompts.txt --reference photos
    """
    from rich.markup import escape
    from rich.table import Table

    from fairhuman.data.sources import source_kind
    from fairhuman.data.sources.prompts import prompts_at
    from fairhuman.evaluate.settings import EvaluateSettings
    from fairhuman.utils.files import cache_folder, writing
    from fairhuman.utils.parse import escape_control

    for text in overrides or ():
        name, _, place = text.partition("=")
        if name.partition(".")[0] not in EvaluateSettings.model_fields and place and Path(place).exists():
            raise RecipeError(f"evaluate: unknown setting {name!r}; another folder to compare is --method {text}")
    settings = settings_of(EvaluateSettings, "evaluate", overrides, recipe)
    methods = named_folders([images, *(method or ())])
    check_existing(*(() if dry_run else methods.values()), reference)
    if prompts is not None:
        prompts_at(prompts)
    from fairhuman.evaluate.page import alone_text, number_text
    from fairhuman.evaluate.place import check_folder, default_folder
    from fairhuman.evaluate.run import EvaluationInputs, evaluate
    from fairhuman.evaluate.verdict import verdicts

    inputs = EvaluationInputs(methods, prompts, reference, against, cache or cache_folder() / "features")
    display = ConsoleDisplay()
    moved = ""
    if out is not None:
        check_folder(out, inputs.identity(settings))
    else:
        first = next(iter(methods.values()))
        usual = first.with_name(f"{first.name}-evaluation")
        out = default_folder(usual, inputs.identity(settings))
        if out != usual:
            moved = f"{usual} holds another evaluation; this one goes into {out}"
    if dry_run:
        display.settings(settings)
        if prompts is not None:
            display.say(f"prompts: {prompts}, {len(prompts_at(prompts))} of them")
        if reference is not None:
            display.say(f"reference: {reference}, read as {source_kind(reference)}")
        display.would_write(out, methods)
        if moved:
            display.say(moved)
        return
    with writing(out), display:
        done = evaluate(inputs, settings, out, display.progress)
    if done is None:  # another process of `accelerate launch` reports
        return
    if moved:
        display.say(moved)
    for name, notes in done.reports.items():
        display.counts(notes.counts(), f"{name}: ")
    for warning in done.found.warnings:
        display.say(warning)
    table = Table("method", "metric", "value [95 % interval]")
    for result in done.found.results:
        cells = (result.method, result.metric.name, number_text(result.metric, result.measured))
        table.add_row(*(escape(escape_control(cell)) for cell in cells))
    display.table(table)
    found = verdicts(done.found)
    for verdict in found:
        display.say(verdict.text)
    for note in dict.fromkeys(note for verdict in found for note in verdict.notes):
        display.say(note)
    if not found:
        display.say(alone_text(done.methods))
    display.say(f"features are kept in {inputs.cache}; report: {done.page}")


def losses(
    data: Annotated[Path, Argument(help="Data set with boxes or masks that no model was trained on.")],
    overrides: Annotated[list[str] | None, Argument(help="Settings, such as resolution=128.")] = None,
    model: Annotated[
        list[str] | None, Option("--model", help="NAME=MODEL, =MODEL+LORA@WEIGHT or =MODEL+MOLE; repeatable.")
    ] = None,
    out: Numbers = None,
    dry_run: DryRun = False,
) -> None:
    """Measure held-out denoising losses of models on the same noise, each compared with the first.

    Example: fairhuman losses people --model base=small --model MPD=small+runs/lora/lora resolution=128
    """
    import math

    from rich.markup import escape
    from rich.table import Table

    from fairhuman.evaluate.settings import LossSettings
    from fairhuman.models.locations import check_base
    from fairhuman.models.spec import ModelSpec, check_comparable
    from fairhuman.utils.files import writing
    from fairhuman.utils.parse import escape_control

    settings = settings_of(LossSettings, "losses", overrides)
    models = {name: ModelSpec.parse(text) for name, text in named_places(model, "--model").items()}
    if not models:
        raise RecipeError("no model: give --model NAME=MODEL, once for each")
    for one in models.values():
        check_base(one.model, settings.base)
    check_comparable(models)
    check_existing(None if dry_run else data)
    display = ConsoleDisplay()
    if dry_run:
        display.settings(settings)
        display.say(f"would measure {', '.join(models)} on {data}")
        return
    from fairhuman.evaluate.metrics.held_out_losses import loss_table, measure_losses, write_losses
    from fairhuman.report.text import estimate_text

    found = measure_losses(models, data, settings)
    table = Table("model", "objective", "loss", f"change against {next(iter(models))}", "p", "p, corrected", "pictures")
    lines = loss_table(found)
    for line in lines:
        change = estimate_text(line.change, "{:.2f}", signed=True, percent=True) if line.change else ""
        tests = ("" if math.isnan(p) else f"{p:.2g}" for p in (line.p, line.p_holm))
        names = (escape(escape_control(name)) for name in (line.model, line.objective))
        table.add_row(*names, estimate_text(line.loss), change, *tests, str(line.loss.n))
    display.table(table)
    if len(models) > 1:
        display.say(
            "brackets: 95 % intervals over pictures; p: from swapping the models within pictures, corrected by Holm "
            "over all lines"
        )
    if out is not None:
        with writing(out):
            write_losses(out, settings, found, lines)
        display.say(f"numbers: {out}")
