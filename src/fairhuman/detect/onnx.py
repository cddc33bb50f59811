"""Detection of persons, faces and hands with YOLO-style ONNX models."""

import ast
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.detect.detection import PARTS, Closing, Detection, DetectorError, Picture, check_picture, clipped_box
from fairhuman.detect.model_file import describe_signature, find_model, hashed_file_name, open_session
from fairhuman.detect.overlap import non_maximum_suppression

Layout = Literal["v8", "v5", "end-to-end"]

# Class names of models, in lower case and with spaces, to labels of detections.
LABELS: Mapping[str, str] = {
    "person": "person",
    "human": "person",
    "face": "face",
    "human face": "face",
    "hand": "hand",
    "human hand": "hand",
    "left hand": "left hand",
    "right hand": "right hand",
}
GREY = 114  # YOLO's padding colour
SIZE = 640  # pixels, for models with dynamic input size
MAX_CANDIDATES = 1000
MAX_NAMES = 2**16  # characters of the class names in a model's metadata
MAX_END_TO_END_ROWS = 1000  # a v5 head of one class has 6 columns too, but 25,200 rows at 640 px
ROUNDING = 1e-2  # a half-precision probability may slightly exceed 1
EXPECTED = (
    "one input [1, 3, height, width] (RGB, 0..1) and as first output [1, 4 + classes, N] (YOLOv8, v11), "
    "[1, N, 5 + classes] (YOLOv5) or [1, N, 6] (end to end)"
)


class OnnxDetector(Closing):
    """Boxes of a YOLO model, without key points. The score is the box score times the class score.

    The picture is scaled to fit the model's input and padded with grey. Of boxes with the same label and an IoU above
    `overlap`, only the best is kept.

    Args:
        model: path, or hub id `owner/name:file.onnx`.
        parts: parts to return: `person`, `face`, `hand`; other classes are ignored.
        names: names of the model's classes, in order; by default from its metadata.
        confidence: minimum score, 0..1.
        overlap: IoU threshold of non-maximum suppression, 0..1.

    Raises:
        ValueError: `confidence` or `overlap` is out of range.
        DetectorError: the file is missing, isn't a YOLO-style model, or has a class for none of the parts.
    """

    def __init__(
        self,
        model: str,
        parts: Collection[str],
        *,
        names: Sequence[str] = (),
        confidence: float = 0.5,
        overlap: float = 0.5,
    ) -> None:
        for setting, value in (("confidence", confidence), ("overlap", overlap)):
            if not 0 <= value <= 1:
                raise ValueError(f"{setting} must be in 0..1, not {value}")
        self._confidence, self._overlap = confidence, overlap
        self._path = find_model(model)
        self._session: Any = open_session(self._path)
        self.source = f"onnx {hashed_file_name(self._path)}"
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._names = tuple(names) or self._class_names(metadata)
        known = {index: LABELS.get(name.lower().replace("_", " ")) for index, name in enumerate(self._names)}
        self._labels = {index: label for index, label in known.items() if label and PARTS[label] in parts}
        if not self._labels:
            raise DetectorError(
                f"{self._path}: the model has no class for {', '.join(sorted(parts))}, only "
                f"{', '.join(self._names[:20])}; give the names of its classes if these are wrong"
            )
        self._extra_columns = metadata.get("task") in ("segment", "pose")
        self._height, self._width, self._type = self._input()
        self._layout = self._layout_of(self._warm_up())

    def detect(self, image: Picture) -> list[Detection]:
        """Detections in a picture [H, W, 3], best first.

        Raises:
            ValueError: the picture isn't RGB, uint8, [H, W, 3]; or the detector is closed.
            DetectorError: a score isn't in 0..1, so the model is of another kind.
        """
        image = check_picture(image)
        if self._session is None:
            raise ValueError("OnnxDetector is closed")
        fitted = letterbox(image, self._height, self._width)
        boxes_n4, scores_n, classes_n = _parse_output(self._run(fitted.picture), self._layout, len(self._names))
        scores_n = np.nan_to_num(scores_n)
        if not ((scores_n >= -ROUNDING) & (scores_n <= 1 + ROUNDING)).all():
            raise DetectorError(
                f"{self._path}: scores must be in 0..1; the model has {describe_signature(self._session)}, "
                f"expected {EXPECTED}"
            )
        wanted = (scores_n >= max(self._confidence, 1e-9)) & np.isfinite(boxes_n4).all(axis=1)
        wanted &= np.isin(classes_n, list(self._labels))
        order = np.flatnonzero(wanted)
        order = order[np.argsort(-scores_n[order], kind="stable")][:MAX_CANDIDATES]
        original_n4, scores_n = fitted.to_original(boxes_n4[order]), scores_n[order].clip(max=1.0)
        labels = [self._labels[int(index)] for index in classes_n[order]]
        found = []
        for label in dict.fromkeys(labels):
            of_label = np.array([index for index, other in enumerate(labels) if other == label])
            for index in of_label[non_maximum_suppression(original_n4[of_label], scores_n[of_label], self._overlap)]:
                x0, y0, x1, y1 = original_n4[index].tolist()
                box = clipped_box(x0, y0, x1, y1, float(scores_n[index]), image)
                found += [] if box is None else [Detection(box, label, source=self.source)]
        return sorted(found, key=lambda one: -one.score)

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self._session = None

    def _class_names(self, metadata: Mapping[str, str]) -> tuple[str, ...]:
        """Class names as Ultralytics writes them: `{0: 'person', 1: 'bicycle'}` or a list."""
        try:
            text = metadata["names"]
            names = ast.literal_eval(text if len(text) <= MAX_NAMES else "")
            ordered = [names[index] for index in range(len(names))]
        except (LookupError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise DetectorError(
                f"{self._path}: the metadata must hold the class names under `names`, in at most {MAX_NAMES} "
                f"characters, found {', '.join(metadata) or 'no metadata'}; give the names of the classes"
            ) from error
        return tuple(str(name) for name in ordered)

    def _input(self) -> tuple[int, int, type[np.generic]]:
        """Height, width and type of the model's input."""
        inputs = self._session.get_inputs()
        types: Mapping[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        if len(inputs) != 1 or inputs[0].type not in types or len(inputs[0].shape) != 4:
            raise self._unsupported()
        batch, channels, height, width = inputs[0].shape
        if batch not in (1, None) and not isinstance(batch, str):
            raise self._unsupported()
        if channels != 3 and isinstance(channels, int):
            raise self._unsupported()
        return (*(side if isinstance(side, int) else SIZE for side in (height, width)), types[inputs[0].type])  # type: ignore[return-value]

    def _warm_up(self) -> tuple[int, ...]:
        """Run once; return the shape of the first output."""
        try:
            return self._run(np.full((self._height, self._width, 3), GREY, dtype=np.uint8)).shape
        except Exception as error:  # onnxruntime's errors share no base class
            raise self._unsupported(f": {' '.join(str(error).split())}") from error

    def _run(self, picture: Picture) -> NDArray[np.float32]:
        """The first output for a picture of the model's input size."""
        planes = (picture.transpose(2, 0, 1)[None] / np.float32(255)).astype(self._type)
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: planes})
        return np.asarray(outputs[0], dtype=np.float32)

    def _layout_of(self, shape: tuple[int, ...]) -> Layout:
        classes = len(self._names)
        if len(shape) == 3 and shape[0] == 1:
            _, rows, columns = shape
            if columns == 6 and (classes != 1 or rows <= MAX_END_TO_END_ROWS):
                return "end-to-end"
            if columns == 5 + classes:
                return "v5"
            if rows == 4 + classes or (self._extra_columns and rows > 4 + classes):
                return "v8"
        raise self._unsupported(f"; the first output is {list(shape)} with {classes} classes")

    def _unsupported(self, detail: str = "") -> DetectorError:
        return DetectorError(f"{self._path}: expected {EXPECTED}; has {describe_signature(self._session)}{detail}")


