"""Sample images for prompts: UniPC on the pipeline's noise schedule, with one generator per image.

Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", NeurIPS 2023.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UniPCMultistepScheduler
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fairhuman import __version__
from fairhuman.bases.base import Base, after_step, base_of, evaluating, quiet
from fairhuman.bases.latents import check_finite, decode_latents
from fairhuman.bases.names import BASES
from fairhuman.bases.sdxl import SDXL, encode_prompts
from fairhuman.errors import RecipeError
from fairhuman.generate.control_inputs import ControlInputs
from fairhuman.generate.guide import ActiveControl, apply_controls, null_conditions
from fairhuman.generate.lora import Lora
from fairhuman.generate.settings import SampleSettings
from fairhuman.generate.unread import read_entry
from fairhuman.models.mole import MoleFile
from fairhuman.models.resting import Resting
from fairhuman.utils.files import write_atomically
from fairhuman.utils.randomness import Stream, seeded_generator

SCHEDULER = "UniPC"


@dataclass(frozen=True, slots=True)
class SampledPicture:
    """One image, its indices, and the metadata to save with it."""

    image: Image.Image
    prompt_index: int
    picture_index: int
    metadata: Mapping[str, str]


def sample(
    pipeline: Any,
    prompts: Sequence[str],
    settings: SampleSettings,
    model: str = "",
    lora: Lora | None = None,
    indices: Sequence[int] | None = None,
    guides: Sequence[ActiveControl] = (),
    asked: ControlInputs | None = None,
    mole: MoleFile | None = None,
    share: tuple[int, int] = (0, 1),
    there: Collection[tuple[int, int]] = (),
    on_step: Callable[[int, int], object] | None = None,
) -> Iterator[SampledPicture]:
    """Draw `images_per_prompt` images for every prompt, in order; `pipeline` is left unchanged.

    The noise of an image depends on (seed, prompt index, image index) alone: not on the batch size, the order, or the
    other prompts.

    Args:
        pipeline: the model.
        prompts: one or more.
        settings: see `SampleSettings`.
        model, lora, mole: for the metadata only.
        indices: the prompts' indices in a longer list, if they are a part or permutation of it; they index `asked` too.
        guides: the controls, which follow the conditions in `asked`; all zeros where a prompt has none.
        asked: the prompts' conditions.
        share: (k, n): only the batches k, k + n, k + 2n, ..., for process k of n. Batches stay whole, so that not even
            rounding depends on `share`.
        there: (prompt index, image index) of images that exist and aren't yielded. A batch that lacks one is drawn
            whole, so that not even rounding depends on them.
        on_step: called after each denoising step with the number of steps done and that of all batches.
    """
    settings, base = settings.of_base(BASES[type(pipeline).__name__]), base_of(pipeline)
    size = picture_size(pipeline, settings)
    batches = list(_batches(prompts, indices, settings, share, there))
    done = count(1)
    for batch in batches:
        views = asked.views([number for _, number, _ in batch], size) if asked is not None else {}
        pictures_bchw = draw(
            pipeline,
            [f"{prompt}{settings.prompt_suffix}" for prompt, _, _ in batch],
            [picture_generator(settings.seed, number, picture) for _, number, picture in batch],
            settings,
            guides=guides,
            conditions=views,
            on_step=partial(_tell, on_step, done, settings.steps * len(batches)) if on_step is not None else None,
        )
        for (prompt, number, picture), picture_chw in zip(batch, pictures_bchw, strict=True):
            if (number, picture) in there:
                continue
            metadata = _metadata(prompt, number, picture, settings, model, lora, mole, scheduler_of(pipeline))
            metadata |= read_entry(base, f"{prompt}{settings.prompt_suffix}")
            if guides:
                metadata["control"] = json.dumps([guide.metadata() for guide in guides])
                metadata |= asked.texts(number, size) if asked is not None else {}
            yield SampledPicture(to_image(picture_chw), number, picture, metadata)


def _tell(on_step: Callable[[int, int], object], done: Iterator[int], total: int) -> None:
    on_step(min(next(done), total), total)


def _batches(
    prompts: Sequence[str],
    indices: Sequence[int] | None,
    settings: SampleSettings,
    share: tuple[int, int],
    there: Collection[tuple[int, int]],
) -> Iterator[list[tuple[str, int, int]]]:
    """Batches of (prompt, prompt index, image index) of one process that lack an image; see `sample`."""
    numbers = list(range(len(prompts))) if indices is None else list(indices)
    if len(numbers) != len(prompts):
        raise ValueError(f"indices must number the {len(prompts)} prompts, found {len(numbers)}")
    jobs = [
        (prompt, number, picture)
        for prompt, number in zip(prompts, numbers, strict=True)
        for picture in range(settings.images_per_prompt)
    ]
    first, processes = share
    batches = (jobs[start : start + settings.batch_size] for start in range(0, len(jobs), settings.batch_size))
    lacking = [batch for batch in batches if any(job[1:] not in there for job in batch)]
    yield from lacking[first::processes]


def _metadata(
    prompt: str,
    prompt_index: int,
    picture_index: int,
    settings: SampleSettings,
    model: str,
    lora: Lora | None,
    mole: MoleFile | None,
    scheduler: str,
) -> dict[str, str]:
    metadata = {
        "prompt": prompt,
        "negative_prompt": settings.negative_prompt,
        **({"prompt_suffix": settings.prompt_suffix} if settings.prompt_suffix else {}),
        "seed": str(settings.seed),
        "prompt_index": str(prompt_index),
        "picture_index": str(picture_index),
        "steps": str(settings.steps),
        "guidance": str(settings.guidance),
        "scheduler": scheduler,
        "model": model,
        "lora": str(lora.path) if lora else "",
        "lora_weight": str(lora.weight) if lora else "",
        "fairhuman": __version__,
    }
    return metadata if mole is None else {**metadata, "mole": f"{mole.path} ({mole.stage})"}


def draw(
    pipeline: Any,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    settings: SampleSettings,
    start_latents_bchw: Tensor | None = None,
    strength: float = 1.0,
    guides: Sequence[ActiveControl] = (),
    conditions: Mapping[str, Tensor] | None = None,
    on_step: Callable[[], object] | None = None,
    read: Sequence[Any] | None = None,
    room: Callable[[Callable[[], Tensor]], Tensor] | None = None,
) -> Tensor:
    """Draw one image per prompt, float32 [B, 3, H, W] in [-1, 1] on the CPU; the i-th with the i-th generator.

    If given, `start_latents_bchw` are noised to `strength` (0 to 1) of the schedule and denoised from there; otherwise
    images start from pure noise. `guides` follow `conditions` [B, C, H, W] of the images' size; missing ones are zeros.
    `on_step` is called after each denoising step; an exception of its ends the drawing. `read` is what `read_prompts`
    returned of the prompts. `room` calls the decoding, which needs the VAE alone; None: the network makes room if
    there is none.

    Raises:
        RecipeError: too many steps for the schedule.
        ModelError: latents or images aren't finite.
    """
    size, base = picture_size(pipeline, settings), base_of(pipeline)
    room = room or Resting([base.network], base.device).with_room
    settings = settings.of_base(BASES[type(pipeline).__name__])
    if read is None:
        read = read_prompts(pipeline, prompts, settings, photos=start_latents_bchw is not None)
    if not isinstance(base, SDXL):
        latents = _draw_by_base(base, read, generators, settings, size, start_latents_bchw, strength, on_step)
        return room(lambda: torch.stack([base.picture(latents_1chw) for latents_1chw in latents]))
    check_steps(pipeline.scheduler.config, settings.steps)
    unet = pipeline.unet
    arguments: dict[str, Any] = {
        **read[0],
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.scale,
        "generator": list(generators),
        "output_type": "latent",
    }
    if on_step is not None:
        arguments["callback_on_step_end"] = partial(after_step, on_step)
    if start_latents_bchw is None:
        kind = StableDiffusionXLPipeline
        arguments["height"], arguments["width"] = size
    else:
        kind = StableDiffusionXLImg2ImgPipeline
        arguments |= {"image": start_latents_bchw.to(unet.dtype), "strength": strength}
    with torch.no_grad(), evaluating(pipeline):
        sampler = with_unipc(pipeline, kind)
        all_conditions = {**null_conditions(guides, len(prompts), size), **(conditions or {})}
        with apply_controls(unet, sampler.scheduler, guides, all_conditions):
            latents_bchw = sampler(**arguments).images
        check_finite(
            latents_bchw,
            f"the U-Net's latents ({unet.dtype})",
            "not caused by the VAE; check the weights of the U-Net, the LoRA and its weight, or sample in bf16 or fp32",
        )
        return room(lambda: decode_latents(pipeline.vae, latents_bchw).cpu())


def read_prompts(pipeline: Any, prompts: Sequence[str], settings: SampleSettings, photos: bool = False) -> list[Any]:
    """Return what the network reads of a batch's prompts, for `draw`; `photos`: with latents to start from.

    The rest of `draw` needs no text encoders.
    """
    settings, base = settings.of_base(BASES[type(pipeline).__name__]), base_of(pipeline)
    with torch.no_grad(), evaluating(pipeline), quiet():  # prompts that are cut are told in a line, see `unread`
        if isinstance(base, SDXL):
            return [prompt_arguments(pipeline, prompts, settings)]
        read = base.guided_texts if photos else base.read
        return [read(prompt, settings.negative_prompt, settings.scale) for prompt in prompts]


def prompt_arguments(pipeline: Any, prompts: Sequence[str], settings: SampleSettings) -> dict[str, Tensor]:
    """Return the encoded prompts and, with guidance, the negative prompt, as arguments of an SDXL pipeline."""
    dtype = pipeline.unet.dtype
    embeds, pooled = encode_prompts(pipeline, prompts)
    arguments = {"prompt_embeds": embeds.to(dtype), "pooled_prompt_embeds": pooled.to(dtype)}
    if settings.scale > 1:
        embeds, pooled = encode_prompts(pipeline, [settings.negative_prompt] * len(prompts))
        arguments["negative_prompt_embeds"] = embeds.to(dtype)
        arguments["negative_pooled_prompt_embeds"] = pooled.to(dtype)
    return arguments


def scheduler_of(pipeline: Any) -> str:
    """Return the name of the sampler: UniPC for SDXL, the model's own for other bases."""
    name: str = pipeline.scheduler.config["_class_name"] if not isinstance(base_of(pipeline), SDXL) else SCHEDULER
    return name


