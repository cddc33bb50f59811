"""The most prominent person of a picture: 33 key points (BlazePose) and the mask of the body.

Sources: MediaPipe's `pose_landmark_cpu.pbtxt`, `pose_landmark_by_roi_cpu.pbtxt`, `pose_detection_to_roi.pbtxt` and
`RefineLandmarksFromHeatmapCalculator` (Apache-2.0,
https://github.com/google-ai-edge/mediapipe/tree/v0.10.21/mediapipe/modules/pose_landmark).
"""

import math
from dataclasses import dataclass

import numpy as np

from fairhuman.detect.anchors import BODIES, AnchorDetector
from fairhuman.detect.bundled import Array, Network, sigmoid
from fairhuman.detect.detection import Picture
from fairhuman.detect.landmarks import PRESENT
from fairhuman.detect.region import Region, around_segment, crop, spread

POINTS = 33
HEAT_RADIUS = 4  # cells around a key point in the heat map; measured: the 7 x 7 cells of the graph's text are 9 x 9
MIN_HEAT = 0.5  # heat maps below don't move their key point


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A person.

    Attributes:
        points_n3: 33 key points x, y, z in pixels of the picture.
        visibility_n: visibility of each, 0..1.
        region: where the network looked.
        aligned: where it would look next, by the key points that it found.
        mask_logits_hw: logit of each pixel of the region belonging to the person.
    """

    points_n3: Array
    visibility_n: Array
    region: Region
    aligned: Region
    mask_logits_hw: Array

    def mask(self, image: Picture) -> Array:
        """Probability of each pixel of the picture [H, W] of belonging to the person."""
        return spread(sigmoid(self.mask_logits_hw), self.region, image)

    def covers(self, x: float, y: float) -> bool:
        """Whether the pixel at x, y belongs to the person."""
        matrix_23 = self.region.to_picture(len(self.mask_logits_hw))
        place_2 = np.linalg.solve(matrix_23[:, :2], np.array([x, y]) - matrix_23[:, 2])
        column, row = math.floor(place_2[0]), math.floor(place_2[1])
        height, width = self.mask_logits_hw.shape
        return 0 <= row < height and 0 <= column < width and bool(self.mask_logits_hw[row, column] >= 0)


class BodyFinder:
    """Finds the most prominent person.

    Several detectors may share one: that of persons and that of hands ask about the same picture in turn, so the last
    answer is kept.
    """

    def __init__(self) -> None:
        self._detector, self._network = AnchorDetector(BODIES), Network("pose_landmark_full")
        self._last: tuple[Picture, float, Body | None] | None = None

    def find(self, image: Picture, confidence: float = 0.5) -> Body | None:
        """The person in a picture [H, W, 3], detected with a score of at least `confidence` in 0..1; or None."""
        if self._last is not None and self._last[1] == confidence and np.array_equal(self._last[0], image):
            return self._last[2]
        places = self.places(image, confidence)
        body = self.look(image, places[0]) if places else None
        self._last = image.copy(), confidence, body
        return body

    def places(self, image: Picture, confidence: float = 0.5, within: Region | None = None) -> list[Region]:
        """Where persons may be, in a region or in the whole picture, best first."""
        return [_around_body(one.points_n2) for one in self._detector.find(image, confidence, within)]

    def look(self, image: Picture, region: Region) -> Body | None:
        """The person in a region; None if there is none."""
        side = self._network.side
        values_n, presence_1, logits_hw1, heat_hwn, _ = self._network(crop(image, region, side))
        if presence_1[0] <= PRESENT:
            return None
        values_n5 = values_n.reshape(-1, 5)
        aligned = _around_body(region.points(values_n5[POINTS : POINTS + 2, :3] / np.float32(side)))
        values_n5 = values_n5[:POINTS]
        points_n3 = refine(values_n5[:, :3] / np.float32(side), heat_hwn[..., :POINTS])
        return Body(region.points(points_n3), sigmoid(values_n5[:, 3]), region, aligned, logits_hw1[..., 0])


def _around_body(points_nd: Array) -> Region:
    """The region around a body by its first two points: the middle of the hips, and one of the circle around it."""
    return around_segment(points_nd[0], points_nd[1], math.pi / 2, scale=1.25)


def refine(points_n3: Array, heat_hwn: Array) -> Array:
    """Move key points to the mean of their heat map's cells nearby, weighted by probability.

    Args:
        points_n3: x, y, z in units of the crop's side; z isn't changed.
        heat_hwn: logits of each key point, one map each.
    """
    height, width, _ = heat_hwn.shape
    refined_n3 = points_n3.copy()
    for index, (x, y) in enumerate(points_n3[:, :2].tolist()):
        column, row = int(x * width), int(y * height)
        if not (0 <= column < width and 0 <= row < height):
            continue
        top, left = max(row - HEAT_RADIUS, 0), max(column - HEAT_RADIUS, 0)
        near_hw = sigmoid(heat_hwn[top : row + HEAT_RADIUS + 1, left : column + HEAT_RADIUS + 1, index])
        if near_hw.max() >= MIN_HEAT:
            rows, columns = top + np.arange(near_hw.shape[0]), left + np.arange(near_hw.shape[1])
            total = near_hw.sum()
            refined_n3[index, 0] = near_hw.sum(axis=0) @ columns / total / width
            refined_n3[index, 1] = near_hw.sum(axis=1) @ rows / total / height
    return refined_n3
