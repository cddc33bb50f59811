"""Detectors with fixed anchors: decode a network's boxes and key points, and merge those of one object.

The layouts and rules are those of MediaPipe's graphs (`face_detection`, `palm_detection`, `pose_detection`) and its
calculators (`SsdAnchorsCalculator`, `TensorsToDetectionsCalculator`, `NonMaxSuppressionCalculator`; Apache-2.0,
https://github.com/google-ai-edge/mediapipe/tree/v0.10.21/mediapipe).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.bundled import Array, Network, sigmoid
from fairhuman.detect.detection import Picture
from fairhuman.detect.overlap import iou
from fairhuman.detect.region import Region, crop, whole

MERGE_IOU = 0.3  # candidates that overlap the best one by more are averaged with it


class Layout(NamedTuple):
    """How a network's outputs are arranged.

    Attributes:
        file: name of the network.
        grids: stride in pixels and number of anchors at each cell, in the order of the outputs.
        low: value of black in the network's input; white is 1.
    """

    file: str
    grids: Sequence[tuple[int, int]]
    low: float


FACES = Layout("face_detection_full_range_sparse", ((4, 1),), -1.0)
NEAR_FACES = Layout("face_detection_short_range", ((8, 2), (16, 6)), -1.0)
PALMS = Layout("palm_detection_full", ((8, 2), (16, 6)), 0.0)
BODIES = Layout("pose_detection", ((8, 2), (16, 2), (32, 6)), -1.0)


class Anchored(NamedTuple):
    """A detected object.

    Attributes:
        score: 0..1.
        box_4: x0, y0, x1, y1 in pixels of the picture; in a rotated region, of the region turned upright.
        points_n2: key points in pixels of the picture.
    """

    score: float
    box_4: Array
    points_n2: Array


class AnchorDetector:
    """Objects of one kind, each with a box and key points."""

    def __init__(self, layout: Layout) -> None:
        self._network, self._layout = Network(layout.file), layout
        self._centres_n2 = anchor_centres(self._network.side, layout.grids)

    def find(self, image: Picture, confidence: float, region: Region | None = None) -> list[Anchored]:
        """Objects in a region, or in the whole picture, with a score of at least `confidence`, best first."""
        region = region or whole(image)
        side = self._network.side
        raw_nd, logits_n1 = self._network(crop(image, region, side, low=self._layout.low, outside="black"))
        scores_n = sigmoid(logits_n1[:, 0])
        kept = np.flatnonzero(scores_n >= confidence)
        values_nk2 = (raw_nd[kept] / np.float32(side)).reshape(len(kept), raw_nd.shape[1] // 2, 2)
        values_nk2[:, 2:] += self._centres_n2[kept, None]  # key points; row 1 is the size
        values_nk2[:, 0] += self._centres_n2[kept]
        half_n2 = values_nk2[:, 1] / 2
        valid = (half_n2 >= 0).all(axis=1)  # not NaN either
        corners_n22 = np.stack([values_nk2[:, 0] - half_n2, values_nk2[:, 0] + half_n2], axis=1)
        corners_nk2 = np.concatenate([corners_n22, values_nk2[:, 2:]], axis=1)[valid]
        merged = merge(corners_nk2, scores_n[kept][valid])
        return [Anchored(score, *_in_picture(points_k2, region)) for score, points_k2 in merged]


def anchor_centres(side: int, grids: Sequence[tuple[int, int]]) -> Array:
    """Centres x, y [N, 2] of all anchors in units of the side, row by row."""
    centres = []
    for stride, repeats in grids:
        axis = (np.arange(-(-side // stride)) + 0.5) * stride / side
        y, x = np.meshgrid(axis, axis, indexing="ij")
        centres.append(np.stack([x, y], axis=-1).reshape(-1, 2).repeat(repeats, axis=0))
    return np.asarray(np.concatenate(centres), dtype=np.float32)


def merge(corners_nk2: NDArray[np.float32], scores_n: NDArray[np.float32]) -> list[tuple[float, NDArray[np.float32]]]:
    """Non-maximum suppression that averages: score and corners of each object, best first.

    All candidates that overlap the best one by an IoU above `MERGE_IOU` become one object: its score is the best
    one's, its corners and key points are the means weighted by the scores. Then the same with the rest.

    Args:
        corners_nk2: low corner, high corner and key points of each candidate, [N, 2 + points, 2].
        scores_n: [N], above 0.
    """
    order = np.argsort(-scores_n, kind="stable")
    corners_nk2, scores_n = corners_nk2[order], scores_n[order]
    boxes_n4 = corners_nk2[:, :2].reshape(-1, 4).astype(np.float64)
    left = np.arange(len(scores_n))
    found = []
    while left.size:
        same = iou(boxes_n4[left], boxes_n4[left[:1]])[:, 0] > MERGE_IOU
        same[0] = True  # a box without area doesn't overlap itself
        chosen = left[same]
        mean_k2 = np.average(corners_nk2[chosen], axis=0, weights=scores_n[chosen]).astype(np.float32)
        found.append((float(scores_n[left[0]]), mean_k2))
        left = left[~same]
    return found


def _in_picture(corners_k2: Array, region: Region) -> tuple[Array, Array]:
    upright = region._replace(angle=0.0)
    return upright.points(corners_k2[:2]).reshape(4), region.points(corners_k2[2:])