class Letterbox(NamedTuple):
    """A picture scaled and padded with grey to another size, and the inverse mapping of boxes."""

    picture: Picture
    scale: tuple[float, float]
    corner: tuple[int, int]

    def to_original(self, boxes_n4: NDArray[np.float32]) -> NDArray[np.float64]:
        """Boxes [N, 4] in pixels of the original picture."""
        corner_4, scale_4 = np.array(self.corner * 2, dtype=np.float64), np.array(self.scale * 2, dtype=np.float64)
        return (boxes_n4.astype(np.float64) - corner_4) / scale_4


def letterbox(image: Picture, height: int, width: int) -> Letterbox:
    """Scale a picture to fit [height, width, 3], keeping its aspect ratio, and centre it on grey."""
    old_height, old_width = image.shape[:2]
    factor = min(height / old_height, width / old_width)
    new_height, new_width = max(round(old_height * factor), 1), max(round(old_width * factor), 1)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    filled = np.full((height, width, 3), GREY, dtype=np.uint8)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    filled[top : top + new_height, left : left + new_width] = np.asarray(resized)
    return Letterbox(filled, (new_width / old_width, new_height / old_height), (left, top))


def _parse_output(
    output: NDArray[np.float32], layout: Layout, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Boxes x0, y0, x1, y1 [N, 4] in pixels of the model's input, scores [N] and classes [N]."""
    rows = output[0].T if layout == "v8" else output[0]
    if layout == "end-to-end":
        return rows[:, :4], rows[:, 4], np.nan_to_num(rows[:, 5]).round().astype(np.int64)
    scores_nc = rows[:, 4 : 4 + classes] if layout == "v8" else rows[:, 4:5] * rows[:, 5 : 5 + classes]
    centre_n2, half_n2 = rows[:, :2], rows[:, 2:4] / 2
    boxes_n4 = np.concatenate([centre_n2 - half_n2, centre_n2 + half_n2], axis=1)
    return boxes_n4, scores_nc.max(axis=1), scores_nc.argmax(axis=1)
