"""Rate limiting with token buckets."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from math import ceil

from fairhuman.web.app import RefusedError

MAX_BUCKETS = 10_000  # beyond this, the least recently used bucket is dropped: it is full, or nearly


class RateLimit:
    """At most `burst` requests at once, then `per_second`, for each key.

    Requests are counted per process: n processes behind a proxy allow n times as many.
    """

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, per_second, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, time of last request
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Count one request.

        Raises:
            RefusedError: too many requests (429); states when to retry.
        """
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(key, (float(self._burst), now))
            left = min(float(self._burst), left + (now - then) * self._rate)
            allowed = left >= 1
            self._buckets[key] = (left - allowed, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        if not allowed:
            seconds = ceil((1 - left) / self._rate)
            raise RefusedError(429, f"Too many requests. Try again in {seconds} s.", {"Retry-After": str(seconds)})
