"""What native code writes to standard error, without the lines that a user could do nothing about."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_one_at_a_time = threading.Lock()


@contextmanager
def without_lines(chatter: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back what is written to file descriptor 2, then pass on all of it but what `chatter` matches.

    It holds for the whole process, so one thread at a time is let in; what other threads write meanwhile comes a
    moment late.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        true_stderr = os.dup(_STDERR)
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(true_stderr, _STDERR)
            os.close(true_stderr)
            held.seek(0)
            rest = chatter.sub(b"", held.read())
            while rest:
                rest = rest[os.write(_STDERR, rest) :]
