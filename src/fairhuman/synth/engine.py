"""Start NVIDIA Warp quietly, with its compiled kernels in our cache."""

import os
import re
from functools import cache

import warp as wp

from fairhuman.synth.cache import cache_error
from fairhuman.utils.files import cache_folder
from fairhuman.utils.native_stderr import without_lines

# Rays are cast on the CPU, so a missing GPU doesn't matter; no setting of Warp suppresses this line.
_NO_GPU = re.compile(rb"^Warp CUDA warning: Could not find or load the NVIDIA CUDA driver\..*\n", re.MULTILINE)


@cache
def start_warp() -> None:
    """Start Warp once in this process, before anything else does (such as importing anny's skinning).

    Kernels are cached below `cache_folder()`, unless `WARP_CACHE_PATH` is set.

    Raises:
        FairHumanError: the cache can't be written.
    """
    wp.config.log_level = wp.LOG_WARNING
    if "WARP_CACHE_PATH" not in os.environ:
        wp.config.kernel_cache_dir = str(cache_folder() / "warp")
    try:
        with without_lines(_NO_GPU):
            wp.init()
    except OSError as error:
        raise cache_error(error) from error
