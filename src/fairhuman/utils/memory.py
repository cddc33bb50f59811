"""Memory use of processes, measured by the operating system and by PyTorch's allocator."""

import gc
import os
import resource
import sys
from collections.abc import Callable
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


def peak_allocated_bytes(call: Callable[[], object]) -> int:
    """Return the peak of PyTorch's CPU allocations during `call` in bytes, relative to the start.

    Computed from the profiler's memory events.
    """
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # otherwise earlier garbage might be freed during the call and lower the sum
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
