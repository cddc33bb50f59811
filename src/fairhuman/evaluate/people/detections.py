"""What confidences are computed from: faces and hands of pictures, looked for once, kept as plain numbers.

Static mode: what is found in a picture depends on that picture alone. Faces are those of MediaPipe's full-range
model, hands those of the vote of five looks (`fairhuman.detect.hand_vote`); a landmark model then looks at each one
several times (`fairhuman.evaluate.people.looks`). `FINDINGS` reads and writes them as JSON:
`FINDINGS.dump_json(findings)`, `FINDINGS.validate_json(text)`.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter

from fairhuman.detect.detection import Detection, Detector, Picture, check_picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.guard import guarded_results, in_order
from fairhuman.detect.hand_vote import HandVote
from fairhuman.detect.scale import enlarge, scale_back
from fairhuman.evaluate.people.looks import (
    FaceLandmarks,
    HandLandmarks,
    LandmarkModel,
    Region,
    face_region,
    hand_region,
    landmarks_of,
)
from fairhuman.record import Box

DECIMALS = 3  # of pixels and presences


@dataclass(frozen=True, slots=True)
class PartDetection:
    """One face or hand.

    Attributes:
        box: in pixels of the picture, with the detector's score: of a face, that it is one; of a hand, MediaPipe's
            handedness score, 0 where only Holistic found it.
        label: `face`, `left hand`, `right hand`.
        points: x, y, z in pixels: 6 of a face, 21 of a hand.
        size: side of the square region that the landmark model looked at, in pixels; about 1.5 faces or 2 hands wide.
        presence: the landmark model's score that it is a face or hand, 0..1, in each look of `looks.LOOKS`.
        looks: for each look, x and y of the landmarks in pixels: `looks.FACE_POINTS` of a face, 21 of a hand.
        votes: looks of the vote that found a hand, 2..5; None for a face.

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


PartFinder = Callable[[Picture], tuple[PartDetection, ...]]
FINDINGS = TypeAdapter(list[ImageDetections])


def find(
    pictures: Sequence[Picture], *, upscale: int = 4, workers: int = 1, seconds: float = 120.0
) -> list[ImageDetections]:
    """Faces and hands of every picture, in their order; arguments and errors as of `find_each`."""
    return in_order(find_each(pictures, upscale=upscale, workers=workers, seconds=seconds), len(pictures))


def find_each(
    pictures: Sequence[Picture], *, upscale: int = 4, workers: int = 1, seconds: float = 120.0
) -> Generator[tuple[int, ImageDetections], None, None]:
    """Faces and hands of pictures, in their pixels, with the picture's index, as they get ready.

    Pictures are taken one by one, so `pictures` may decode them on demand. The result doesn't depend on `workers`.

    Args:
        pictures: upright RGB pictures [H, W, 3], uint8.
        upscale: pictures of up to 256 px (longer side) are enlarged this many times (Lanczos) before; 1 = never.
        workers: number of processes, each with its own models; about 450 MB each.
        seconds: time limit of one picture.

    Raises:
        ValueError: `upscale`, `workers` or `seconds` is out of range.
        DetectorError: models can't be loaded, or a picture is refused, crashes them or takes too long: names it.

    """
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, not {upscale}")
    return guarded_results(partial(_finder, upscale), pictures, workers=workers, seconds=seconds)


@contextmanager
def face_finder(upscale: int = 4) -> Iterator[PartFinder]:
    """A function that gives the faces of a picture, in this process."""
    with FaceDetector() as detector, FaceLandmarks() as model:
        yield partial(_parts, detector, model, face_region, upscale)


@contextmanager
def hand_finder(upscale: int = 4) -> Iterator[PartFinder]:
    """A function that gives the hands of a picture, in this process."""
    with HandVote() as detector, HandLandmarks() as model:
        yield partial(_parts, detector, model, hand_region, upscale)


@contextmanager
def _finder(upscale: int) -> Iterator[Callable[[Picture], ImageDetections]]:
    with face_finder(upscale) as faces, hand_finder(upscale) as hands:
        yield lambda picture: ImageDetections(faces(picture), hands(picture))


def _parts(
    detector: Detector,
    model: LandmarkModel,
    region_of: Callable[[Detection], Region],
    upscale: int,
    picture: Picture,
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
