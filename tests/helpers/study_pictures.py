"""Pictures of two methods for the same prompts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fairhuman.generate.sample import save_png

PROMPTS = [f"person {number}, <b>waving</b>" for number in range(8)]


def draw(number: int, shade: int, size: tuple[int, int]) -> Image.Image:
    """Bright stripes under a square whose red is the number, whose green is the shade."""
    stripes = np.zeros((size[1], size[0], 3), np.uint8)
    stripes[:, ::4] = 255
    picture = Image.fromarray(stripes)
    side = size[1] // 2
    picture.paste((20 * number, shade, 0), (0, 0, side, side))
    return picture


def write_method(
    folder: Path, shade: int, size: tuple[int, int] = (64, 48), without: Sequence[int] = (), **entries: str
) -> Path:
    for number, prompt in enumerate(PROMPTS):
        if number not in without:
            texts = {"prompt": prompt, "prompt_index": str(number), "picture_index": "0", "seed": "0", **entries}
            save_png(draw(number, shade, size), folder / f"{number:05d}-00.png", texts)
    return folder
