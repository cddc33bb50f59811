"""`fairhuman sample`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import (
    Adapters,
    ControlNets,
    DryRun,
    Prediction,
    Prompts,
    Quantize,
    SkipMemoryCheck,
    Vae,
    ZeroSnr,
    base_of,
    settings_of,
)


def sample(
    out: Annotated[Path, Argument(help="Folder for the pictures.")],
    prompt: Annotated[list[str] | None, Option(help="A prompt; repeatable.")] = None,
    prompts: Prompts = None,
    model: Annotated[str, Option(help="'small', the folder of a pipeline, a .safetensors file or a hub id.")] = "small",
    lora: Annotated[Path | None, Option(help="LoRA file or folder.")] = None,
    lora_weight: Annotated[float, Option(help="Strength of the LoRA.")] = 1.0,
    fuse: Annotated[
        bool | None,
        Option(
            "--fuse/--no-fuse", help="Fuse the LoRA into the weights; by default in fp32, unless they are quantised."
        ),
    ] = None,
    mole: Annotated[Path | None, Option(help="MoLE file or folder; it can't be fused.")] = None,
    controlnet: ControlNets = None,
    t2i_adapter: Adapters = None,
    control: Annotated[
        list[str] | None, Option(help="pose=PLACE or depth=PLACE: file, folder, data set or none.")
    ] = None,
    control_start: Annotated[float, Option(help="Share of the steps, 0 to 1, after which control begins.")] = 0.0,
    control_end: Annotated[float, Option(help="Share of the steps after which control ends.")] = 1.0,
    count: Annotated[int, Option(min=1, help="Pictures per prompt.")] = 1,
    steps: Annotated[int, Option(min=1, help="Denoising steps.")] = 30,
    guidance: Annotated[
        float | None,
        Option(min=1.0, help="As the base means it, 1 of SDXL: none; by default the base's own, 7.5 of SDXL."),
    ] = None,
    suffix: Annotated[str, Option(help="Text added to every prompt, such as ', high quality'.")] = "",
    negative: Annotated[str, Option(help="Negative prompt.")] = "",
    height: Annotated[int | None, Option(help="In pixels; the model's own by default.")] = None,
    width: Annotated[int | None, Option(help="In pixels; the model's own by default.")] = None,
    seed: Annotated[int, Option(min=0, help="Seed of the noise.")] = 0,
    batch_size: Annotated[int, Option(min=1, help="Changes the speed, not the noise.")] = 4,
    precision: Annotated[
        str, Option(help="fp32, bf16, fp16, or auto: fp16 (bf16 for other bases than SDXL) on a GPU, fp32 on a CPU.")
    ] = "auto",
    vae: Vae = None,
    prediction: Prediction = None,
    zero_snr: ZeroSnr = None,
    quantize: Quantize = None,
    offload: Annotated[
        bool, Option("--offload", help="Keep these layers' weights in main memory; least memory, most time.")
    ] = False,
    redraw: Annotated[bool, Option("--redraw", help="Replace the pictures of an earlier command.")] = False,
    skip_memory_check: SkipMemoryCheck = False,
    dry_run: DryRun = False,
) -> None:
    """Draw pictures for prompts.

    Run the same command again to resume: pictures that are there are kept. Other settings need another folder or
    --redraw.

    Example: fairhuman sample out --prompt "a woman waving" --model MODEL --lora runs/lora/lora
    """
    from fairhuman.generate.checks import check_options, collect_prompts
    from fairhuman.generate.control_options import ControlOptions
    from fairhuman.generate.record import check_folder
    from fairhuman.generate.settings import SampleSettings
    from fairhuman.models.locations import name_of
    from fairhuman.utils.signals import announced

    given: dict[str, object] = {"steps": steps, "guidance": guidance, "negative_prompt": negative, "seed": seed}
    given["prompt_suffix"] = suffix
    given |= {"height": height, "width": width, "images_per_prompt": count, "batch_size": batch_size}
    settings = settings_of(SampleSettings, "sample", None, given=given).of_base(name_of(model))
    texts = collect_prompts(prompt or (), prompts)
    base = base_of(vae, prediction, zero_snr, quantize, offload)
    check_options(model, lora, lora_weight, fuse, mole, precision, base)
    controls = ControlOptions(controlnet or (), t2i_adapter or (), control or (), control_start, control_end)
    controls.check(steps)
    if not redraw:
        check_folder(out, settings, texts)
    from fairhuman.generate.run import SampleJob, draw_pictures

    job = SampleJob(
        settings=settings,
        out=out,
        prompts=texts,
        model=model,
        lora=lora,
        lora_weight=lora_weight,
        fuse=fuse,
        mole=mole,
        precision=precision,
        base=base,
        control=controls,
        redraw=redraw,
    )
    asked = job.check()
    display = ConsoleDisplay()
    if dry_run:
        from fairhuman.generate.sample import picture_size
        from fairhuman.train.memory import shape_of

        records = job.records(asked)
        display.say(job.planned(picture_size(shape_of(model), settings)))
        display.say(f"{len(job.kept(records))} of {len(records)} pictures are there and would be kept")
        return
    if not skip_memory_check:
        from fairhuman.bench.drawing_memory import check_drawing_memory

        check_drawing_memory(model, job.used_precision, base, (height, width), batch_size)
    with display, announced("Stopping; run the same command again to resume"):
        for path, text in draw_pictures(job, asked, display):
            display.say(f"{path}  {text}")
