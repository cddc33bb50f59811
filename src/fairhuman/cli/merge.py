"""`fairhuman merge`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, Prediction, Vae, ZeroSnr, base_of


def merge(
    model: Annotated[str, Argument(help="'small', the folder of a pipeline, a .safetensors file or a hub id.")],
    lora: Annotated[Path, Argument(help="LoRA file or folder.")],
    out: Annotated[Path, Argument(help="New folder, or new file whose name ends in .safetensors.")],
    weight: Annotated[float, Option(help="Strength of the LoRA.")] = 1.0,
    precision: Annotated[
        str | None, Option(help="Of the result: fp16, bf16 or fp32; default fp16, for other bases than SDXL bf16.")
    ] = None,
    vae: Vae = None,
    prediction: Prediction = None,
    zero_snr: ZeroSnr = None,
    dry_run: DryRun = False,
) -> None:
    """Merge a LoRA into a model, as a pipeline folder or as a single file that other programs load.

    Example: fairhuman merge sdxl.safetensors runs/lora/lora merged.safetensors --weight 0.8
    """
    from fairhuman.models.merge import MergeJob
    from fairhuman.models.merge import merge as merge_lora
    from fairhuman.utils.files import writing

    job = MergeJob(model, lora, out, weight, precision, base_of(vae, prediction, zero_snr))
    display = ConsoleDisplay()
    kind = "a single file" if job.single else "a pipeline folder"
    if dry_run:
        file = job.check()
        display.say(f"would merge {file} x {weight:g} into {model} and write {out}, {kind} in {job.stored_precision}")
        return
    with writing(out):
        changed = merge_lora(job)
    text = ", ".join(f"{count} layers of {network}" for network, count in changed.items())
    display.say(f"{out}: {kind} in {job.stored_precision}; {text} changed")
