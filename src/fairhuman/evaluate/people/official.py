"""Hand and face confidence as the paper's published code computes them, under the name `official`.

What it does (PRIS-CV/FairHuman, `evaluate/hand_confidence.py` and `evaluate/face_confidence.py`): one
`mediapipe.solutions.hands.Hands()` with its defaults goes through all pictures, and the handedness scores of all hands
found are averaged; a face detector of the short-range model, least score 0.5, gives the average score of all faces.

What is wrong with it, which is why it is only ever reported beside the strict measures
(`fairhuman.evaluate.people.strict`):

- The hand score is the *handedness* score: how sure the model is that it is a left or a right hand.
- Hands are looked for in video mode: pictures are taken for frames of one film, and a hand is first looked for where
  the picture before had one. The same pictures in another order have other scores; at most two hands are seen.
- A hand or face that isn't found leaves the average as it is: a model that draws only few recognisable hands wins.
- An extra, false face is one more score in the average. Faces far away are missed by the short-range model.
- A bad hand that is found scores almost as high as a good one.

The published face code uses MediaPipe's Tasks interface with a downloaded copy of the short-range model. The copy
inside MediaPipe's wheel gives the same score (0.97193187 by both on one photo, 0.10.21), and is used here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.detect.guard import guarded_results, in_order
from fairhuman.detect.scale import enlarge


@dataclass(frozen=True, slots=True)
class OfficialScores:
    """Scores of all that is found in one picture; empty where nothing is."""

    faces: tuple[float, ...]
    hands: tuple[float, ...]


def official_scores(
    pictures: Sequence[Picture],
    *,
    upscale: int = 4,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[OfficialScores]:
    """The official scores of every picture, which for hands depend on the pictures before it.

    All pictures go through one process, in order, as the published code has it.

    Args:
        pictures: upright RGB pictures [H, W, 3], uint8, in the order of their prompts.
        upscale: pictures of up to 256 px (longer side) are enlarged this many times before, which the published
            code doesn't do, as its pictures are larger; 1 = never.
        seconds: time limit of one picture.
        progress: called with (done, all) after every picture.

    Raises:
        ValueError: `upscale` or `seconds` is out of range.
        DetectorError: models can't be loaded, or a picture is refused, crashes them or takes too long: names it.

    """
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, not {upscale}")
    results = guarded_results(partial(official_scorer, upscale), pictures, seconds=seconds)
    return in_order(results, len(pictures), progress)


class _OfficialFaces(BundledModel):
    MODEL = "official faces"

    def __init__(self) -> None:
        super().__init__(
            lambda solutions: solutions.face_detection.FaceDetection(model_selection=0, min_detection_confidence=0.5),
            confidence=0.5,
        )

    def scores(self, image: Picture) -> tuple[float, ...]:
        return tuple(float(face.score[0]) for face in self._process(image).detections or ())


class _OfficialHands(BundledModel):
    """The default `Hands()`: video mode, two hands at most; the blank warm-up picture leaves no hand to track."""

    MODEL = "official hands"

    def __init__(self) -> None:
        super().__init__(lambda solutions: solutions.hands.Hands(), confidence=0.5)

    def scores(self, image: Picture) -> tuple[float, ...]:
        sides = self._process(image).multi_handedness or ()
        return tuple(float(one.score) for side in sides for one in side.classification)


@contextmanager
def official_scorer(upscale: int = 4) -> Iterator[Callable[[Picture], OfficialScores]]:
    """A function that gives the official scores of a picture after those before it, in this process."""
    with _OfficialFaces() as faces, _OfficialHands() as hands:

        def score(picture: Picture) -> OfficialScores:
            image, _ = enlarge(check_picture(picture), upscale)
            return OfficialScores(faces.scores(image), hands.scores(image))

        yield score
