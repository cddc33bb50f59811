"""Peak of the memory that PyTorch allocates; for benchmarks and tests."""

import gc
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_allocated_bytes(call: Callable[[], object]) -> int:
    """Return the peak of PyTorch's CPU allocations during `call` in bytes, relative to the start.

    Computed from the profiler's memory events.
    """
    gc.collect()  # otherwise earlier garbage might be freed during the call and lower the sum
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
