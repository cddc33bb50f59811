"""Repeated landmark detection on a region under small transforms: presence scores and landmarks of each "look".

MediaPipe's models of 21 hand and 468 face landmarks always return a smooth hand or face, whatever the picture shows.
Two signals reveal a bad one: a low *presence* score, which MediaPipe itself only thresholds, and landmarks that move
when the region is slightly rotated, scaled or mirrored.
"""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Detection, Picture

Array = NDArray[np.float64]


class LookTransform(NamedTuple):
    """Transform of a look: rotation by an angle in radians, scale, mirroring."""

    angle: float
    scale: float
    mirrored: bool = False


LOOKS = (
    LookTransform(0, 1),
    LookTransform(0, 1, mirrored=True),
    LookTransform(0.3, 1),
    LookTransform(-0.3, 1),
    LookTransform(0, 0.85),
    LookTransform(0, 1.2),
)

# Named points of the 468-point face mesh: pairs on the person's right and left, then the midline.
FACE_PAIRS = (
    (33, 263), (133, 362), (159, 386), (145, 374),  # eyes: outer and inner corner, upper and lower lid
    (70, 300), (105, 334), (107, 336),  # brows
    (98, 327), (61, 291), (234, 454), (172, 397),  # nostrils, corners of the mouth, cheeks before the ears, jaw
)  # fmt: skip
FACE_MIDDLE = (10, 168, 1, 0, 17, 152)  # forehead, root and tip of the nose, upper and lower lip, chin
FACE_POINTS = tuple(index for pair in FACE_PAIRS for index in pair) + FACE_MIDDLE
_MIRRORED_FACE = tuple(index for right, left in FACE_PAIRS for index in (left, right)) + FACE_MIDDLE
_HAND_REGION = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # without fingertips, as MediaPipe frames a tracked hand


class Region(NamedTuple):
    """A rotated square: centre and side in pixels, and the clockwise angle of its vertical axis in radians."""

    x: float
    y: float
    side: float
    angle: float


class Looks(NamedTuple):
    """Results of L looks at one region.

    Attributes:
        presence_l: presence score of the hand or face, 0..1.
        points_lnd: landmarks x, y in pixels of the picture, [L, N, 2].
    """

    presence_l: Array
    points_lnd: Array


class _LandmarkGraph:
    """A MediaPipe landmark graph on a square picture that returns its presence score instead of thresholding it."""

    def __init__(self, calculator: str, presence: str) -> None:
        from mediapipe.framework.calculator_pb2 import CalculatorGraphConfig
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect
        from mediapipe.python.solution_base import SolutionBase

        inside = calculator.lower()  # MediaPipe's prefix for nodes of the graph
        self._presence = f"{inside}__{presence}"
        node = CalculatorGraphConfig.Node(
            calculator=calculator, input_stream=["IMAGE:image", "ROI:region"], output_stream=["LANDMARKS:landmarks"]
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
        """Presence score in 0..1 and landmarks, which are returned even at low presence."""
        result = self._graph.process({"image": image, "region": self._region})
        return float(getattr(result, self._presence)), result.landmarks

    def close(self) -> None:
        self._graph.close()


class LandmarkModel(BundledModel):
    """A landmark model that examines a region of a picture under all transforms of `LOOKS`."""

    SIDE: ClassVar[int]  # side of the model's input in pixels
    CALCULATOR: ClassVar[str]
    PRESENCE: ClassVar[str]
    POINTS: ClassVar[tuple[int, ...]]  # indices of the landmarks to keep
    MIRRORED: ClassVar[tuple[int, ...]]  # indices of the same points in a mirrored look

    def __init__(self) -> None:
        super().__init__(lambda _: _LandmarkGraph(self.CALCULATOR, self.PRESENCE), confidence=0.0)

    def look(self, image: Picture, region: Region) -> Looks:
        """All looks at a region; parts of the region outside the picture are black."""
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
    """The 21 landmarks of a hand; a mirrored look sees the opposite hand, whose points have the same order."""

    MODEL, SIDE, CALCULATOR, PRESENCE = "hand landmarks", 224, "HandLandmarkCpu", "hand_presence_score"
    POINTS = MIRRORED = tuple(range(21))


class FaceLandmarks(LandmarkModel):
    """The points `FACE_POINTS` of the face mesh; a mirrored look swaps right and left."""

    MODEL, SIDE, CALCULATOR, PRESENCE = "face landmarks", 192, "FaceLandmarkCpu", "face_presence_score"
    POINTS, MIRRORED = FACE_POINTS, _MIRRORED_FACE


def hand_region(hand: Detection) -> Region:
    """MediaPipe's region of a tracked hand: knuckles up, twice the box of 12 points, shifted up by a tenth of it."""
    points_nd = landmarks_of(hand)[:, :2]
    up = (points_nd[5] + points_nd[13]) / 4 + points_nd[9] / 2 - points_nd[0]
    angle = float(np.arctan2(up[0], -up[1]))
    turned_nd = points_nd[_HAND_REGION] @ _turn(angle).T
    low, high = turned_nd.min(axis=0), turned_nd.max(axis=0)
    extent = high - low
    centre = ((low + high) / 2 - np.array([0, 0.1 * extent[1]])) @ _turn(angle)
    return Region(float(centre[0]), float(centre[1]), 2 * float(extent.max()), angle)


def face_region(face: Detection) -> Region:
    """MediaPipe's region of a detected face: 1.5 times its box, rotated so that the eyes are level."""
    box, across = face.box, np.subtract(*landmarks_of(face)[[1, 0]])
    side = 1.5 * max(box.x1 - box.x0, box.y1 - box.y0)
    return Region(*face.centre, side, float(np.arctan2(across[1], across[0])))


def landmarks_of(found: Detection) -> Array:
    """Landmarks [N, 3] of a detection.

    Raises:
        ValueError: the detector returned none.
    """
    if found.landmarks_n3 is None:
        raise ValueError(f"a {found.label} must have landmarks, {found.source} gave none")
    return found.landmarks_n3.astype(np.float64)


def _turn(angle: float) -> Array:
    """Matrix that rotates a direction at `angle` to upright; y points down."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _from_region(region: Region, turn: LookTransform, side: int) -> Array:
    """Affine map [2, 3] from the model's input, in pixels, to the picture."""
    linear_22 = _turn(region.angle + turn.angle).T * (region.side * turn.scale / side)
    if turn.mirrored:
        linear_22 = linear_22 @ np.diag([-1.0, 1.0])
    shift_2 = np.array([region.x, region.y]) - linear_22 @ np.full(2, side / 2)
    return np.concatenate([linear_22, shift_2[:, None]], axis=1)


def agreement(points_lnd: Array, size: float, spread: float) -> float:
    """Agreement of L looks on N points: object keypoint similarity (OKS) to the median look, in 0..1.

        OKS = mean over looks and points of exp(-d² / (2 size² spread²))

    d is the distance to the point's median over the looks. The form follows COCO's keypoint evaluation
    (https://cocodataset.org/#keypoints-eval), with one `spread` for all points.

    Args:
        points_lnd: points in pixels, [L, N, 2].
        size: size of the hand or face in pixels, > 0.
        spread: distance, as a fraction of `size`, at which the similarity drops to 0.61.
    """
    apart_lnd = points_lnd - np.median(points_lnd, axis=0)
    squares_ln = (apart_lnd**2).sum(axis=2) / (size * spread) ** 2
    return float(np.exp(-squares_ln / 2).mean())
