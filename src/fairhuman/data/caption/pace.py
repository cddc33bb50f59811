"""Rate limiting and back-off of requests to an endpoint."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class RequestPacer:
    """Rate limiter that spaces requests evenly, for all tasks of one event loop; `per_minute` None: no limit."""

    def __init__(
        self,
        per_minute: float | None,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._now, self._sleep = now, sleep
        self._next = 0.0

    async def acquire(self) -> None:
        """Wait for the next free slot and take it."""
        while True:
            now = self._now()
            if now >= self._next:
                self._next = now + self._interval
                return
            await self._sleep(self._next - now)

    def pause(self, seconds: float) -> None:
        """Hold back all requests for this time, at the endpoint's request."""
        self._next = max(self._next, self._now() + seconds)


def back_off(attempt: int, first: float, longest: float, generator: random.Random) -> float:
    """Seconds to wait after a failed attempt (0 is the first): between half and all of first × 2^attempt.

    The jitter keeps requests that failed together from retrying together.
    """
    return min(longest, first * 2.0 ** min(attempt, 64)) * generator.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a `Retry-After` header, a number or a date; None if it is missing or invalid."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None
