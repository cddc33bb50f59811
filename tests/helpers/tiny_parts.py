"""Faces and hands that are checkerboards: how much of the board is there is their quality, and anybody can draw one."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fairhuman.detect.detection import Picture
from fairhuman.record import Box
from fairhuman.refine.parts import BodyPart, PictureParts
from fairhuman.refine.settings import PartKind

CONTRAST = 100


def board(height: int, width: int) -> NDArray[np.float64]:
    """1 and -1 in fields of 4 pixels."""
    y, x = np.indices((height, width)) // 4
    return np.where((x + y) % 2, 1.0, -1.0)


def boards(height: int, width: int, strengths: Mapping[tuple[int, int, int, int], float]) -> Picture:
    """A grey picture, RGB, with a board of a strength, 0..1, in each box."""
    grey_hw = np.full((height, width), 128.0)
    pattern = board(height, width)
    for (x0, y0, x1, y1), strength in strengths.items():
        grey_hw[y0:y1, x0:x1] += CONTRAST * strength * pattern[y0:y1, x0:x1]
    return np.repeat(grey_hw.round().astype(np.uint8)[..., None], 3, axis=2)


class BoardLook:
    """Finds the boxes it was given; quality is the strength of the board there, 0 and not found below 0.1."""

    def __init__(self, boxes: Sequence[tuple[PartKind, Box]]) -> None:
        self.boxes, self.calls = boxes, 0

    def __call__(self, picture: Picture) -> PictureParts:
        self.calls += 1
        pattern = board(*picture.shape[:2])
        parts = []
        for kind, box in self.boxes:
            where = slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1))
            values = picture[where].mean(axis=2) - 128.0
            strength = float(np.clip((values * pattern[where]).mean() / CONTRAST, 0, 1))
            parts.append(BodyPart(kind, box, strength if strength > 0.1 else 0.0, kind, measured=strength > 0.1))
        return PictureParts(tuple(parts))


class _Painter:
    grid, least = 8, 32
    follows: tuple[str, ...] = ()


class ContrastPainter(_Painter):
    """Multiplies the contrast by the given factors in turn: above 1 a weak board becomes a better one."""

    def __init__(self, *factors: float) -> None:
        self.factors = factors
        self.prompts: list[str] = []

    def __call__(
        self,
        crop: Image.Image,
        mask: Image.Image,
        prompt: str,
        conditions: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Image.Image:
        """The whole crop, whatever the mask."""
        factor = self.factors[len(self.prompts) % len(self.factors)]
        self.prompts.append(prompt)
        values_hwc = 128 + factor * (np.asarray(crop).astype(np.float64) - 128)
        return Image.fromarray(values_hwc.round().clip(0, 255).astype(np.uint8))


class NoisePainter(_Painter):
    """Draws noise from the generator that it is given."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        crop: Image.Image,
        mask: Image.Image,
        prompt: str,
        conditions: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Image.Image:
        """Every pixel of the crop."""
        self.calls += 1
        noise = torch.randint(0, 256, (crop.height, crop.width, 3), generator=generator)
        return Image.fromarray(noise.byte().numpy())
