"""The models bundled in MediaPipe's wheel: load, run without log noise, close.

Version 0.10.21 is the last one with bundled models (the `solutions` interface). Its scores differ from those of
later versions (the Tasks interface), so don't compare numbers from both.
"""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.detection import Closing, DetectorError, Picture
from fairhuman.utils.native_stderr import without_lines

WARM_UP_SIDE = 64  # pixels
INSTALL_HINT = (
    "detectors need mediapipe 0.10.21, the last version with its models inside: pip install 'fairhuman[detect]'"
)
# Printed on standard error at every start or once per process, whatever GLOG_* or TF_CPP_* are set to. A user can fix
# none of it. The last line concerns graphs with regions that aren't square in pixels; MediaPipe's own are square.
LOG_NOISE = re.compile(
    rb"^(INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|W0000 .* inference_feedback_manager\.cc:\d+\] Feedback manager requires a model with a single signature.*"
    rb"|W0000 .* landmark_projection_calculator\.cc:\d+\] Using NORM_RECT without IMAGE_DIMENSIONS.*)\r?\n",
    re.MULTILINE,
)


def load_solutions() -> Any:
    """Import MediaPipe's `solutions`, which takes a second.

    Raises:
        DetectorError: MediaPipe is missing, broken, or a version without bundled models.
    """
    try:
        import mediapipe

        return mediapipe.solutions
    except (ImportError, AttributeError) as error:  # a missing system library of OpenCV is an ImportError too
        raise DetectorError(f"{INSTALL_HINT} ({error})") from error


def source_name(model: str) -> str:
    """Name of a detector as stored in a data set: `mediapipe-0.10.21 hands`.

    Raises:
        DetectorError: MediaPipe isn't installed.
    """
    try:
        return f"mediapipe-{version('mediapipe')} {model}"
    except PackageNotFoundError as error:
        raise DetectorError(f"{model}: {INSTALL_HINT} ({error})") from error


class BundledModel(Closing):
    """A native MediaPipe graph that processes pictures one by one, without state between them.

    Use it in a `with` block, or call `close`. `source` is the name and version.
    """

    MODEL: ClassVar[str]

    def __init__(self, build: Callable[[Any], Any], confidence: float) -> None:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence must be in 0..1, not {confidence}")
        solutions = load_solutions()
        self.source = source_name(self.MODEL)
        with without_lines(LOG_NOISE):
            self._graph = build(solutions)
            # The graph's threads load the models after the constructor returns, and log it: wait for them.
            self._graph.process(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), dtype=np.uint8))

    def _process(self, image: Picture) -> Any:
        """MediaPipe's result for a validated picture.

        Raises:
            ValueError: the detector is closed.
        """
        if self._graph is None:
            raise ValueError(f"{type(self).__name__} is closed")
        with without_lines(LOG_NOISE):
            return self._graph.process(image)

    def close(self) -> None:
        """Free the native graph and end its threads; a second call does nothing."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None


def pixel_points(landmarks: Any, image: Picture) -> NDArray[np.float32]:
    """Convert MediaPipe's normalised landmarks to x, y, z in pixels [N, 3]; z has the scale of x."""
    height, width = image.shape[:2]
    points_n3 = np.array([(point.x, point.y, point.z) for point in landmarks], dtype=np.float32)
    return points_n3 * np.array([width, height, width], dtype=np.float32)
