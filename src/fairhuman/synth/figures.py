"""Simple drawn people with exact boxes for face and hands: training data that needs no download.

Not photographs and not meant to be: a head with eyes and mouth, coloured clothes, arms in some poses, hands with five
fingers, a plain background. Everything follows from (seed, number), so the n-th figure is the same in every order.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fairhuman.files import write_text

Point = tuple[float, float]
Box = tuple[float, float, float, float]
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
    "blue": (128, 168, 210),
    "green": (136, 182, 142),
    "teal": (96, 158, 158),
    "gray": (158, 160, 166),
    "purple": (166, 148, 198),
    "white": (248, 248, 246),
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
    "arms down": ((16, 8), (16, 8)),
    "waving": ((16, 8), (62, 160)),
    "arms raised": ((134, 166), (134, 166)),
    "arms out": ((32, 118), (32, 118)),
    "hands on hips": ((52, -44), (52, -44)),
    "hands up": ((46, 158), (46, 158)),
}
# Degrees from the forearm's direction (positive = towards the body), length in palm widths; last the thumb.
FINGERS = ((-30.0, 1.22), (-10.0, 1.42), (10.0, 1.46), (30.0, 1.28), (72.0, 1.12))
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
            f"a person with {self.skin} skin and {self.hair_length} {self.hair} hair in a {self.shirt} "
            f"{sleeves}shirt and {self.trousers} pants, {self.pose}{smile}, plain {self.background} background"
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with its boxes (x0, y0, x1, y1) in pixels."""

    image: Image.Image
    figure: Figure
    face: Box
    hands: tuple[Box, ...]


def random_figure(seed: int, number: int) -> Figure:
    """Draw what the `number`-th picture of `seed` shows; colours differ from what is behind them."""
    generator = np.random.default_rng((seed, number))

    def choose(names: list[str]) -> str:
        return names[int(generator.integers(len(names)))]

    def turn() -> float:
        return float(generator.uniform(-6, 6))

    background = choose(list(BACKGROUNDS))
    shirt = choose([name for name in COLOURS if name != background])
    return Figure(
        skin=choose(list(SKINS)),
        hair=choose([name for name in HAIRS if name != background]),
        hair_length=choose(list(LENGTHS)),
        shirt=shirt,
        trousers=choose([name for name in ("blue", "black", "gray", "green", "white") if name != shirt]),
        background=background,
        pose=choose(list(POSES)),
        smiling=bool(generator.random() < 0.5),
        long_sleeves=bool(generator.random() < 0.5),
        centre=float(generator.uniform(0.48, 0.52)),
        head_top=float(generator.uniform(0.13, 0.17)),
        head_height=float(generator.uniform(0.185, 0.215)),
        jitter=(turn(), turn(), turn(), turn()),
    )


def draw_figure(figure: Figure, size: int) -> Drawing:
    """Draw a figure in a square of `size` pixels, four times larger first so that edges are smooth."""
    pen = _Pen(figure, size)
    pen.hair_behind()
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
    write_text(folder / "metadata.jsonl", "\n".join(lines) + "\n")


