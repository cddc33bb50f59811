"""Native start-up chatter that no switch of MediaPipe turns off, kept from the terminal; all else comes through."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Said at every start or once a process, on standard error, whatever GLOG_* or TF_CPP_* say; nothing a user could
# mend. The last one speaks of graphs that are fed with regions that aren't square in pixels; MediaPipe's own are.
CHATTER = re.compile(
    rb"^(INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|W0000 .* inference_feedback_manager\.cc:\d+\] Feedback manager requires a model with a single signature.*"
    rb"|W0000 .* landmark_projection_calculator\.cc:\d+\] Using NORM_RECT without IMAGE_DIMENSIONS.*)\r?\n",
    re.MULTILINE,
)
STDERR = 2
_one_at_a_time = threading.Lock()


@contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, then pass on all of it but the known chatter.

    It holds for the whole process, so one thread at a time is let in; what other threads write meanwhile comes a
    moment late.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        true_stderr = os.dup(STDERR)
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(true_stderr, STDERR)
            os.close(true_stderr)
            held.seek(0)
            rest = CHATTER.sub(b"", held.read())
            while rest:
                rest = rest[os.write(STDERR, rest) :]
