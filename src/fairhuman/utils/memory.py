"""Memory of processes, as the system and as PyTorch's allocator count it."""

import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path


def resident_mb(pid: int | None) -> float:
    """Resident memory of a process in MiB; 0 where it, or /proc, isn't there."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_resident_bytes() -> int:
    """The most resident memory of this process so far.

    Of /proc where it is: what `getrusage` tells begins, on Linux, with what the process that started this one held.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_allocated_bytes(call: Callable[[], object]) -> int:
    """Highest sum of live bytes in PyTorch's CPU allocator during `call`, beyond what was live before.

    Bytes, from the events of PyTorch's profiler.
    """
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # else what others left in cycles may be freed during the call, and count as less than nothing
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
