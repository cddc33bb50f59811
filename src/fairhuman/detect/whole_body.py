"""Detection of persons, faces and hands by whole-body pose: RTMW or DWPose as ONNX files, run by `rtmlib`."""

import contextlib
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.detection import (
    Closing,
    Detection,
    DetectorError,
    Picture,
    box_around,
    check_picture,
    clipped_box,
)
from fairhuman.detect.hands import box_with_flesh
from fairhuman.detect.model_file import describe_signature, find_model, hashed_file_name, import_onnxruntime

# COCO-WholeBody's 133 key points: body, feet, face, hands.
# https://github.com/jin-s13/COCO-WholeBody/blob/master/imgs/Fig2_anno.png
BODY = slice(0, 17)
PARTS_OF_BODY = (("face", slice(23, 91)), ("left hand", slice(91, 112)), ("right hand", slice(112, 133)))
KEY_POINTS = 133
YOLOX_STRIDES = (8, 16, 32)
MIN_POINTS = 4  # minimum number of confident key points for a box


class WholeBodyDetector(Closing):
    """Persons with 133 key points, their faces and their hands.

    The score of a part is the mean of its key points' scores, clipped to 1; a part below `confidence` is left out. A
    person's score is that of the 17 body points, and its box comes from the person detector. The box of a face
    surrounds those of its 68 key points that reach `confidence`, from the brows to the chin. So does the box of a
    hand, plus a margin of a tenth of its longer side for the flesh.

    Args:
        detector: YOLOX person detector: path, or hub id `owner/name:file.onnx`.
        pose: RTMW or DWPose with SimCC outputs, 133 key points: path, or hub id.
        confidence: minimum mean score of a part's key points, 0..1.

    Raises:
        ValueError: `confidence` is out of range.
        DetectorError: rtmlib is missing; a file is missing or isn't a model of this kind.
    """

    def __init__(self, detector: str, pose: str, confidence: float = 0.3) -> None:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence must be in 0..1, not {confidence}")
        self._confidence = confidence
        try:
            import rtmlib
        except ImportError as error:
            raise DetectorError(
                f"whole-body detectors need rtmlib: pip install 'fairhuman[detect]' ({error})"
            ) from error
        detector_path, pose_path = find_model(detector), find_model(pose)
        self.source = whole_body_source(detector_path, pose_path)
        self._persons: Any = _load(rtmlib.YOLOX, detector_path)
        self._pose: Any = _load(rtmlib.RTMPose, pose_path)
        height, width = _input_size(self._persons.session, detector_path)
        self._persons.model_input_size = (height, width)
        height, width = _input_size(self._pose.session, pose_path)
        self._pose.model_input_size = (width, height)
        self._check_outputs(detector_path, pose_path)

    def detect(self, image: Picture) -> list[Detection]:
        """Persons, faces and hands in a picture [H, W, 3], best first."""
        image = check_picture(image)
        if self._pose is None:
            raise ValueError("WholeBodyDetector is closed")
        # YOLOX is trained on BGR. rtmlib passes RTMPose the picture unchanged, with means in RGB order.
        boxes = np.asarray(self._find_persons(np.ascontiguousarray(image[..., ::-1])), dtype=np.float64).reshape(-1, 4)
        boxes = boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        if len(boxes) == 0:  # without boxes, rtmlib treats the full picture as a person
            return []
        points_pn2, scores_pn = self._pose(image, bboxes=boxes.tolist())
        found: list[Detection] = []
        for box, points_n2, scores_n in zip(boxes, points_pn2, scores_pn, strict=True):
            found += self._parts(box.tolist(), points_n2, np.clip(scores_n, 0, 1).astype(np.float32), image)
        return sorted(found, key=lambda one: -one.score)

    def _find_persons(self, image_bgr: Picture) -> Any:
        found = self._persons(image_bgr)
        if self._persons.det_mode == "multiclass":  # class 0 of COCO is the person
            boxes, classes = found
            return [box for box, number in zip(boxes, classes, strict=True) if number == 0]
        return found

    def _parts(
        self, box: list[float], points_n2: NDArray[np.float64], scores_n: NDArray[np.float32], image: Picture
    ) -> list[Detection]:
        points_n3 = np.concatenate([points_n2, np.zeros((KEY_POINTS, 1))], axis=1).astype(np.float32)
        found = []
        person_score = float(scores_n[BODY].mean())
        x0, y0, x1, y1 = box
        person = clipped_box(x0, y0, x1, y1, person_score, image)
        if person is not None and person_score >= self._confidence:
            found.append(Detection(person, "person", points_n3, scores_n, source=self.source))
        for label, where in PARTS_OF_BODY:
            confident = scores_n[where] >= max(self._confidence, 1e-9)
            score = float(scores_n[where].mean())
            if score < self._confidence or confident.sum() < MIN_POINTS:
                continue
            around = (box_around if label == "face" else box_with_flesh)(points_n3[where][confident], score, image)
            if around is not None:
                found.append(Detection(around, label, points_n3[where], scores_n[where], source=self.source))
        return found

    def _check_outputs(self, detector: Path, pose: Path) -> None:
        """Run both models once on a blank picture and check the shapes of their outputs."""
        height, width = self._persons.model_input_size
        first = _outputs(self._persons, height, width, detector)[0]
        anchors = sum((height // stride) * (width // stride) for stride in YOLOX_STRIDES)
        if first.ndim != 3 or first.shape[2] < 5 or (first.shape[2] > 5 and first.shape[1] != anchors):
            raise _unsupported(
                self._persons.session, detector, f"YOLOX: an output [1, N, 5] or [1, {anchors}, 5 + classes]"
            )
        if first.shape[2] > 6:
            self._persons.det_mode = "multiclass"
        width, height = self._pose.model_input_size
        outputs = _outputs(self._pose, height, width, pose)
        if len(outputs) != 2 or any(output.ndim != 3 or output.shape[1] != KEY_POINTS for output in outputs):
            raise _unsupported(self._pose.session, pose, f"two SimCC outputs [1, {KEY_POINTS}, bins]")

    def close(self) -> None:
        """Free the models; a second call does nothing."""
        self._persons = self._pose = None


def whole_body_source(detector: Path, pose: Path) -> str:
    """Name of the detector as stored in a data set."""
    return f"rtmlib-{version('rtmlib')} {hashed_file_name(detector)} {hashed_file_name(pose)}"


def _load(model: Any, path: Path) -> Any:
    cuda = "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # rtmlib prints the file it has loaded
            return model(str(path), backend="onnxruntime", device="cuda" if cuda else "cpu")
    except Exception as error:  # onnxruntime's errors share no base class
        raise DetectorError(f"{path}: not a valid ONNX model: {' '.join(str(error).split())}") from error


def _input_size(session: Any, path: Path) -> tuple[int, int]:
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[2:]):
        raise _unsupported(session, path, "an input [1, 3, height, width] of fixed height and width")
    return shape[2], shape[3]


def _outputs(model: Any, height: int, width: int, path: Path) -> list[NDArray[np.float32]]:
    try:
        return [np.asarray(output) for output in model.inference(np.zeros((height, width, 3), dtype=np.float32))]
    except Exception as error:  # onnxruntime's errors share no base class
        raise _unsupported(model.session, path, f"a model of images ({' '.join(str(error).split())})") from error


def _unsupported(session: Any, path: Path, expected: str) -> DetectorError:
    return DetectorError(f"{path}: expected {expected}; has {describe_signature(session)}")
