"""Simple drawn people with exact boxes for face and hands: training data that needs no download.

Not photographs and not meant to be: a head with eyes and mouth, coloured clothes, arms in some poses, hands with five
fingers, a plain background. Everything follows from (seed, number), so the n-th figure is the same in every order.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (196, 48, 48),
    "blue": (52, 88, 190),
    "green": (56, 140, 74),
    "yellow": (228, 190, 62),
    "purple": (124, 70, 158),
    "orange": (226, 124, 44),
    "white": (236, 236, 232),
    "black": (40, 40, 46),
    "pink": (226, 132, 166),
    "gray": (128, 132, 138),
}
BACKGROUNDS: dict[str, Colour] = {
    "blue": (164, 196, 226),
    "green": (172, 208, 176),
    "beige": (226, 212, 186),
    "gray": (196, 198, 202),
    "pink": (236, 206, 212),
    "yellow": (240, 230, 178),
}
SKINS: dict[str, Colour] = {"fair": (244, 210, 184), "tan": (214, 162, 120), "dark": (128, 84, 58)}
HAIRS: dict[str, Colour] = {
    "black": (36, 30, 30),
    "brown": (98, 62, 38),
    "blonde": (222, 186, 104),
    "red": (166, 74, 36),
    "gray": (160, 160, 162),
}
LENGTHS = ("short", "long")
# angles of upper arm and forearm in degrees, left and right in the picture: 0 = down, 90 = outward, 180 = up
POSES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "arms down": ((14, 6), (14, 6)),
    "waving": ((14, 6), (66, 158)),
    "arms raised": ((132, 166), (132, 166)),
    "arms out": ((72, 92), (72, 92)),
    "hands on hips": ((48, -52), (48, -52)),
    "hands up": ((52, 156), (52, 156)),
}
_FINGERS = ((-44.0, 0.74), (-17.0, 0.98), (0.0, 1.06), (17.0, 0.98), (58.0, 0.70))  # degrees, length; the last: thumb
_OVERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """What one picture shows; the caption is made from it. Lengths are fractions of the picture's side."""

    skin: str
    hair: str
    hair_length: str
    shirt: str
    trousers: str
    background: str
    pose: str
    smiling: bool
    long_sleeves: bool
    centre: float
    head_top: float
    head_height: float
    jitter: tuple[float, float, float, float]

    @property
    def caption(self) -> str:
        """One sentence about the person and the background."""
        sleeves = "long-sleeved " if self.long_sleeves else ""
        smile = ", smiling" if self.smiling else ""
        return (
            f"a person with {self.skin} skin and {self.hair_length} {self.hair} hair in a {self.shirt} {sleeves}shirt "
            f"and {self.trousers} pants, {self.pose}{smile}, plain {self.background} background"
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with its boxes (x0, y0, x1, y1) in pixels."""

    image: Image.Image
    figure: Figure
    face: tuple[float, float, float, float]
    hands: tuple[tuple[float, float, float, float], ...]


def random_figure(seed: int, number: int) -> Figure:
    """Draw what the `number`-th picture of `seed` shows; colours differ from what is behind them."""
    generator = np.random.default_rng((seed, number))

    def choose(names: list[str]) -> str:
        return names[int(generator.integers(len(names)))]

    background = choose(list(BACKGROUNDS))
    shirt = choose([name for name in COLOURS if name != background])
    return Figure(
        skin=choose(list(SKINS)),
        hair=choose(list(HAIRS)),
        hair_length=choose(list(LENGTHS)),
        shirt=shirt,
        trousers=choose([name for name in ("blue", "black", "gray", "green", "white") if name != shirt]),
        background=background,
        pose=choose(list(POSES)),
        smiling=bool(generator.random() < 0.5),
        long_sleeves=bool(generator.random() < 0.5),
        centre=float(generator.uniform(0.46, 0.54)),
        head_top=float(generator.uniform(0.13, 0.19)),
        head_height=float(generator.uniform(0.19, 0.23)),
        jitter=tuple(float(angle) for angle in generator.uniform(-7, 7, 4)),
    )


def draw_figure(figure: Figure, size: int) -> Drawing:
    """Draw a figure in a square of `size` pixels, four times larger first so that edges are smooth."""
    pen = _Pen(figure, size)
    pen.back_hair()
    pen.body()
    hands = tuple(pen.arm(side) for side in (-1, 1))
    face = pen.head()
    return Drawing(pen.canvas.resize((size, size), Image.Resampling.BOX), figure, face, hands)


def write_figures(folder: Path, count: int, size: int = 128, seed: int = 0) -> None:
    """Write `count` figures as a Hugging Face imagefolder: `images/*.png` and `metadata.jsonl`.

    A line of the metadata has file_name, width, height, caption, faces and hands (boxes [x0, y0, x1, y1] in pixels).
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        drawing = draw_figure(random_figure(seed, number), size)
        name = f"images/{number:05d}.png"
        drawing.image.save(folder / name)
        row = {
            "file_name": name,
            "width": size,
            "height": size,
            "caption": drawing.figure.caption,
            "faces": [drawing.face],
            "hands": drawing.hands,
        }
        lines.append(json.dumps(row))
    partial = folder / ".metadata.jsonl.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(folder / "metadata.jsonl")
