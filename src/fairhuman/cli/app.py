"""The command line: one function a command, no logic."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fairhuman import __version__
from fairhuman.cli.data import data_app
from fairhuman.cli.doctor import doctor
from fairhuman.cli.measure import bench, compare, cost, evaluate, grid, losses, paper
from fairhuman.cli.refine import refine
from fairhuman.cli.study import study_app
from fairhuman.errors import FairHumanError, RecipeError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show what would be done; write nothing.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fairhuman {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Fine-tune SDXL so that faces and hands come out right, without spoiling the rest."""


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file of settings.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value or section.key=value.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Train; the same command again resumes.

    Example: fairhuman train recipes/lora-sdxl.yaml data=photos out=runs/lora strategy=mpd
    """
    from fairhuman.cli.commands import run_training

    code = run_training(recipe, overrides or [], dry_run, Console())
    raise typer.Exit(code)


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be given again.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, a prompt a line.")] = None,
    model: Annotated[str, typer.Option(help="'small', a pipeline's folder or a hub id.")] = "small",
    lora: Annotated[Path | None, typer.Option(help="LoRA file or folder.")] = None,
    lora_weight: Annotated[float, typer.Option(help="Strength of the LoRA.")] = 1.0,
    fuse: Annotated[
        bool | None,
        typer.Option(
            "--fuse/--no-fuse", help="Fuse the LoRA into the weights, as by default: no extra time or memory."
        ),
    ] = None,
    mole: Annotated[Path | None, typer.Option(help="MoLE file or folder; it can't be fused.")] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option(help="[CONDITIONS=]FOLDER[@STRENGTH]; may be repeated.")
    ] = None,
    t2i_adapter: Annotated[list[str] | None, typer.Option(help="Likewise, a T2I-adapter.")] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="pose=PLACE or depth=PLACE: file, folder, data set, or none for null.")
    ] = None,
    control_start: Annotated[float, typer.Option(help="Share of the steps, 0 to 1, before control begins.")] = 0.0,
    control_end: Annotated[float, typer.Option(help="Share of the steps after which control ends.")] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="UniPC steps.")] = 30,
    guidance: Annotated[float, typer.Option(min=1.0, help="Classifier-free guidance; 1 is none.")] = 7.5,
    negative: Annotated[str, typer.Option(help="Negative prompt.")] = "",
    height: Annotated[int | None, typer.Option(help="Pixels; the model's own by default.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; the model's own by default.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Changes speed alone, not the pictures.")] = 4,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16; the VAE is always fp32.")] = "fp32",
    dry_run: DryRun = False,
) -> None:
    """Draw pictures for prompts.

    Example: fairhuman sample out --prompt "a woman waving" --model MODEL --lora runs/lora/lora --lora-weight 0.3
    """
    from fairhuman.cli.commands import SampleJob, run_sampling
    from fairhuman.cli.commands_control import Steering

    settings = {
        "steps": steps,
        "guidance": guidance,
        "negative_prompt": negative,
        "height": height,
        "width": width,
        "images_per_prompt": count,
        "batch_size": batch_size,
        "seed": seed,
    }
    steering = Steering(controlnet or (), t2i_adapter or (), control or (), control_start, control_end)
    job = SampleJob(out, tuple(prompt or ()), prompts, model, lora, lora_weight, fuse, precision, steering, mole)
    run_sampling(job, settings, dry_run, Console())


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="New folder, or one that the same command has begun.")],
    count: Annotated[int, typer.Option(help="Pictures; a larger count later adds to them.")],
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 256,
    seed: Annotated[int, typer.Option(help="Picture k follows from (seed, k).")] = 0,
    degraded: Annotated[float, typer.Option(help="Share of pictures with spoilt faces and hands, 0 to 1.")] = 0.0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Render synthetic people with exact boxes, masks, depth and pose; the same command again resumes.

    Example: fairhuman synth people --count 1000 --size 256
    """
    from fairhuman.cli.commands import run_synth

    settings = {"count": count, "size": size, "seed": seed, "degraded": degraded}
    run_synth(out, settings, workers, dry_run, Console())


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for data, runs and report.")],
    targets: Annotated[str, typer.Option(help="attention (the paper) or attention+conv.")] = "attention",
    model: Annotated[str, typer.Option(help="'small' or the folder of another small SDXL.")] = "small",
    dry_run: DryRun = False,
) -> None:
    """Render people, fine-tune a small SDXL with MPD and with LS, sample, measure, report; the same again resumes.

    Example: fairhuman demo runs/demo
    """
    from fairhuman import config
    from fairhuman.demo.run import run_demo
    from fairhuman.demo.settings import DemoSettings

    settings = config.build(DemoSettings, {"targets": targets, "model": model}, origin="demo")
    raise typer.Exit(run_demo(out, dry_run, Console(), settings))


for command in (refine, evaluate, losses, grid, compare, cost, paper, bench, doctor):
    app.command()(command)


def run() -> None:
    """Run the command line: exit code 0, 1 for a failure, 2 for wrong usage, 128 + n after signal n."""
    try:
        app()
    except RecipeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except FairHumanError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