def _draw_by_base(
    base: Base,
    read: Sequence[Any],
    generators: Sequence[torch.Generator],
    settings: SampleSettings,
    size: tuple[int, int],
    start_latents_bchw: Tensor | None,
    strength: float,
    on_step: Callable[[], object] | None,
) -> list[Tensor]:
    """Draw latents [1, C, h, w] one by one by the base's own pipeline; as `draw`."""
    found = []
    for number, (texts, generator) in enumerate(zip(read, generators, strict=True)):
        # each batch counts its steps once, as SDXL's batches do
        tell = on_step if number == len(read) - 1 else None
        way = settings.steps, settings.scale, settings.negative_prompt, tell
        if start_latents_bchw is None:
            found.append(base.draw(size, "", generator, *way, read=texts))
        else:
            start_1chw = start_latents_bchw[number : number + 1]
            found.append(base.redraw(start_1chw, strength, "", generator, *way, texts=texts))
    return found


def picture_size(pipeline: Any, settings: SampleSettings) -> tuple[int, int]:
    """Return height and width of the images in pixels: the settings' or the model's own.

    Raises:
        ModelError: the model has no positions for a side.
    """
    base = base_of(pipeline)
    size = settings.height or base.side, settings.width or base.side
    base.check_largest(size, "height and width")
    return size


