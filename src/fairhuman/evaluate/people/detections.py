"""Detected faces and hands, from which confidences are computed.

Detectors run in static mode: detections in a picture depend on that picture only. Faces come from MediaPipe's
full-range model, hands from the vote of five detector passes (`fairhuman.detect.hand_vote`); then a landmark model
examines each part several times (`fairhuman.evaluate.people.looks`).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from fairhuman.detect.detection import Detection, Detector, Picture, check_picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.guard import guarded_results
from fairhuman.detect.hand_vote import HandVote
from fairhuman.detect.region import Region
from fairhuman.detect.scale import enlarge, scale_back
from fairhuman.evaluate.people.looks import (
    FaceLandmarks,
    HandLandmarks,
    LandmarkModel,
    face_region,
    hand_region,
    landmarks_of,
)
from fairhuman.record import Box

DECIMALS = 3  # precision of stored pixel coordinates and presence scores


@dataclass(frozen=True, slots=True)
class PartDetection:
    """One detected face or hand.

    Attributes:
        box: box in pixels with the detector's score: for a face the detection score, for a hand MediaPipe's handedness
            score (0 if only the pass over the body found it).
        label: `face`, `left hand` or `right hand`.
        points: x, y, z in pixels of 6 face or 21 hand landmarks.
        size: side in pixels of the square region given to the landmark model, about 1.5 faces or 2 hands wide.
        presence: the landmark model's presence score, 0..1, in each look of `looks.LOOKS`.
        looks: x and y in pixels of the landmarks in each look: `looks.FACE_POINTS` of a face, 21 of a hand.
        votes: number of detector passes that found the hand, 2..5; None for a face.
    """

    box: Box
    label: str
    points: tuple[tuple[float, float, float], ...]
    size: float
    presence: tuple[float, ...]
    looks: tuple[tuple[tuple[float, float], ...], ...]
    votes: int | None = None


@dataclass(frozen=True, slots=True)
class ImageDetections:
    """Faces and hands of one picture, best first."""

    faces: tuple[PartDetection, ...] = ()
    hands: tuple[PartDetection, ...] = ()


PartDetector = Callable[[Picture], tuple[PartDetection, ...]]


def detect_each(
    pictures: Sequence[Picture], *, upscale: int = 4, workers: int = 1, seconds: float = 120.0
) -> Generator[tuple[int, ImageDetections], None, None]:
    """Yield (index, faces and hands) of each picture as it finishes, in pixels of the original picture.

    Pictures are accessed one by one, so `pictures` may decode lazily. The result doesn't depend on `workers`.

    Args:
        pictures: upright RGB pictures [H, W, 3], uint8.
        upscale: enlargement (Lanczos) of pictures of up to 256 px on the longer side before detection; 1 = none.
        workers: number of processes, each with its own models (about 450 MB).
        seconds: time limit per picture.

    Raises:
        ValueError: `upscale`, `workers` or `seconds` is out of range.
        DetectorError: models can't be loaded, or a picture is invalid, crashes them or exceeds the time limit.
    """
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, not {upscale}")
    return guarded_results(partial(_finder, upscale), pictures, workers=workers, seconds=seconds)


@contextmanager
def face_detector(upscale: int = 4) -> Iterator[PartDetector]:
    """A function that detects the faces of a picture, in this process."""
    with FaceDetector() as detector, FaceLandmarks() as model:
        yield partial(_parts, detector, model, face_region, upscale)


@contextmanager
def hand_detector(upscale: int = 4) -> Iterator[PartDetector]:
    """A function that detects the hands of a picture, in this process."""
    with HandVote() as detector, HandLandmarks() as model:
        yield partial(_parts, detector, model, hand_region, upscale)


@contextmanager
def _finder(upscale: int) -> Iterator[Callable[[Picture], ImageDetections]]:
    with face_detector(upscale) as faces, hand_detector(upscale) as hands:
        yield lambda picture: ImageDetections(faces(picture), hands(picture))


def _parts(
    detector: Detector, model: LandmarkModel, region_of: Callable[[Detection], Region], upscale: int, picture: Picture
) -> tuple[PartDetection, ...]:
    image, factor = enlarge(check_picture(picture), upscale)
    parts = []
    for found in detector.detect(image):
        region = region_of(found)
        presence_l, looks_lnd = model.look(image, region)
        smaller = scale_back(found, factor)
        parts.append(
            PartDetection(
                box=smaller.box,
                label=smaller.label,
                points=tuple((x, y, z) for x, y, z in landmarks_of(smaller).round(DECIMALS).tolist()),
                size=round(region.side / factor, DECIMALS),
                presence=tuple(presence_l.round(DECIMALS).tolist()),
                looks=tuple(
                    tuple((x, y) for x, y in points_nd) for points_nd in (looks_lnd / factor).round(DECIMALS).tolist()
                ),
                votes=smaller.votes,
            )
        )
    return tuple(parts)
