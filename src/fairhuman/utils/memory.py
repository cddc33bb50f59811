"""Memory use of processes, measured by the operating system."""

import os
import resource
import sys
from pathlib import Path


def resident_mb(pid: int | None) -> float:
    """Return the resident memory of a process in MiB; 0 if the process or /proc does not exist."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process so far.

    Read from /proc where available: on Linux, `getrusage` starts at the parent process's resident size.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
