"""Repeated landmark detection on a region under small transforms: presence scores and landmarks of each "look".

MediaPipe's models of 21 hand and 468 face landmarks always return a smooth hand or face, whatever the picture shows.
Two signals reveal a bad one: a low *presence* score, which MediaPipe itself only thresholds, and landmarks that move
when the region is slightly rotated, scaled or mirrored.
"""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Detection, Picture
from fairhuman.detect.landmarks import FaceNetwork, HandNetwork
from fairhuman.detect.region import Region

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


class Looks(NamedTuple):
    """Results of L looks at one region.

    Attributes:
        presence_l: presence score of the hand or face, 0..1.
        points_lnd: landmarks x, y in pixels of the picture, [L, N, 2].
    """

    presence_l: Array
    points_lnd: Array


class LandmarkModel(BundledModel[HandNetwork | FaceNetwork]):
    """A landmark model that examines a region of a picture under all transforms of `LOOKS`."""

    NETWORK: ClassVar[type[HandNetwork | FaceNetwork]]
    POINTS: ClassVar[tuple[int, ...]]  # indices of the landmarks to keep
    MIRRORED: ClassVar[tuple[int, ...]]  # indices of the same points in a mirrored look

    def __init__(self) -> None:
        super().__init__(self.NETWORK)

    def look(self, image: Picture, region: Region) -> Looks:
        """All looks at a region; parts of the region outside the picture are black."""
        whole = Image.fromarray(image)
        side = self.networks.side
        presences, points = [], []
        for turn in LOOKS:
            from_23 = _from_region(region, turn, side)
            crop = whole.transform(
                (side, side), Image.Transform.AFFINE, from_23.ravel().tolist(), Image.Resampling.BILINEAR
            )
            seen = self.networks.look(np.asarray(crop, dtype=np.float32) / np.float32(255))
            presences.append(seen.presence)
            kept = list(self.MIRRORED if turn.mirrored else self.POINTS)
            points.append(seen.points_n3[kept, :2].astype(np.float64) * side @ from_23[:, :2].T + from_23[:, 2])
        return Looks(np.array(presences), np.array(points))


class HandLandmarks(LandmarkModel):
    """The 21 landmarks of a hand; a mirrored look sees the opposite hand, whose points have the same order."""

    MODEL, NETWORK = "hand landmarks", HandNetwork
    POINTS = MIRRORED = tuple(range(21))


class FaceLandmarks(LandmarkModel):
    """The points `FACE_POINTS` of the face mesh; a mirrored look swaps right and left."""

    MODEL, NETWORK = "face landmarks", FaceNetwork
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
    turned = region._replace(angle=region.angle + turn.angle, side=region.side * turn.scale)
    matrix_23 = turned.to_picture(side)
    if turn.mirrored:  # x becomes side - x
        matrix_23 = np.column_stack([-matrix_23[:, 0], matrix_23[:, 1], matrix_23[:, 2] + side * matrix_23[:, 0]])
    return matrix_23


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
