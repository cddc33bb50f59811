"""NVIDIA Warp, started without a word, with its compiled kernels in our cache."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import warp as wp

from fairhuman.synth.cache import cache_error, cache_folder

# Rays are cast on the CPU, so a machine without a GPU lacks nothing; no setting of Warp's keeps this line back.
_NO_GPU = re.compile(rb"^Warp CUDA warning: Could not find or load the NVIDIA CUDA driver\..*\n", re.MULTILINE)
_STDERR = 2


@cache
def start_warp() -> None:
    """Start Warp once in this process, before anything else does (importing anny's skinning would).

    Kernels are kept below `cache_folder()`, unless `WARP_CACHE_PATH` names a place.

    Raises:
        FairHumanError: the cache can't be written.
    """
    wp.config.log_level = wp.LOG_WARNING
    if "WARP_CACHE_PATH" not in os.environ:
        wp.config.kernel_cache_dir = str(cache_folder() / "warp")
    try:
        with _held_stderr():
            wp.init()
    except OSError as error:
        raise cache_error(error) from error


@contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold back what native code writes to standard error, then pass on all of it but `_NO_GPU`."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        true_stderr = os.dup(_STDERR)
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(true_stderr, _STDERR)
            os.close(true_stderr)
            held.seek(0)
            os.write(_STDERR, _NO_GPU.sub(b"", held.read()))
