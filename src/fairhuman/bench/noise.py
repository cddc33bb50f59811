"""Noise images for benchmarks, which cost as much to load and train on as photos."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairhuman import config
from fairhuman.train.levels import Level, checked_recipe, levels_of, recipe_of
from fairhuman.train.recipe import TrainRecipe

PICTURES = 64
DEFAULT: dict[str, Any] = {
    "steps": 1,
    "batch_size": 8,
    "resolution": 128,
    "lora": {"rank": 16},
    "view": {"crop": "center"},
    "preview": {"count": 0},
    "validation": {"every": 0},
}


@contextmanager
def recipe_or_noise(
    path: Path | None, overrides: Sequence[str], fill_caches: bool, say: Callable[[str], object]
) -> Iterator[TrainRecipe]:
    """The recipe to measure; where `path` is None, one of `noise_recipe` in a temporary folder.

    Raises:
        RecipeError: a setting is wrong, or has no effect with the others; see `train/levels.py`, also for `say`.
    """
    if path is not None:
        values = config.overridden(config.read(path), overrides)
        yield checked_recipe(values, levels_of(path, overrides), str(path), say)
        return
    typed = config.overridden({}, overrides)
    values = {**config.merge(DEFAULT, typed), "data": ".", "out": "."}
    recipe_of(values, [Level("", DEFAULT, 0), Level("the command line", typed, 1)], "bench")
    with tempfile.TemporaryDirectory() as folder:
        yield noise_recipe(Path(folder), overrides, fill_caches)


def noise_recipe(
    folder: Path, overrides: Sequence[str] = (), fill_caches: bool = True, pictures: int = PICTURES
) -> TrainRecipe:
    """Write noise images into `folder` and return `DEFAULT`, with overrides, as a recipe that trains on them. With
    `fill_caches` its caches are filled as after the first epoch; otherwise the first steps fill them.
    """
    cache = {"latents": True, "text": True, "folder": str(folder / "cache")}
    values = {**DEFAULT, "data": str(folder), "out": str(folder / "out"), "cache": cache}
    recipe = config.build(TrainRecipe, values, overrides)
    write_noise(folder, pictures, recipe.size)
    if fill_caches and (recipe.cache.latents or recipe.cache.text):
        from fairhuman.data.pictures.notes import LoadReport
        from fairhuman.train.cache.fill import fill  # here: a mistake in the settings is told without torch

        fill(recipe, LoadReport(), say=lambda _: None, progress=lambda *_: None)
    return recipe


def write_noise(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write an imagefolder of JPEGs of (height, width), coloured noise at several scales, each with boxes of a face and
    two hands, and 17 points of a pose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size
    lines = []
    for number in range(count):
        chance = np.random.default_rng((*size, number))
        pixels = np.zeros((height, width, 3))
        for cells in (4, 16, 64, max(size)):
            noise = chance.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            enlarged = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            pixels += np.asarray(enlarged) * (4 / cells) ** 0.5
        pixels *= 255 / pixels.max()
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        parts = np.array([[0.4, 0.1, 0.6, 0.3], [0.2, 0.6, 0.3, 0.7], [0.7, 0.5, 0.8, 0.6]])
        boxes = (parts * [width, height, width, height]).tolist()
        points = np.linspace([0.1 * width, 0.1 * height, 1.0], [0.9 * width, 0.9 * height, 1.0], 17).tolist()
        row = {"file_name": f"{number}.jpg", "caption": f"person {number}, waving with both hands"}
        lines.append(json.dumps(row | {"faces": boxes[:1], "hands": boxes[1:], "pose": points}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
