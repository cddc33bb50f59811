"""The networks in `models/`: load them, run them, close them.

They are MediaPipe's own files, unchanged, from its wheel of version 0.10.21 (Apache-2.0; `models/README.md`), run by
LiteRT on one thread. The steps around them (anchors, regions of interest, thresholds) are those of MediaPipe's graphs
of that version in static mode, so scores and positions are the same up to rounding.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.detection import Closing, DetectorError
from fairhuman.utils.native_stderr import without_lines

MODELS = Path(__file__).parent / "models"
INSTALL_HINT = "detectors need ai-edge-litert and opencv-python: pip install 'fairhuman[detect]'"
# Printed on standard error at every start or once per process, whatever GLOG_* or TF_CPP_* are set to. A user can fix
# none of it. The first line is LiteRT's; the others are those of MediaPipe (`evaluate.people.official`), the last of
# which concerns graphs with regions that aren't square in pixels; MediaPipe's own are square.
LOG_NOISE = re.compile(
    rb"^(INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|W0000 .* inference_feedback_manager\.cc:\d+\] Feedback manager requires a model with a single signature.*"
    rb"|W0000 .* landmark_projection_calculator\.cc:\d+\] Using NORM_RECT without IMAGE_DIMENSIONS.*)\r?\n",
    re.MULTILINE,
)
# The models' version in MediaPipe, and what runs them. Part of the name under which detections are stored.
SOURCE = "mediapipe-0.10.21-litert"

Array = NDArray[np.float32]
Loaded = TypeVar("Loaded")


def load_runtime() -> Any:
    """Import LiteRT's interpreter, and OpenCV, which cuts the crops.

    Raises:
        DetectorError: a package is missing or broken.
    """
    try:
        import cv2  # noqa: F401
        from ai_edge_litert.interpreter import Interpreter
    except (ImportError, AttributeError) as error:  # a missing system library of OpenCV is an ImportError too
        raise DetectorError(f"{INSTALL_HINT} ({error})") from error
    return Interpreter


def source_name(model: str) -> str:
    """Name of a detector as stored in a data set: `mediapipe-0.10.21-litert hands`."""
    return f"{SOURCE} {model}"


class Network:
    """A network of `models/` by its name: a picture in, its outputs in the order of the file.

    Raises:
        DetectorError: a package is missing, or the file is missing or damaged.
    """

    def __init__(self, name: str) -> None:
        interpreter, file = load_runtime(), MODELS / f"{name}.tflite"
        try:
            with without_lines(LOG_NOISE):
                self._interpreter: Any = interpreter(model_path=str(file), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DetectorError(
                f"{file}: can't be loaded ({error}); it comes with fairhuman: install it again"
            ) from error
        (entry,) = self._interpreter.get_input_details()
        self._input = entry["index"]
        self.side = int(entry["shape"][1])  # pixels
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, picture_hw3: Array) -> list[Array]:
        """The outputs for a picture [side, side, 3], float32, without the batch dimension."""
        self._interpreter.set_tensor(self._input, picture_hw3[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


class BundledModel(Closing, Generic[Loaded]):
    """A detector of networks in `models/`, which processes pictures one by one, without state between them.

    Use it in a `with` block, or call `close`. `source` is the name and version.

    Args:
        load: loads the networks.
        confidence: minimum score, 0..1.
    """

    MODEL: ClassVar[str]

    def __init__(self, load: Callable[[], Loaded], confidence: float = 0.0) -> None:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence must be in 0..1, not {confidence}")
        self.confidence, self.source = confidence, source_name(self.MODEL)
        self._loaded: Loaded | None = load()

    @property
    def networks(self) -> Loaded:
        """What `load` gave.

        Raises:
            ValueError: the detector is closed.
        """
        if self._loaded is None:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._loaded

    def close(self) -> None:
        """Free the networks; a second call does nothing."""
        self._loaded = None


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-values)), 0 or 1 up to rounding beyond ±60."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), dtype=np.float32)
