"""Filter what native libraries write to standard error."""

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
    """Buffer everything written to file descriptor 2, then print it without the matches of `chatter`.

    The descriptor belongs to the whole process, so only one thread may enter at a time; output of other threads is
    delayed until the block ends.
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
