"""Detectors of faces, hands, persons and poses, one per file.

`settings` chooses detectors and runs them together, `guard` survives native crashes, `rates` computes detection rates.
`fairhuman.data.look.detectors` compares detectors with true boxes.

MediaPipe, onnxruntime and rtmlib (`pip install 'fairhuman[detect]'`) are imported when a detector is created.
"""

from fairhuman.detect.detection import PARTS, Detection, Detector, DetectorError, Picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.guard import Guarded, guarded_map
from fairhuman.detect.hand_vote import HandVote
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.onnx import OnnxDetector
from fairhuman.detect.persons import PersonDetector
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.rates import DETECTORS, PartRates, find_parts, part_rates
from fairhuman.detect.settings import DetectSettings, detector_names, open_detectors
from fairhuman.detect.whole_body import WholeBodyDetector
from fairhuman.detect.worker import Failure

__all__ = [
    "DETECTORS",
    "PARTS",
    "DetectSettings",
    "Detection",
    "Detector",
    "DetectorError",
    "FaceDetector",
    "Failure",
    "Guarded",
    "HandDetector",
    "HandVote",
    "OnnxDetector",
    "PartRates",
    "PersonDetector",
    "Picture",
    "PoseDetector",
    "WholeBodyDetector",
    "detector_names",
    "find_parts",
    "guarded_map",
    "open_detectors",
    "part_rates",
]