def check_steps(schedule: Mapping[str, Any], steps: int) -> None:
    """Check that the noise level decreases at each of `steps`; `schedule` is a scheduler's configuration.

    UniPC divides by zero if two consecutive noise levels are equal.

    Raises:
        RecipeError: too many steps for the schedule.
    """
    scheduler = UniPCMultistepScheduler.from_config(dict(schedule))
    scheduler.set_timesteps(steps)
    if not bool((scheduler.sigmas.diff() < 0).all()):
        count = scheduler.config.num_train_timesteps
        raise RecipeError(f"steps: the model's {count} timesteps can't be split into {steps} steps, take fewer")


def picture_generator(seed: int, prompt_index: int, picture_index: int) -> torch.Generator:
    """Return the generator of one image; on the CPU, so that its noise is the same for every device."""
    return seeded_generator(seed, Stream.PICTURE, prompt_index, picture_index)


def to_image(picture_chw: Tensor) -> Image.Image:
    """Convert an image [3, H, W] in [-1, 1] to 8-bit RGB."""
    pixels = ((picture_chw.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def save_png(image: Image.Image, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a PNG with text entries, atomically."""
    information = PngInfo()
    for key, value in metadata.items():
        information.add_itxt(key, value)
    write_atomically(path, lambda partial: image.save(partial, format="PNG", pnginfo=information))


def with_unipc(pipeline: Any, kind: type) -> Any:
    """Return a pipeline of class `kind` that shares all modules but uses UniPC; `pipeline` keeps its own scheduler."""
    scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    sampler = kind(**{**pipeline.components, "scheduler": scheduler}, add_watermarker=False)
    sampler.set_progress_bar_config(disable=True)
    return sampler
