"""MediaPipe itself, which only the extra `official` brings."""

from importlib.util import find_spec
from typing import Any

import pytest

HAS_MEDIAPIPE = find_spec("mediapipe") is not None


def need_mediapipe() -> Any:
    """The package, or the test is skipped."""
    return pytest.importorskip("mediapipe", reason="needs mediapipe 0.10.21 (Python 3.11 or 3.12): make test-official")
