"""Hand detection with MediaPipe's palm detector and full hand landmark model."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.anchors import PALMS, AnchorDetector, Anchored
from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture, clipped_box
from fairhuman.detect.landmarks import HandNetwork
from fairhuman.detect.overlap import iou
from fairhuman.detect.region import Region, around, direction
from fairhuman.record import Box

FLESH_MARGIN = 0.1  # how far flesh extends beyond the key points, as a share of the longer side of their box
SAME_PALM_IOU = 0.5  # two regions above this IoU hold one hand


class HandNetworks(NamedTuple):
    """The networks of palms and of hand landmarks."""

    palms: AnchorDetector
    landmarks: HandNetwork


class HandDetector(BundledModel[HandNetworks]):
    """Hands with 21 key points: the wrist, then four per finger from root to tip, thumb first.

    The score is MediaPipe's *handedness* score: the confidence that the hand is a left or a right one. The paper
    reports it as hand confidence, but it says little about how well the hand is drawn. The box is tight around the key
    points; flesh extends beyond it.
    """

    MODEL = "hands"

    def __init__(self, confidence: float = 0.5, max_hands: int = 4) -> None:
        if max_hands < 1:
            raise ValueError(f"max_hands must be at least 1, not {max_hands}")
        self._max_hands = max_hands
        super().__init__(lambda: HandNetworks(AnchorDetector(PALMS), HandNetwork()), confidence)

    def detect(self, image: Picture) -> list[Detection]:
        """Hands in a picture [H, W, 3], best first; `left hand` and `right hand` are the person's own."""
        image = check_picture(image)
        palms, landmarks = self.networks
        found = []
        for region in distinct_regions(palms.find(image, self.confidence)[: self._max_hands]):
            hand = landmarks.find(image, region)
            box = None if hand is None else box_around(hand.points_n3, max(hand.right, 1 - hand.right), image)
            if hand is not None and box is not None:
                # The network assumes a mirrored picture (a selfie), so left and right are swapped back here.
                label = "right hand" if hand.right > 0.5 else "left hand"
                found.append(Detection(box, label, hand.points_n3, source=self.source))
        return sorted(found, key=lambda hand: -hand.score)


def distinct_regions(palms: list[Anchored]) -> list[Region]:
    """Regions around whole hands, fingers up; of two that overlap, the later one is kept.

    2.6 times the palm's box, shifted towards the fingers by half of its height: `palm_detection_detection_to_roi.pbtxt`
    and `AssociationCalculator` of MediaPipe.
    """
    regions: list[Region] = []
    for palm in palms:
        x0, y0, x1, y1 = palm.box_4.tolist()
        angle = direction(palm.points_n2[0], palm.points_n2[2], math.pi / 2)  # from the wrist to the middle finger
        region = around((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, angle, scale=2.6, up=0.5)
        regions = [other for other in regions if iou(_square(region), _square(other))[0, 0] <= SAME_PALM_IOU]
        regions.append(region)
    return regions


def _square(region: Region) -> NDArray[np.float64]:
    """The region's square as if it were upright, x0, y0, x1, y1 [1, 4]."""
    half = region.side / 2
    return np.array([[region.x - half, region.y - half, region.x + half, region.y + half]])


def box_with_flesh(points_n3: NDArray[np.float32], score: float, image: Picture) -> Box | None:
    """The box around a hand's key points plus `FLESH_MARGIN`, clipped to the picture; None if nothing is left."""
    (x0, y0), (x1, y1) = points_n3[:, :2].min(axis=0).tolist(), points_n3[:, :2].max(axis=0).tolist()
    margin = FLESH_MARGIN * max(x1 - x0, y1 - y0)
    return clipped_box(x0 - margin, y0 - margin, x1 + margin, y1 + margin, score, image)
