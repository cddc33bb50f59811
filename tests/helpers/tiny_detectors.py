"""Detectors whose answer is written in the first pixels, made for processes; some misbehave on a marked picture."""

import os
import signal
import time
from types import TracebackType
from typing import Self

import numpy as np

from fairhuman.detect.detection import Detection, Picture
from fairhuman.record import Box

CRASH, HANG, RAISE = 253, 254, 255  # first pixel, red


def picture(*scores: int, mark: int = 0, side: int = 300) -> Picture:
    """A picture whose detections have these scores in per cent, one every 10 px from (10, 10) on to the right."""
    image = np.zeros((side, side, 3), dtype=np.uint8)
    image[0, 0, 0] = mark
    image[0, 0, 1] = len(scores)
    image[0, 1 : 1 + len(scores), 0] = scores
    return image


class Written:
    """Gives what `picture` has written, as 4 px boxes; closes nothing."""

    def detect(self, image: Picture) -> list[Detection]:
        count = int(image[0, 0, 1])
        return [
            Detection(Box(8 + 10 * i, 8, 12 + 10 * i, 12, int(image[0, 1 + i, 0]) / 100), "spot") for i in range(count)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Fragile(Written):
    """Dies as native code does, hangs or raises on a marked picture."""

    def detect(self, image: Picture) -> list[Detection]:
        mark = int(image[0, 0, 0])
        if mark == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if mark == HANG:
            time.sleep(600)
        if mark == RAISE:
            raise RuntimeError("spoiled")
        return super().detect(image)


class Quadrant(Written):
    """Finds the brightest pixel of a picture: tells whether, and how, pictures were enlarged."""

    def detect(self, image: Picture) -> list[Detection]:
        height, width = image.shape[:2]
        y, x = np.unravel_index(int(image[..., 0].argmax()), (height, width))
        points = np.array([[x + 0.5, y + 0.5, width]], dtype=np.float32)
        return [Detection(Box(float(x), float(y), float(x) + 1, float(y) + 1, 0.5), f"{width}x{height}", points)]


class WontStart(Written):
    """Can't be made."""

    def __init__(self) -> None:
        raise OSError("no model here")


class DiesAtStart(Written):
    """Ends its process when it is made."""

    def __init__(self) -> None:
        os._exit(7)
