"""The commands that measure and compare."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show what would be done; write nothing.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="NAME=FOLDER of another method; may be repeated.")]


def evaluate(
    images: Annotated[str, typer.Argument(help="Folder of pictures or any data set, or NAME=FOLDER.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, such as metrics=[hps,fid].")] = None,
    method: Methods = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, a prompt a line.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Real pictures: for FID, and for what to expect.")] = None,
    against: Annotated[str | None, typer.Option(help="Method that others are compared with; else the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for numbers and page; else IMAGES-evaluation.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where features are kept; else in the user's cache.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure pictures: every number with its interval, methods against each other; the same command again goes on.

    Example: fairhuman evaluate base=samples/base --method MPD=samples/mpd --prompts prompts.txt --reference photos
    """
    from fairhuman.cli.commands_measure import run_evaluation

    inputs = (prompts, reference, against, cache)
    run_evaluation([images, *(method or [])], inputs, out, recipe, overrides or [], dry_run, Console())


def losses(
    data: Annotated[Path, typer.Argument(help="Data set with boxes or masks that no model was trained on.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, such as resolution=128.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="NAME=MODEL, =MODEL+LORA@WEIGHT or =MODEL+MOLE; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure held-out denoising losses of models on the same noise, each against the first.

    Example: fairhuman losses people --model base=small --model MPD=small+runs/lora/lora resolution=128
    """
    from fairhuman.cli.commands_measure import run_losses

    run_losses(data, model or [], out, overrides or [], dry_run, Console())


def compare(
    recipe: Annotated[Path, typer.Argument(help="YAML file of a comparison: cells, seeds, data.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Train strategies, ranks or any settings over seeds and compare held-out losses; the same command again resumes.

    Example: fairhuman compare recipes/compare-small.yaml out=runs/compare
    """
    from fairhuman.cli.commands_measure import run_compare

    raise typer.Exit(run_compare(recipe, overrides or [], dry_run, Console()))


def grid(
    out: Annotated[Path, typer.Argument(help="Folder for grid.html, grid.png and grid.pdf.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="How models draw, such as resolution=128 steps=30 seed=0.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="NAME=FOLDER of pictures, or =MODEL, =MODEL+LORA@WEIGHT, =MODEL+MOLE, which draws; may be repeated.",
        ),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, a prompt a line, for models to draw.")] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="pose=PLACE or depth=PLACE that pictures follow, as given to sample.")
    ] = None,
    zoom_on: Annotated[
        str | None, typer.Option(help="Method in whose pictures faces and hands are found; 'expected': --data's boxes.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set, a record a prompt: where faces and hands are expected.")
    ] = None,
    row: Annotated[
        list[int] | None, typer.Option("--row", help="Number of a row to show, from 0; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Rows, drawn at random; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Put pictures of several methods for the same prompts side by side, with zoomed faces and hands.

    Example: fairhuman grid grid --method base=samples/base --method MPD=samples/mpd --control pose=POSES --count 8
    """
    from fairhuman.cli.commands_measure import GridJob, run_grid

    job = GridJob(method or [], prompts, control or [], zoom_on, data, row or None, count, seed)
    raise typer.Exit(run_grid(job, out, overrides or [], dry_run, Console()))


def cost(
    out: Annotated[Path, typer.Argument(help="Folder for costs.json and the page.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, such as model=small rank=16.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure what a LoRA costs at inference, fused and not, and count it on SDXL's true shape.

    Example: fairhuman cost costs model=stabilityai/stable-diffusion-xl-base-1.0 size=1024 rank=256 precision=fp16
    """
    from fairhuman.cli.commands_measure import run_cost

    run_cost(out, overrides or [], dry_run, Console())


def paper(
    out: Annotated[Path, typer.Argument(help="Folder for paper.json and paper.html.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="How our numbers came about: costs.model=TEXT, evaluation.data=TEXT ...")
    ] = None,
    costs: Annotated[Path | None, typer.Option(help="costs.json of fairhuman cost.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="metrics.json of fairhuman evaluate; methods named as the paper's rows, or MPD.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of these words.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Set our numbers beside the published tables, in columns of their own, with what differs spelled out.

    Example: fairhuman paper paper --costs costs/costs.json --recipe setup.yaml
    """
    from fairhuman.cli.commands_measure import run_paper

    run_paper(out, costs, evaluation, recipe, overrides or [], dry_run, Console())


def bench(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the run, or of the table.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Of a training run; else the small SDXL on noise.")] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="What runs need, from shapes: the recipe's, or SDXL's.")
    ] = False,
    profile: Annotated[Path | None, typer.Option(help="Write a Chrome trace of five steps here instead.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each way.")] = 15,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure training's speed here as ratios to a bare loop; or compute, from shapes, the memory that runs need.

    Example: fairhuman bench --memory
    """
    from fairhuman.cli.commands_bench import run_memory, run_profile, run_speed

    console = Console()
    if memory:
        run_memory(recipe, overrides or [], out, dry_run, console)
    elif profile is not None:
        run_profile(recipe, overrides or [], profile, dry_run, console)
    else:
        run_speed(recipe, overrides or [], rounds, out, dry_run, console)
