"""Hand and face confidence as the paper's published code computes them, called `official`.

Method (PRIS-CV/FairHuman, `evaluate/hand_confidence.py` and `evaluate/face_confidence.py`): one
`mediapipe.solutions.hands.Hands()` with default settings processes all pictures, and the handedness scores of all
detected hands are averaged; a short-range face detector with a minimum score of 0.5 gives the mean score of all faces.
Unlike there, pictures of up to 256 px are enlarged before detection (`upscale`).

Flaws, because of which it is only reported next to the strict measures (`fairhuman.evaluate.people.strict`):

- The hand score is the *handedness* score: the model's confidence in left versus right.
- Hands are detected in video mode: pictures are treated as frames of one video, and a hand is first searched for where
  the previous picture had one. Scores depend on the order of pictures; at most two hands are detected.
- A hand or face that isn't found doesn't lower the average: a model that draws few recognisable hands wins.
- A false face adds its score to the average. The short-range model misses distant faces.
- A bad hand that is found scores almost as high as a good one.

The published face code uses MediaPipe's Tasks interface with a downloaded copy of the short-range model. The copy
in MediaPipe's wheel, used here, gives the same score (0.97193187 from both on one photo, version 0.10.21).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from fairhuman.detect.bundled import LOG_NOISE
from fairhuman.detect.detection import Closing, DetectorError, Picture, check_picture
from fairhuman.detect.guard import guarded_results, in_order
from fairhuman.detect.scale import enlarge
from fairhuman.utils.native_stderr import without_lines

WARM_UP_SIDE = 64  # pixels
INSTALL_HINT = (
    "official confidences need mediapipe 0.10.21, the last version with its models inside, on Python 3.11 or 3.12 with "
    "numpy below 2: pip install 'fairhuman[official]'"
)


@dataclass(frozen=True, slots=True)
class OfficialScores:
    """Scores of all faces and hands found in one picture; empty if none."""

    faces: tuple[float, ...]
    hands: tuple[float, ...]


def official_scores(
    pictures: Sequence[Picture], *, upscale: int = 4, progress: Callable[[int, int], None] | None = None
) -> list[OfficialScores]:
    """The official scores of every picture; those of hands depend on the pictures before it.

    All pictures go through one process in order, as in the published code.

    Args:
        pictures: upright RGB pictures [H, W, 3], uint8, in the order of their prompts.
        upscale: enlargement of pictures of up to 256 px on the longer side before detection; 1 = none. The published
            code doesn't enlarge, as its pictures are larger.
        progress: called with (done, total) after every picture.

    Raises:
        ValueError: `upscale` is out of range.
        DetectorError: models can't be loaded, or a picture is invalid, crashes them or exceeds the time limit.
    """
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, not {upscale}")
    results = guarded_results(partial(official_scorer, upscale), pictures)
    return in_order(results, len(pictures), progress)


def load_solutions() -> Any:
    """Import MediaPipe's `solutions`, which takes a second.

    Raises:
        DetectorError: MediaPipe is missing, broken, or a version without bundled models.
    """
    try:
        import mediapipe

        return mediapipe.solutions
    except (ImportError, AttributeError) as error:  # a missing system library of OpenCV is an ImportError too
        raise DetectorError(f"{INSTALL_HINT} ({error})") from error


def official_source() -> str:
    """MediaPipe and its version, for cache names: `mediapipe-0.10.21`.

    Raises:
        DetectorError: MediaPipe isn't installed.
    """
    try:
        return f"mediapipe-{version('mediapipe')}"
    except PackageNotFoundError as error:
        raise DetectorError(f"{INSTALL_HINT} ({error})") from error


class _Graph(Closing):
    """A native MediaPipe graph."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        solutions = load_solutions()
        with without_lines(LOG_NOISE):
            self._graph = build(solutions)
            # The graph's threads load the models after the constructor returns, and log it: wait for them.
            self._graph.process(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), dtype=np.uint8))

    def _process(self, image: Picture) -> Any:
        with without_lines(LOG_NOISE):
            return self._graph.process(image)

    def close(self) -> None:
        """Free the native graph and end its threads; a second call does nothing."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None


class _OfficialFaces(_Graph):
    def __init__(self) -> None:
        super().__init__(
            lambda solutions: solutions.face_detection.FaceDetection(model_selection=0, min_detection_confidence=0.5)
        )

    def scores(self, image: Picture) -> tuple[float, ...]:
        return tuple(float(face.score[0]) for face in self._process(image).detections or ())


class _OfficialHands(_Graph):
    """The default `Hands()`: video mode, at most two hands. The blank warm-up picture leaves no hand to track."""

    def __init__(self) -> None:
        super().__init__(lambda solutions: solutions.hands.Hands())

    def scores(self, image: Picture) -> tuple[float, ...]:
        sides = self._process(image).multi_handedness or ()
        return tuple(float(one.score) for side in sides for one in side.classification)


@contextmanager
def official_scorer(upscale: int = 4) -> Iterator[Callable[[Picture], OfficialScores]]:
    """A function that returns the official scores of each picture in sequence, in this process."""
    with _OfficialFaces() as faces, _OfficialHands() as hands:

        def score(picture: Picture) -> OfficialScores:
            image, _ = enlarge(check_picture(picture), upscale)
            return OfficialScores(faces.scores(image), hands.scores(image))

        yield score
