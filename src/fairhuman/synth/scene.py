"""Camera, light and background of a synthetic picture."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fairhuman.synth.body import Array
from fairhuman.synth.person import Colour

BACKGROUNDS: Mapping[str, Colour] = {
    "white": (0.85, 0.85, 0.83),
    "blue": (0.35, 0.50, 0.70),
    "green": (0.40, 0.55, 0.40),
    "brown": (0.55, 0.45, 0.35),
    "gray": (0.50, 0.50, 0.50),
    "beige": (0.70, 0.60, 0.45),
    "dark": (0.15, 0.15, 0.18),
    "rose": (0.65, 0.45, 0.45),
}
_KINDS: Mapping[str, str] = {
    "plain": "plain {} background",
    "gradient": "{} gradient background",
    "textured": "textured {} background",
    "room": "{} room",
}


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera at `eye`, with unit axes `right`, `up`, `forward` (world, metres) and a square field of view.

    `half_width` is the tangent of half the angle of view.
    """

    eye: Array
    right: Array
    up: Array
    forward: Array
    half_width: float

    def rays(self, size: int) -> Array:
        """Return unit directions [size², 3] through the centres of a picture's pixels, row by row."""
        centres = ((np.arange(size) + 0.5) / size * 2 - 1) * self.half_width
        x, y = np.meshgrid(centres, -centres)
        directions = self.forward + x[..., None] * self.right + y[..., None] * self.up
        return np.asarray((directions / np.linalg.norm(directions, axis=-1, keepdims=True)).reshape(-1, 3))

    def project(self, points: Array, size: int) -> tuple[Array, Array]:
        """Return pixel positions [N, 2] (x right, y down, 0 at the outer edge) and depths [N] in metres of points."""
        relative = points - self.eye
        depth = relative @ self.forward
        plane = np.stack([relative @ self.right, -(relative @ self.up)], axis=1) / depth[:, None]
        return (plane / self.half_width + 1) / 2 * size, depth


@dataclass(frozen=True, slots=True)
class Light:
    """A distant light: unit direction to it, and its colour [3] times its strength."""

    direction: Array
    colour: Array


def half_body_camera(head: Array, hands: Array, generator: np.random.Generator) -> Camera:
    """Frame the head [N, 3] and the points of the hands [M, 3] that aren't far below it."""
    right, up, forward = _axes(generator)
    middle = head.mean(0)
    points = np.concatenate([head, hands[hands[:, 2] > middle[2] - 0.62]])
    x, y = points @ right, points @ up
    half = float(np.clip(max(np.ptp(x), np.ptp(y)) / 2 * 1.12 + 0.01, 0.26, 0.46))
    centre = np.array([x.min() + x.max(), y.min() + y.max()]) / 2
    # The head stays in the picture, with a margin.
    for axis, at, margin in ((0, middle @ right, 0.14), (1, middle @ up, 0.17)):
        centre[axis] = np.clip(centre[axis], at - half + margin, at + half - margin)
    centre += generator.normal(0, 0.015, 2)
    distance = generator.uniform(1.6, 2.6)
    target = right * centre[0] + up * centre[1] + forward * (middle @ forward)
    return Camera(target - forward * distance, right, up, forward, half / distance)


def full_body_camera(body: Array, generator: np.random.Generator) -> Camera:
    """Frame the whole body [N, 3] with a margin."""
    right, up, forward = _axes(generator)
    x, y = body @ right, body @ up
    half = float(max(np.ptp(x), np.ptp(y))) / 2 * generator.uniform(1.06, 1.14)
    centre = np.array([x.min() + x.max(), y.min() + y.max()]) / 2 + generator.normal(0, 0.02, 2)
    distance = generator.uniform(3.2, 4.8)
    target = right * centre[0] + up * centre[1] + forward * (body.mean(0) @ forward)
    return Camera(target - forward * distance, right, up, forward, half / distance)


def _axes(generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draw a direction of view, up to 22° to either side of the front, 10° from above and 8° from below.

    Returns right, up and forward.
    """
    yaw, pitch = np.radians(generator.uniform(-22, 22)), np.radians(generator.uniform(-8, 10))
    forward = np.array([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    return right, np.cross(right, forward), forward


def random_light(camera: Camera, generator: np.random.Generator) -> Light:
    """Draw a light in front of the person, from the side and from above."""
    side, height = np.radians(generator.uniform(-70, 70)), np.radians(generator.uniform(15, 60))
    direction = (
        camera.right * np.sin(side) * np.cos(height)
        - camera.forward * np.cos(side) * np.cos(height)
        + camera.up * np.sin(height)
    )
    colour = generator.uniform(0.5, 0.8) * (1 + generator.normal(0, 0.04, 3))
    return Light(direction, colour.astype(np.float32))


def draw_background(size: int, generator: np.random.Generator) -> tuple[Array, str]:
    """Return a background [size, size, 3] in [0, 1] and its description; the draw doesn't depend on the size."""
    kind = ("plain", "gradient", "textured", "room")[generator.choice(4, p=[0.3, 0.25, 0.2, 0.25])]
    names = list(BACKGROUNDS)
    name = names[generator.integers(len(names))]
    colour = np.array(BACKGROUNDS[name]) * generator.uniform(0.85, 1.1)
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = colour
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    if kind == "gradient":
        angle, strength = generator.uniform(0, 2 * np.pi), generator.uniform(0.3, 0.7)
        picture *= 1 + (((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)) * strength)[..., None]
    elif kind == "textured":
        cells = int(generator.integers(4, 12))
        coarse = Image.fromarray(generator.normal(0, 0.1, (cells, cells)).astype(np.float32))
        picture *= 1 + np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))[..., None]
    elif kind == "room":
        _furnish(picture, x, y, generator)
    return np.clip(picture, 0, 1), _KINDS[kind].format(name)


def _furnish(picture: Array, x: Array, y: Array, generator: np.random.Generator) -> None:
    """Paint a lower wall of another colour with a rail, and a window or a framed picture, into `picture`."""
    colours = list(BACKGROUNDS.values())
    rail = generator.uniform(0.55, 0.85)
    picture[y > rail] = np.array(colours[generator.integers(len(colours))]) * 0.8
    picture[np.abs(y - rail) < 0.008] = 0.9
    left, top = generator.uniform(-0.1, 0.8), generator.uniform(0.02, 0.15)
    width, height = generator.uniform(0.18, 0.4), generator.uniform(0.2, 0.35)
    window = generator.random() < 0.6
    pane = (
        np.array([0.75, 0.82, 0.90]) * generator.uniform(0.6, 1.1)
        if window
        else np.array(generator.uniform(0.2, 0.8, 3))
    )
    outer = (x > left) & (x < left + width) & (y > top) & (y < top + height)
    border = 0.015
    inner = (x > left + border) & (x < left + width - border) & (y > top + border) & (y < top + height - border)
    picture[outer] = 0.92 if window else 0.25
    picture[inner] = pane
    if window:
        bars = (np.abs(x - left - width / 2) < border / 2) | (np.abs(y - top - height / 2) < border / 2)
        picture[inner & bars] = 0.92
