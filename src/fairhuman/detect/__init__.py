"""Finding faces, hands and poses, one file a detector; `rates` counts what is found, `guard` survives native crashes.

MediaPipe (`pip install 'fairhuman[detect]'`) is imported when a detector is made, not before.
"""

from fairhuman.detect.detection import Detection, Detector, DetectorError, Picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.rates import DETECTORS, PartRates, Share, detection_rates, find_parts, part_rates

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
    "DetectorError",
    "FaceDetector",
    "HandDetector",
    "PartRates",
    "Picture",
    "PoseDetector",
    "Share",
    "detection_rates",
    "find_parts",
    "part_rates",
]
