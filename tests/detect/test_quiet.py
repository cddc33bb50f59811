"""Only known log noise is suppressed; all other output is passed on, byte for byte and in order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fairhuman.detect import bundled
from fairhuman.utils.native_stderr import without_lines

CHATTER = (
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    b"W0000 00:00:1795539211.356255    3549 inference_feedback_manager.cc:114] Feedback manager requires a model with "
    b"a single signature inference. Disabling support for feedback tensors.\n"
)


def test_only_known_log_noise_is_suppressed(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(bundled.LOG_NOISE):
        os.write(2, CHATTER + b"E0000 a graph has failed\n" + CHATTER + b"\xffhalf a ")
    os.write(2, b"line\n")
    assert capfd.readouterr().err == "E0000 a graph has failed\n\ufffdhalf a line\n"


def fail_inside() -> None:
    with without_lines(bundled.LOG_NOISE):
        os.write(2, b"before\n")
        raise RuntimeError("inside")


def test_an_error_leaves_the_terminal_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    os.write(2, CHATTER)
    assert capfd.readouterr().err == "before\n" + CHATTER.decode()


SCRIPT = """
import sys
import numpy as np
from PIL import Image
from fairhuman.detect.rates import DETECTORS
picture = np.asarray(Image.open(sys.argv[1]).convert("RGB"))
counts = []
for make in DETECTORS.values():
    with make() as detector:
        counts.append(len(detector.detect(picture)))
print(counts)
"""


def run_detectors(picture: Path) -> tuple[str, str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(picture)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return ended.stdout, ended.stderr


def test_detectors_start_and_end_without_output(tmp_path: Path) -> None:
    Image.new("RGB", (160, 90)).save(tmp_path / "blank.png")
    assert run_detectors(tmp_path / "blank.png") == ("[0, 0, 0]\n", "")


def test_detectors_find_a_hand_and_a_person_without_output(shared: Path) -> None:
    photo = shared / "data" / "wholebody" / "images" / "panoptic_ex2_2.flv_000040_l.jpg"
    assert run_detectors(photo) == ("[1, 2, 1]\n", "")
