"""Steps of the trainer, from file to optimiser, relative to a bare loop over tensors in memory.

    .venv/bin/python benchmarks/step.py [--quick] [--parts speed profile layout]

- speed: pictures per second of LS and of MPD in each mode, relative to the bare loop; and the waiting for data.
- profile: the time of each part of a step, with and without cached latents and text embeddings.
- layout: forward and backward of the 49M U-Net in channels-last memory format, relative to the default.

These are the measurements of `fairhuman bench`, for two models and two batch sizes: the small SDXL, and the same with a
U-Net of 49M parameters in SDXL's pattern; 128 px, LoRA of rank 16 on attention, bfloat16 as in the SDXL recipes, one
thread.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from common import arguments, compare, one_thread, save
from fairhuman.bench.noise import noise_recipe
from fairhuman.bench.speed import available_modes, measure_speed, trace
from fairhuman.models.sdxl import load_pipeline
from sdxl_shape import Losses, build_unet, three_losses

BATCHES = (2, 8)
ROUNDS = 9


def models(folder: Path, quick: bool) -> dict[str, str]:
    """Return the models' folders by name."""
    if quick:
        return {"small": "small"}
    pipeline = load_pipeline("small")
    larger = {
        "block_out_channels": (64, 128, 256),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 4),
        "attention_head_dim": (2, 4, 8),
    }
    pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, **larger})
    parameters = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    pipeline.save_pretrained(folder / "larger")
    return {"small": "small", f"{parameters / 1e6:.0f}M": str(folder / "larger")}


def overrides(model: str, batch: int, quick: bool) -> list[str]:
    values = [f"model={model}", f"batch_size={batch}", "precision=bf16", "fairness.measure_every=0"]
    return [*values, "resolution=64"] if quick else values


def speed(quick: bool) -> dict[str, Any]:
    """Return results by model and batch size."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models(Path(folder), quick).items():
            for batch in BATCHES[:1] if quick else BATCHES:
                with tempfile.TemporaryDirectory() as work:
                    measured = speed_of(Path(work), model, batch, 2 if quick else ROUNDS, quick=quick)
                found[f"{name}, batch {batch}"] = measured
                for way, row in measured.items():
                    ratio = " / ".join(f"{value:.3f}" for value in row["ratio"])
                    print(f"{name}, batch {batch}: {way:14} {ratio}, waiting {row['waiting'][1]:.1%}", flush=True)
    return found


def speed_of(
    work: Path, model: str, batch: int, rounds: int, modes: Sequence[str] | None = None, *, quick: bool = False
) -> dict[str, Any]:
    """Return results by method; all supported modes by default."""
    recipe = noise_recipe(work, overrides(model, batch, quick))
    return {way.name: asdict(way) for way in measure_speed(recipe, rounds, modes or available_modes(recipe))}


def profile(quick: bool) -> dict[str, Any]:
    """Return the seconds of a step of LS by part."""
    found: dict[str, Any] = {}
    for kept in ("false", "true"):
        with tempfile.TemporaryDirectory() as work:
            caches = [f"cache.latents={kept}", f"cache.text={kept}"]
            recipe = noise_recipe(Path(work), [*overrides("small", 8, quick), "strategy=ls", *caches])
            spent = trace(recipe, Path(work) / "trace.json")
        found["kept" if kept == "true" else "not kept"] = spent
        print(kept, {part: f"{seconds / sum(spent.values()):.1%}" for part, seconds in spent.items()})
    return found


def layout(quick: bool) -> dict[str, Any]:
    """Return ratios by batch size, float32."""
    forms = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    found: dict[str, Any] = {}
    for batch in BATCHES:
        ways: dict[str, Callable[[], object]] = {}
        for name, form in forms.items():
            unet = build_unet(quick).to(memory_format=form)
            ways[name] = partial(there_and_back, three_losses(unet, quick, batch))
        ratio = compare(ways, "contiguous", 2 if quick else ROUNDS)["channels last"]["ratio"]
        found[f"49M, batch {batch}"] = {"channels last": ratio}
        print(f"49M, batch {batch}: channels last {ratio['min']:.3f} / {ratio['median']:.3f} / {ratio['max']:.3f}")
    return found


def there_and_back(forward: Losses) -> None:
    forward()[0][0].backward()  # type: ignore[no-untyped-call]


def main() -> None:
    options = arguments(__doc__, ("speed", "profile", "layout"))
    one_thread()
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": partial(speed, options.quick),
        "profile": partial(profile, options.quick),
        "layout": partial(layout, options.quick),
    }
    settings = {"rounds": ROUNDS, "resolution": 128, "rank": 16, "precision": "bf16"}
    for part in options.parts:
        save("step", settings, {part: ways[part]()}, options)


if __name__ == "__main__":
    main()
