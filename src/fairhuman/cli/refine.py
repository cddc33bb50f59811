"""`fairhuman refine`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import (
    Adapters,
    ControlNets,
    DryRun,
    Prompts,
    Recipe,
    SkipMemoryCheck,
    check_existing,
    settings_of,
)


def refine(
    images: Annotated[Path, Argument(help="Folder of pictures, or one picture.")],
    out: Annotated[Path, Option(help="New folder, or one that this command started.")],
    overrides: Annotated[list[str] | None, Argument(help="Settings, such as strength=0.6 attempts=5.")] = None,
    prompts: Prompts = None,
    model: Annotated[
        str | None, Option(help="'small' (default), a pipeline's folder, a .safetensors file or a hub id.")
    ] = None,
    lora: Annotated[str | None, Option(help="LoRA file or folder.")] = None,
    lora_weight: Annotated[float | None, Option(help="Strength of the LoRA; 1 by default.")] = None,
    controlnet: ControlNets = None,
    t2i_adapter: Adapters = None,
    precision: Annotated[str | None, Option(help="auto, fp32, bf16 or fp16; the VAE is always fp32.")] = None,
    seed: Annotated[int | None, Option(help="Noise depends on (seed, picture, part, attempt).")] = None,
    recipe: Recipe = None,
    skip_memory_check: SkipMemoryCheck = False,
    dry_run: DryRun = False,
) -> None:
    """Redraw poor faces and hands of finished pictures. Run the same command again to resume.

    Example: fairhuman refine samples/base --out samples/refined --model MODEL --lora runs/lora/lora strength=0.5
    """
    from functools import partial

    from fairhuman.data.sources.prompts import prompts_at
    from fairhuman.generate.checks import check_options
    from fairhuman.refine.settings import RefineSettings
    from fairhuman.utils.files import writing

    given: dict[str, object] = {"model": model, "lora": lora, "lora_weight": lora_weight, "seed": seed}
    given |= {"controlnets": controlnet, "adapters": t2i_adapter, "precision": precision}
    settings = settings_of(RefineSettings, "refine", overrides, recipe, given)
    lora_file = None if settings.lora is None else Path(settings.lora)
    check_options(settings.model, lora_file, settings.lora_weight, None, None, settings.precision, settings.base)
    check_existing(images)
    from fairhuman.generate.run import used_precision
    from fairhuman.refine.page import summary, write_page
    from fairhuman.refine.painter import check_models, open_painter
    from fairhuman.refine.run import RefineManifest, check_folders, finished_rows, list_sources, refine_folder

    controls = check_models(settings)
    settings = settings.model_copy(update={"precision": used_precision(settings.model, settings.precision)})
    sources = list_sources(images, prompts_at(prompts) if prompts is not None else None)
    begun = RefineManifest(images=str(images), prompts=None if prompts is None else str(prompts), settings=settings)
    check_folders(images, out, begun)
    left = len(sources) - len(finished_rows(out, sources))
    display = ConsoleDisplay()
    if dry_run:
        display.settings(settings)
        display.say(f"would refine {left} of {len(sources)} pictures and write into {out}")
        return
    if left and not skip_memory_check:
        from fairhuman.bench.drawing_memory import check_drawing_memory

        size = (settings.size, settings.size)
        check_drawing_memory(settings.model, settings.precision, settings.base, size, batch_size=1)
    if 0 < left < len(sources):
        display.say(f"{out}: resuming, {len(sources) - left} pictures are finished")
    with writing(out), display:
        done = refine_folder(sources, out, begun, partial(open_painter, settings, controls), display.progress)
        page = write_page(out, sources, begun, done)
    for line in summary(done):
        display.say(line)
    display.say(f"report: {page}")
