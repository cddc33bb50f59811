"""When the next request to an endpoint may go out."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class RequestPacer:
    """Spreads requests evenly over time, for all that ask within one event loop.

    Args:
        per_minute: requests at most; None: no limit.
        now: seconds of a clock that never goes back.
        sleep: waits that many seconds.

    """

    def __init__(
        self,
        per_minute: float | None,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._now, self._sleep = now, sleep
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next free moment, and take it."""
        while True:
            now = self._now()
            if now >= self._next:
                self._next = now + self._interval
                return
            await self._sleep(self._next - now)

    def hold(self, seconds: float) -> None:
        """Let nobody go out for that long: the endpoint has asked for it."""
        self._next = max(self._next, self._now() + seconds)


def back_off(attempt: int, first: float, longest: float, chance: random.Random) -> float:
    """Seconds to wait after a failed attempt (0 is the first): first × 2^attempt at most, half of it at least.

    The random part keeps requests that failed together from coming back together.
    """
    return min(longest, first * 2.0 ** min(attempt, 64)) * chance.uniform(0.5, 1.0)


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds from a `Retry-After` header, a number or a date; None where there is none that can be read."""
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
