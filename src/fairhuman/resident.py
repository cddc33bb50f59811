"""Resident memory of processes."""

import os
import resource
import sys
from pathlib import Path


def resident_mb(pid: int | None) -> float:
    """Resident memory of a process in MiB; 0 where it, or /proc, isn't there."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_bytes() -> int:
    """The most resident memory of this process so far.

    Of /proc where it is: what `getrusage` tells begins, on Linux, with what the process that started this one held.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