class _Pen:
    """Draws one figure on an oversampled canvas; the unit is the height of the head."""

    def __init__(self, figure: Figure, size: int) -> None:
        self.figure = figure
        self.scale = size * _OVERSAMPLING
        self.unit = figure.head_height * self.scale
        self.centre = figure.centre * self.scale
        self.crown = figure.head_top * self.scale
        self.skin = SKINS[figure.skin]
        self.canvas = Image.new("RGB", (self.scale, self.scale), BACKGROUNDS[figure.background])
        self.draw = ImageDraw.Draw(self.canvas)

    def at(self, x: float, y: float) -> Point:
        """Return the canvas point x heads right of the middle and y heads below the crown."""
        return self.centre + x * self.unit, self.crown + y * self.unit

    def oval(self, x: float, y: float, half_width: float, half_height: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        self.draw.ellipse(
            [*self.at(x - half_width, y - half_height), *self.at(x + half_width, y + half_height)], colour
        )

    def shape(self, points: list[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([self.at(x, y) for x, y in points], colour)

    def hair_behind(self) -> None:
        """Draw what falls behind neck and shoulders."""
        if self.figure.hair_length == "long":
            colour = HAIRS[self.figure.hair]
            self.oval(0, 0.5, 0.48, 0.56, colour)
            self.shape([(-0.48, 0.5), (0.48, 0.5), (0.54, 1.5), (-0.54, 1.5)], colour)

    def body(self) -> None:
        """Draw trousers, neck and shirt."""
        trousers, shirt = COLOURS[self.figure.trousers], COLOURS[self.figure.shirt]
        bottom = (self.scale - self.crown) / self.unit + 0.1
        self.shape([(-0.6, 3.1), (0.6, 3.1), (0.66, bottom), (-0.66, bottom)], trousers)
        self.shape([(-0.02, 3.7), (0.02, 3.7), (0.04, bottom), (-0.04, bottom)], _shade(trousers, 0.75))
        self.shape(
            [
                (-0.5, 1.2),
                (0.5, 1.2),
                (0.8, 1.32),
                (0.64, 2.0),
                (0.62, 3.25),
                (-0.62, 3.25),
                (-0.64, 2.0),
                (-0.8, 1.32),
            ],
            shirt,
        )
        self.shape([(-0.17, 0.8), (0.17, 0.8), (0.2, 1.24), (-0.2, 1.24)], _shade(self.skin, 0.88))
        self.oval(0, 1.22, 0.24, 0.13, _shade(self.skin, 0.88))

    def arm(self, side: int) -> Box:
        """Draw the arm on one side (-1: left in the picture) with its hand, and return the hand's box."""
        pose = POSES[self.figure.pose][0 if side < 0 else 1]
        jitter = self.figure.jitter[:2] if side < 0 else self.figure.jitter[2:]
        upper, lower = (math.radians(angle + extra) for angle, extra in zip(pose, jitter, strict=True))
        shoulder = (0.68 * side, 1.42)
        elbow = _along(shoulder, upper, 0.85, side)
        wrist = _along(elbow, lower, 0.72, side)
        shirt = COLOURS[self.figure.shirt]
        sleeve = _shade(shirt, 0.86)
        self.limb(elbow, wrist, 0.13, sleeve if self.figure.long_sleeves else self.skin)
        cuff = elbow if self.figure.long_sleeves else _along(shoulder, upper, 0.6, side)
        self.limb(shoulder, elbow, 0.14, self.skin)
        self.limb(shoulder, cuff, 0.19, sleeve)
        return self.hand(wrist, lower, side)

    def limb(self, start: Point, end: Point, half_width: float, colour: Colour) -> None:
        """Draw a thick line with round ends."""
        _limb(self.draw, self.at(*start), self.at(*end), half_width * self.unit, colour)

    def hand(self, wrist: Point, direction: float, side: int) -> Box:
        """Draw palm and five fingers; the box is that of the painted pixels."""
        mask = Image.new("L", self.canvas.size)
        pen = ImageDraw.Draw(mask)
        palm = _along(wrist, direction, 0.15, side)
        _limb(pen, self.at(*_along(wrist, direction, 0.1, side)), self.at(*palm), 0.165 * self.unit, 255)
        for angle, length in FINGERS:
            turned = direction - math.radians(angle)
            root, tip = (_along(palm, turned, reach, side) for reach in (0.08, 0.33 * length))
            _limb(pen, self.at(*root), self.at(*tip), 0.052 * self.unit, 255)
        self.canvas.paste(self.skin, mask=mask)
        return _bounds(mask)

    def head(self) -> Box:
        """Draw the head; the box is that of the skin from the hairline to the chin, without ears."""
        hair, skin, dark = HAIRS[self.figure.hair], self.skin, (44, 34, 34)
        for side in (-1, 1):
            self.oval(0.4 * side, 0.54, 0.06, 0.1, _shade(skin, 0.9))
        mask = Image.new("L", self.canvas.size)
        pen = ImageDraw.Draw(mask)
        pen.ellipse([*self.at(-0.38, 0.0), *self.at(0.38, 1.0)], 255)
        self.canvas.paste(skin, mask=mask)
        cap = [*self.at(-0.44, -0.07), *self.at(0.44, 0.8)]
        hairline = [*self.at(-0.36, 0.24), *self.at(0.36, 1.2)]
        fringe = Image.new("L", self.canvas.size)
        ImageDraw.Draw(fringe).pieslice(cap, 180, 360, 255)
        ImageDraw.Draw(fringe).ellipse(hairline, 0)
        self.canvas.paste(hair, mask=fringe)
        mask.paste(0, mask=fringe)
        for side in (-1, 1):
            if self.figure.hair_length == "long":
                self.limb((0.4 * side, 0.36), (0.43 * side, 0.95), 0.06, hair)
            self.oval(0.15 * side, 0.5, 0.075, 0.045, (250, 250, 250))
            self.oval(0.15 * side, 0.5, 0.035, 0.042, dark)
            self.limb((0.08 * side, 0.395), (0.22 * side, 0.385), 0.016, _shade(hair, 0.7))
        self.limb((0.0, 0.55), (0.02, 0.66), 0.016, _shade(skin, 0.78))
        lips = _mix(skin, (190, 56, 64), 0.65)
        if self.figure.smiling:
            self.draw.chord([*self.at(-0.15, 0.66), *self.at(0.15, 0.86)], 0, 180, lips)
            self.draw.chord([*self.at(-0.11, 0.72), *self.at(0.11, 0.8)], 0, 180, (250, 250, 250))
        else:
            self.oval(0, 0.785, 0.12, 0.03, lips)
        return _bounds(mask)


def _along(start: Point, angle: float, length: float, side: int) -> Point:
    """Walk from `start`: angle 0 is down, a right angle is away from the body."""
    return start[0] + side * math.sin(angle) * length, start[1] + math.cos(angle) * length


def _limb(pen: ImageDraw.ImageDraw, start: Point, end: Point, half_width: float, fill: Colour | int) -> None:
    across = math.atan2(end[1] - start[1], end[0] - start[0]) + math.pi / 2
    x, y = math.cos(across) * half_width, math.sin(across) * half_width
    pen.polygon(
        [
            (start[0] + x, start[1] + y),
            (end[0] + x, end[1] + y),
            (end[0] - x, end[1] - y),
            (start[0] - x, start[1] - y),
        ],
        fill,
    )
    for px, py in (start, end):
        pen.ellipse([px - half_width, py - half_width, px + half_width, py + half_width], fill)


def _bounds(mask: Image.Image) -> Box:
    """Return the box of the painted pixels, in pixels of the picture (a quarter of the canvas')."""
    found = mask.getbbox()
    assert found is not None
    x0, y0, x1, y1 = (value / _OVERSAMPLING for value in found)
    return x0, y0, x1, y1


def _shade(colour: Colour, factor: float) -> Colour:
    return _mix((0, 0, 0), colour, factor)


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
