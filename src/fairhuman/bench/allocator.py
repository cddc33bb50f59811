"""What PyTorch's allocator on the CPU held."""

import gc
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """Highest sum of live bytes in PyTorch's CPU allocator during `call`, beyond what was live before.

    Bytes, from the events of PyTorch's profiler.
    """
    gc.collect()  # else what others left in cycles may be freed during the call, and count as less than nothing
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
