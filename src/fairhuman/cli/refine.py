"""The command that refines finished pictures."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def refine(
    images: Annotated[Path, typer.Argument(help="Folder of pictures, or one picture.")],
    out: Annotated[Path, typer.Option(help="New folder, or one that the same command has begun.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, such as strength=0.6 attempts=5.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, a prompt a line, for pictures in order.")] = None,
    model: Annotated[str | None, typer.Option(help="'small' (the default), a pipeline's folder or a hub id.")] = None,
    lora: Annotated[str | None, typer.Option(help="LoRA file or folder.")] = None,
    lora_weight: Annotated[float | None, typer.Option(help="Strength of the LoRA; 1 by default.")] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option(help="[CONDITIONS=]FOLDER[@STRENGTH]; may be repeated.")
    ] = None,
    t2i_adapter: Annotated[list[str] | None, typer.Option(help="Likewise, a T2I-adapter.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; the VAE is always fp32.")] = None,
    seed: Annotated[int | None, typer.Option(help="Noise follows from (seed, picture, part, attempt).")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show what would be done; write nothing.")
    ] = False,
) -> None:
    """Redraw poor faces and hands of finished pictures; the same command again goes on.

    Example: fairhuman refine samples/base --out samples/refined --model MODEL --lora runs/lora/lora strength=0.5
    """
    from fairhuman.cli.commands_refine import RefineJob, run_refinement

    values = {
        "model": model,
        "lora": lora,
        "lora_weight": lora_weight,
        "controlnets": controlnet,
        "adapters": t2i_adapter,
        "precision": precision,
        "seed": seed,
    }
    run_refinement(RefineJob(images, out, prompts, recipe), values, overrides or [], dry_run, Console())
