"""A small data set in a moment: drawn figures with boxes, for tests to which any picture of a person will do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "pink")


def write_figures(folder: Path, count: int, size: int = 128, seed: int = 0) -> None:
    """Write an imagefolder: `images/*.png` and `metadata.jsonl` with caption, faces and hands (boxes in pixels)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        generator = np.random.default_rng((seed, number))
        shirt, background = generator.permutation(COLOURS)[:2]
        left, shift = generator.uniform(0.1, 0.25), generator.uniform(-0.05, 0.05)
        face = _box(0.4 + shift, 0.12, 0.2, 0.24, size)
        hands = [_box(left, 0.6, 0.1, 0.12, size), _box(0.9 - left, 0.45, 0.1, 0.12, size)]
        image = Image.new("RGB", (size, size), background)
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle(_box(0.3 + shift, 0.38, 0.4, 0.62, size), size / 16, shirt)
        for box in (face, *hands):
            draw.ellipse(box, (214, 162, 120))
        name = f"images/{number:05d}.png"
        image.save(folder / name)
        row = {
            "file_name": name,
            "width": size,
            "height": size,
            "caption": f"a person in a {shirt} shirt, {background} background",
            "faces": [face],
            "hands": hands,
        }
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_shapes(folder: Path, sizes: Sequence[tuple[int, int]], **fields: Any) -> Path:
    """Write an imagefolder with a picture of noise of each size (width, height), each with a face and a hand."""
    folder.mkdir()
    rows = []
    for number, (width, height) in enumerate(sizes):
        name = f"{number:02}.png"
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(folder / name)
        rows.append(
            {"file_name": name, "caption": "x", "faces": [[2, 2, 14, 14]], "hands": [[16, 16, 30, 30]]} | fields
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def give_poses(folder: Path, without: int = 0, **others: Any) -> None:
    """Give the figures a pose each, COCO's 17 points around the face; the first few get none. All get `others`."""
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        x0, y0, x1, y1 = row["faces"][0]
        steps = np.linspace(0, 1, 17)
        points = np.stack([x0 + (x1 - x0) * steps, y0 + 2 * (y1 - y0) * steps, np.ones(17)], axis=1)
        row.update({"pose": points.round(2).tolist() if number >= without else None, **others})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def _box(x: float, y: float, width: float, height: float, size: int) -> list[float]:
    return [round(value * size, 2) for value in (x, y, x + width, y + height)]
