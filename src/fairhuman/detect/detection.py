"""The interface of detectors: a picture in, detections out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fairhuman.errors import FairHumanError
from fairhuman.record import Box
from fairhuman.utils.closing import Closing as Closing

Picture = NDArray[np.uint8]

# Label of a detection to the part it belongs to.
PARTS: Mapping[str, str] = {
    "face": "face",
    "hand": "hand",
    "left hand": "hand",
    "right hand": "hand",
    "person": "person",
}


class DetectorError(FairHumanError):
    """A detector can't be loaded, or failed on a picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One detected object.

    Attributes:
        box: within the picture, in its pixels, with the detector's score in 0..1. Each detector documents the meaning
            of its score.
        label: `face`, `left hand`, `right hand`, `hand` (side unknown), `person`.
        landmarks_n3: key points x, y, z in pixels of the picture, float32; they may lie outside it. z grows away
            from the camera and is 0 if the detector doesn't estimate it.
        visibility_n: visibility of each key point, 0..1, float32; None if the detector doesn't estimate it.
        votes: number of detection passes that found the object; None for a detector with a single pass.
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
        """Score of the box."""
        if self.box.score is None:
            raise ValueError(f"the box of a detection must have a score, not {self.box}")
        return self.box.score

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box, x and y in pixels."""
        return (self.box.x0 + self.box.x1) / 2, (self.box.y0 + self.box.y1) / 2


class Detector(Protocol):
    """A detector. Use it in a `with` block, which frees native resources at the end."""

    def detect(self, image: Picture) -> list[Detection]:
        """Detect objects in an upright RGB picture [H, W, 3], uint8.

        Raises:
            ValueError: the picture has another type or shape, or the detector is closed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LazyPictures(Sequence[Picture]):
    """Pictures that `open_picture` makes of items on access."""

    def __init__(self, items: Sequence[Any], open_picture: Callable[[Any], Picture]) -> None:
        self._items, self._open = items, open_picture

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:  # slices are never used
        return self._open(self._items[index])


def check_picture(image: object) -> Picture:
    """Validate a picture and make it contiguous, as native code requires.

    Raises:
        ValueError: the picture isn't a numpy array [H, W, 3] of uint8 with H, W ≥ 1.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a numpy array, not {type(image).__name__}")  # noqa: TRY004 one error for all
    if image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (0..255), not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have the shape [height, width, 3], not empty, but has {list(image.shape)}")
    return np.ascontiguousarray(image)


def clipped_box(x0: float, y0: float, x1: float, y1: float, score: float, image: Picture) -> Box | None:
    """Clip a box to the picture; None if nothing is left."""
    height, width = image.shape[:2]
    box = Box(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)), score)
    return box if box.x0 < box.x1 and box.y0 < box.y1 else None


def box_around(points_n3: NDArray[np.float32], score: float, image: Picture) -> Box | None:
    """The tightest box around key points, clipped to the picture; None if nothing is left."""
    (x0, y0), (x1, y1) = points_n3[:, :2].min(axis=0), points_n3[:, :2].max(axis=0)
    return clipped_box(float(x0), float(y0), float(x1), float(y1), score, image)


def inside_any(point: tuple[float, float], boxes: Iterable[Box]) -> bool:
    """Whether a point lies in any of the boxes, edges included."""
    x, y = point
    return any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for box in boxes)
