"""A landmark model looks at one region several times: how sure each look is that the part is there, and what it sees.

MediaPipe's models of 21 hand and 468 face landmarks always draw a smooth hand or face, whatever is in the picture.
Two things give a bad one away: the *presence* score, which MediaPipe itself uses only as a yes or no, and that the
landmarks move when the same region is turned, scaled or mirrored a little.
"""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Detection, Picture

Array = NDArray[np.float64]


class Turn(NamedTuple):
    """How a look differs from the plain one: turned by an angle in radians, `scale` times as large, mirrored."""

    angle: float
    scale: float
    mirrored: bool = False


LOOKS = (Turn(0, 1), Turn(0, 1, mirrored=True), Turn(0.3, 1), Turn(-0.3, 1), Turn(0, 0.85), Turn(0, 1.2))

# Points of the face mesh that people can name, of 468, right and left of the person in pairs, then the middle line.
FACE_PAIRS = (
    (33, 263), (133, 362), (159, 386), (145, 374),  # eyes: outer and inner corner, upper and lower lid
    (70, 300), (105, 334), (107, 336),  # brows
    (98, 327), (61, 291), (234, 454), (172, 397),  # nostrils, corners of the mouth, cheeks before the ears, jaw
)  # fmt: skip
FACE_MIDDLE = (10, 168, 1, 0, 17, 152)  # forehead, root and tip of the nose, upper and lower lip, chin
FACE_POINTS = tuple(index for pair in FACE_PAIRS for index in pair) + FACE_MIDDLE
_MIRRORED_FACE = tuple(index for right, left in FACE_PAIRS for index in (left, right)) + FACE_MIDDLE
_HAND_REGION = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # without the finger ends, as MediaPipe frames a tracked hand


class Region(NamedTuple):
    """A turned square: its centre and side in pixels, and the angle of its upright axis, clockwise in radians."""

    x: float
    y: float
    side: float
    angle: float


class Looks(NamedTuple):
    """What L looks at one region see.

    Attributes:
        presence_l: the model's score that a hand or face is there, 0..1.
        points_lnd: key points x, y in pixels of the picture, [L, N, 2].

    """

    presence_l: Array
    points_lnd: Array


class _LandmarkGraph:
    """One of MediaPipe's landmark graphs on a whole square picture, its presence score not thresholded but given."""

    def __init__(self, calculator: str, presence: str) -> None:
        from mediapipe.framework.calculator_pb2 import CalculatorGraphConfig
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect
        from mediapipe.python.solution_base import SolutionBase

        inside = calculator.lower()  # what MediaPipe calls the parts of the graph
        self._presence = f"{inside}__{presence}"
        node = CalculatorGraphConfig.Node(
            calculator=calculator,
            input_stream=["IMAGE:image", "ROI:region"],
            output_stream=["LANDMARKS:landmarks"],
        )
        self._region = NormalizedRect(x_center=0.5, y_center=0.5, width=1, height=1, rotation=0)
        self._graph: Any = SolutionBase(
            graph_config=CalculatorGraphConfig(
                input_stream=["image", "region"], output_stream=["landmarks"], node=[node]
            ),
            outputs=["landmarks", self._presence],
            calculator_params={f"{inside}__ThresholdingCalculator.threshold": -1.0},
        )

    def process(self, image: Picture) -> tuple[float, Any]:
        """Presence in 0..1, and landmarks, however low the presence is."""
        result = self._graph.process({"image": image, "region": self._region})
        return float(getattr(result, self._presence)), result.landmarks

    def close(self) -> None:
        self._graph.close()


class LandmarkModel(BundledModel):
    """A landmark model that looks at a region of a picture in all the ways of `LOOKS`."""

    SIDE: ClassVar[int]  # pixels of the model's input
    CALCULATOR: ClassVar[str]
    PRESENCE: ClassVar[str]
    POINTS: ClassVar[tuple[int, ...]]  # those of the model's landmarks that are kept
    MIRRORED: ClassVar[tuple[int, ...]]  # the same points of the picture in a mirrored look

    def __init__(self) -> None:
        super().__init__(lambda _: _LandmarkGraph(self.CALCULATOR, self.PRESENCE), confidence=0.0)

    def look(self, image: Picture, region: Region) -> Looks:
        """All looks at a region; it may go beyond the picture, which goes on in black."""
        whole = Image.fromarray(image)
        presences, points = [], []
        for turn in LOOKS:
            from_23 = _from_region(region, turn, self.SIDE)
            crop = whole.transform(
                (self.SIDE, self.SIDE), Image.Transform.AFFINE, from_23.ravel().tolist(), Image.Resampling.BILINEAR
            )
            presence, landmarks = self._process(np.asarray(crop))
            presences.append(presence)
            kept = [landmarks.landmark[index] for index in (self.MIRRORED if turn.mirrored else self.POINTS)]
            input_nd = np.array([(point.x, point.y) for point in kept]) * self.SIDE
            points.append(input_nd @ from_23[:, :2].T + from_23[:, 2])
        return Looks(np.array(presences), np.array(points))


