import asyncio
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from fairhuman.data.caption.pace import RequestPacer, back_off, retry_after


class Clock:
    """Time that passes in waiting alone."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def times(count: int, per_minute: float | None, hold: float = 0.0) -> list[float]:
    clock = Clock()
    pace = RequestPacer(per_minute, clock.now, clock.sleep)

    async def ask() -> list[float]:
        found = []
        for number in range(count):
            if number == 1:
                pace.pause(hold)
            await pace.acquire()
            found.append(clock.seconds)
        return found

    return asyncio.run(ask())


def test_requests_are_evenly_spaced_and_a_pause_holds_back_all() -> None:
    assert times(4, per_minute=30) == [0.0, 2.0, 4.0, 6.0]
    assert times(3, per_minute=None) == [0.0, 0.0, 0.0]
    assert times(3, per_minute=30, hold=5.0) == [0.0, 5.0, 7.0]
    assert times(3, per_minute=30, hold=1.0) == [0.0, 2.0, 4.0]


def test_waits_double_up_to_the_limit_with_half_of_each_random() -> None:
    chance = random.Random(0)
    for attempt in (0, 1, 2, 3, 10, 5000):
        waits = [back_off(attempt, 1.0, 60.0, chance) for _ in range(200)]
        most = min(60.0, 2.0 ** min(attempt, 10))
        assert most / 2 <= min(waits) < 0.6 * most
        assert 0.9 * most < max(waits) <= most


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "Tue, 99 Foo 2020"])
def test_an_invalid_retry_after_header_is_ignored(value: str) -> None:
    assert retry_after({"retry-after": value}) is None
    assert retry_after({}) is None


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": "-7"}) == 0.0
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert retry_after({"retry-after": until}) == pytest.approx(100, abs=5)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
