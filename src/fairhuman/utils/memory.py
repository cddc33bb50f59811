"""Memory use of processes, measured by the operating system."""

import os
import resource
import sys
from pathlib import Path

# What a container may use: of the second and the first version of control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def main_memory_bytes() -> int:
    """Return the main memory that processes here may use: the machine's, or less in a container."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMITS:
        try:
            return min(most, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return most


def resident_mb(pid: int | None) -> float:
    """Return the resident memory of a process in MiB; 0 if the process or /proc does not exist."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def available_bytes() -> int | None:
    """Return the main memory that processes can still get, within the limits of their control group; None: unknown.

    Memory that the group's files take in the page cache counts as free, as the system gives it up.
    """
    free = [found for found in (_available_of_machine(), _available_of_group()) if found is not None]
    return min(free, default=None)


def _available_of_machine() -> int | None:
    try:
        status = Path("/proc/meminfo").read_text(encoding="ascii")
        return int(status.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def _available_of_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit, used = (int((folder / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        status = (folder / "memory.stat").read_text(encoding="ascii").split()
        files = int(dict(zip(status[::2], status[1::2], strict=False)).get("inactive_file", 0))
        return max(0, limit - used + files)
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process so far.

    Read from /proc where available: on Linux, `getrusage` starts at the parent process's resident size.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
