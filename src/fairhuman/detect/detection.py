"""What a detector takes and gives: a picture, and the things found in it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fairhuman.errors import FairHumanError
from fairhuman.record import Box

Picture = NDArray[np.uint8]

# Each label of a detection, and the part that it is one of.
PARTS: Mapping[str, str] = {
    "face": "face",
    "hand": "hand",
    "left hand": "hand",
    "right hand": "hand",
    "person": "person",
}


class DetectorError(FairHumanError):
    """A detector can't be loaded, or didn't come back from a picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One thing found in a picture.

    Attributes:
        box: within the picture, in its pixels, with the detector's score in 0..1. What the score means is said by
            the detector.
        label: `face`, `left hand`, `right hand`, `hand` (which one isn't known), `person`.
        landmarks_n3: key points x, y, z in pixels of the picture, float32; they may lie outside of it. z grows away
            from the camera and is 0 where the detector doesn't know it.
        visibility_n: of each key point, 0..1, float32; None where the detector doesn't know it.
        votes: how many looks at the picture found it; None for a detector that looks once.
        source: name and version of the detector.

    """

    box: Box
    label: str
    landmarks_n3: NDArray[np.float32] | None = None
    visibility_n: NDArray[np.float32] | None = None
    votes: int | None = None
    source: str = ""

    @property
    def score(self) -> float:
        """Score of the box; a detector always gives one."""
        if self.box.score is None:
            raise ValueError(f"box of a detection must have a score, got {self.box}")
        return self.box.score

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box, x and y in pixels."""
        return (self.box.x0 + self.box.x1) / 2, (self.box.y0 + self.box.y1) / 2


class Detector(Protocol):
    """Finds one kind of thing. To be used in a `with` block, which frees its native parts at the end."""

    def detect(self, image: Picture) -> list[Detection]:
        """All that is found in an upright RGB picture [H, W, 3], uint8.

        Raises:
            ValueError: if the picture has another type or shape.

        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closing(ABC):
    """What is closed at the end of its `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Free what is native; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_picture(image: object) -> Picture:
    """The picture, contiguous in memory as native code wants it.

    Raises:
        ValueError: if it isn't a numpy array [H, W, 3] of uint8 with H, W ≥ 1.

    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a numpy array, not {type(image).__name__}")  # noqa: TRY004 one error for all
    if image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (0..255), not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have the shape [height, width, 3] and a pixel at least, not {list(image.shape)}")
    return np.ascontiguousarray(image)


def clipped_box(x0: float, y0: float, x1: float, y1: float, score: float, image: Picture) -> Box | None:
    """The part of a box that lies in the picture; None if there is none."""
    height, width = image.shape[:2]
    box = Box(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)), score)
    return box if box.x0 < box.x1 and box.y0 < box.y1 else None


def box_around(points_n3: NDArray[np.float32], score: float, image: Picture) -> Box | None:
    """The tightest box around key points, within the picture; None if no part of it is."""
    (x0, y0), (x1, y1) = points_n3[:, :2].min(axis=0), points_n3[:, :2].max(axis=0)
    return clipped_box(float(x0), float(y0), float(x1), float(y1), score, image)


def in_any(point: tuple[float, float], boxes: Iterable[Box]) -> bool:
    """Whether a point lies in one of the boxes; the edge counts."""
    x, y = point
    return any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for box in boxes)
