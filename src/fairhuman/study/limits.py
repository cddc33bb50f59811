"""How often somebody may ask: a bucket that fills again by and by."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from math import ceil

from fairhuman.web.app import RefusedError

MOST_BUCKETS = 10_000  # the least recently used one is forgotten: it is the fullest, or nearly


class RateLimit:
    """At most `burst` requests at once and `per_second` from then on, for each key.

    It counts in this process alone: n processes behind a proxy let n times as many in.

    Args:
        burst: requests of a full bucket.
        per_second: that come back.
        clock: seconds, from any start.

    """

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, per_second, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Count one request.

        Raises:
            RefusedError: too many (429); says after how many seconds to ask again.

        """
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(key, (float(self._burst), now))
            left = min(float(self._burst), left + (now - then) * self._rate)
            allowed = left >= 1
            self._buckets[key] = (left - allowed, now)
            if len(self._buckets) > MOST_BUCKETS:
                self._buckets.popitem(last=False)
        if not allowed:
            seconds = ceil((1 - left) / self._rate)
            raise RefusedError(429, f"Too many requests: ask again in {seconds} s.", {"Retry-After": str(seconds)})
