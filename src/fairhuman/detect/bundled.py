"""MediaPipe's models that come inside its wheel: loading, silence, one call, the end.

Version 0.10.21 is the last one with bundled models (the `solutions` interface); its scores differ from those of
later ones (the Tasks interface), so numbers of both must not stand in one table.
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
NEEDED = "detectors need mediapipe 0.10.21, the last version with its models inside: pip install 'fairhuman[detect]'"
# Said at every start or once a process, on standard error, whatever GLOG_* or TF_CPP_* say; nothing a user could
# mend. The last one speaks of graphs that are fed with regions that aren't square in pixels; MediaPipe's own are.
CHATTER = re.compile(
    rb"^(INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|W0000 .* inference_feedback_manager\.cc:\d+\] Feedback manager requires a model with a single signature.*"
    rb"|W0000 .* landmark_projection_calculator\.cc:\d+\] Using NORM_RECT without IMAGE_DIMENSIONS.*)\r?\n",
    re.MULTILINE,
)


def load_solutions() -> Any:
    """MediaPipe's `solutions`, imported when first needed: it takes a second.

    Raises:
        DetectorError: not installed, broken, or a version without bundled models.

    """
    try:
        import mediapipe

        return mediapipe.solutions
    except (ImportError, AttributeError) as error:  # a missing system library of OpenCV is an ImportError too
        raise DetectorError(f"{NEEDED} ({error})") from error


def source_name(model: str) -> str:
    """Name of a detector for the data set: `mediapipe-0.10.21 hands`.

    Raises:
        DetectorError: MediaPipe isn't installed.

    """
    try:
        return f"mediapipe-{version('mediapipe')} {model}"
    except PackageNotFoundError as error:
        raise DetectorError(f"{model}: {NEEDED} ({error})") from error


class BundledModel(Closing):
    """A native graph that pictures are put through one by one, without memory of the one before.

    Used in a `with` block, or ended by `close`. `source` is its name and version.
    """

    MODEL: ClassVar[str]

    def __init__(self, build: Callable[[Any], Any], confidence: float) -> None:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence must be in 0..1, not {confidence}")
        solutions = load_solutions()
        self.source = source_name(self.MODEL)
        with without_lines(CHATTER):
            self._graph = build(solutions)
            # Its threads load the models after the constructor has returned, and say so: wait for them.
            self._graph.process(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), dtype=np.uint8))

    def _process(self, image: Picture) -> Any:
        """MediaPipe's own result for a checked picture.

        Raises:
            ValueError: the detector is closed.

        """
        if self._graph is None:
            raise ValueError(f"{type(self).__name__} must be open to detect; it was closed")
        with without_lines(CHATTER):
            return self._graph.process(image)

    def close(self) -> None:
        """Free the native graph and end its threads; a second call does nothing."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None


def pixel_points(landmarks: Any, image: Picture) -> NDArray[np.float32]:
    """MediaPipe's normalised landmarks as x, y, z in pixels [N, 3]; its z has the scale of x."""
    height, width = image.shape[:2]
    points_n3 = np.array([(point.x, point.y, point.z) for point in landmarks], dtype=np.float32)
    return points_n3 * np.array([width, height, width], dtype=np.float32)
