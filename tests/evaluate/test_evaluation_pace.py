"""Times of an evaluation: those between two reports of one kind of work, never those across methods or before."""

import pytest

from fairhuman.evaluate import pace as module
from fairhuman.evaluate.pace import Pace, peak_mb


def test_time_between_reports_of_one_kind(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    pace = Pace(lambda *report: told.append(report))
    reports = [(10.0, "faces", 0), (12.0, "faces", 4), (13.0, "scores", 2), (20.0, "faces", 6)]
    reports += [(50.0, "faces", 0), (51.0, "faces", 6), (60.0, "scores", 2)]  # another method; all was kept
    for at, what, done in reports:
        now[0] = at
        pace(what, done, 6)
    found = pace.seconds()
    assert found == {"faces": (12, pytest.approx(11.0 / 12))}
    assert told == [(what, done, 6) for _, what, done in reports]


def test_memory_is_in_megabytes():
    assert 20 < peak_mb() < 100_000
