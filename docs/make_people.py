"""Draw the pictures of docs/synthetic-people.md: a contact sheet, and one person with all that is known about it.

.venv/bin/python docs/make_people.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fairhuman.synth.body import Body
from fairhuman.synth.render import KEYPOINTS, Rendering, render

IMAGES = Path(__file__).parent / "images"
SEED = 0
COLUMNS, ROWS, SIDE = 8, 3, 160
PERSON, LARGE = 13, 320
COLOURS = {"face": (255, 200, 0), "left_hand": (0, 170, 255), "right_hand": (255, 60, 120)}


def contact_sheet(body: Body) -> Image.Image:
    """The first pictures of the seed, none left out."""
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for number in range(COLUMNS * ROWS):
        row, column = divmod(number, COLUMNS)
        sheet.paste(Image.fromarray(render(body, SEED, number, SIDE).image), (column * SIDE, row * SIDE))
    return sheet


def parts_sheet(picture: Rendering) -> Image.Image:
    """The picture; masks and boxes over it; key points; depth, near is bright."""
    panels = [Image.fromarray(picture.image), _regions(picture), _key_points(picture), _depth(picture)]
    sheet = Image.new("RGB", (len(panels) * LARGE, LARGE))
    for column, panel in enumerate(panels):
        sheet.paste(panel, (column * LARGE, 0))
    return sheet


def _regions(picture: Rendering) -> Image.Image:
    shown = picture.image.astype(float)
    for name, colour in COLOURS.items():
        share = 0.6 * picture.masks[name][..., None] / 255
        shown = shown * (1 - share) + np.array(colour) * share
    panel = Image.fromarray(shown.round().astype(np.uint8))
    for name, box in picture.boxes.items():
        ImageDraw.Draw(panel).rectangle((box.x0, box.y0, box.x1, box.y1), outline=COLOURS[name], width=2)
    return panel


def _key_points(picture: Rendering) -> Image.Image:
    """White where in sight, dark where hidden; those in the picture."""
    panel = Image.fromarray(picture.image // 2)
    draw = ImageDraw.Draw(panel)
    for name, (x, y, visible) in zip(KEYPOINTS, picture.keypoints, strict=True):
        radius = 2 if "hand" in name else 4
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white" if visible else (200, 60, 60))
    return panel


def _depth(picture: Rendering) -> Image.Image:
    there = picture.depth > 0
    near, far = picture.depth[there].min(), picture.depth[there].max()
    bright = np.where(there, 255 - 200 * (picture.depth - near) / (far - near), 0)
    return Image.fromarray(bright.astype(np.uint8)).convert("RGB")


def save_small(image: Image.Image, path: Path) -> None:
    """Write an optimised PNG with 6 of the 8 bits of each colour, which looks the same and is much smaller."""
    image.point(lambda value: min(255, (value + 2) // 4 * 4)).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} KB")


def main() -> None:
    """Write both pictures."""
    body = Body(print)
    save_small(contact_sheet(body), IMAGES / "people.png")
    save_small(parts_sheet(render(body, SEED, PERSON, LARGE)), IMAGES / "people-masks.png")


if __name__ == "__main__":
    main()