class HandLandmarks(LandmarkModel):
    """The 21 points of a hand; a mirrored look sees the other hand, whose points have the same order."""

    MODEL, SIDE, CALCULATOR, PRESENCE = "hand landmarks", 224, "HandLandmarkCpu", "hand_presence_score"
    POINTS = MIRRORED = tuple(range(21))


class FaceLandmarks(LandmarkModel):
    """The points `FACE_POINTS` of the face mesh; in a mirrored look right and left have changed places."""

    MODEL, SIDE, CALCULATOR, PRESENCE = "face landmarks", 192, "FaceLandmarkCpu", "face_presence_score"
    POINTS, MIRRORED = FACE_POINTS, _MIRRORED_FACE


def hand_region(hand: Detection) -> Region:
    """Where MediaPipe looks at a hand it tracks: knuckles up, twice the box of 12 points, moved up by a tenth of it."""
    points_nd = landmarks_of(hand)[:, :2]
    up = (points_nd[5] + points_nd[13]) / 4 + points_nd[9] / 2 - points_nd[0]
    angle = float(np.arctan2(up[0], -up[1]))
    turned_nd = points_nd[_HAND_REGION] @ _turn(angle).T
    low, high = turned_nd.min(axis=0), turned_nd.max(axis=0)
    extent = high - low
    centre = ((low + high) / 2 - np.array([0, 0.1 * extent[1]])) @ _turn(angle)
    return Region(float(centre[0]), float(centre[1]), 2 * float(extent.max()), angle)


def face_region(face: Detection) -> Region:
    """Where MediaPipe looks at a detected face: 1.5 times its box, turned so that the right and left eye are level."""
    box, across = face.box, np.subtract(*landmarks_of(face)[[1, 0]])
    side = 1.5 * max(box.x1 - box.x0, box.y1 - box.y0)
    return Region(*face.centre, side, float(np.arctan2(across[1], across[0])))


def landmarks_of(found: Detection) -> Array:
    """Key points [N, 3] of a detection.

    Raises:
        ValueError: its detector gives none.

    """
    if found.landmarks_n3 is None:
        raise ValueError(f"a {found.label} must have landmarks, {found.source} gave none")
    return found.landmarks_n3.astype(np.float64)


def _turn(angle: float) -> Array:
    """Matrix that turns what stands at `angle` upright; y grows down."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _from_region(region: Region, turn: Turn, side: int) -> Array:
    """Affine map [2, 3] from the model's input, in pixels, to the picture."""
    linear_22 = _turn(region.angle + turn.angle).T * (region.side * turn.scale / side)
    if turn.mirrored:
        linear_22 = linear_22 @ np.diag([-1.0, 1.0])
    shift_2 = np.array([region.x, region.y]) - linear_22 @ np.full(2, side / 2)
    return np.concatenate([linear_22, shift_2[:, None]], axis=1)


def agreement(points_lnd: Array, size: float, spread: float) -> float:
    """How well L looks agree on N points: their object keypoint similarity to the median look, in 0..1.

    OKS = mean over looks and points of exp(-d² / (2 size² spread²)), d the distance to the point's median over the
    looks. The form is that of COCO's keypoint evaluation (https://cocodataset.org/#keypoints-eval), with one
    `spread` for all points.

    Args:
        points_lnd: in pixels, [L, N, 2].
        size: of the hand or face in pixels, > 0.
        spread: distance, as a share of `size`, that halves the similarity nearly (0.61).

    """
    apart_lnd = points_lnd - np.median(points_lnd, axis=0)
    squares_ln = (apart_lnd**2).sum(axis=2) / (size * spread) ** 2
    return float(np.exp(-squares_ln / 2).mean())
