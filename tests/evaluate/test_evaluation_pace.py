"""Times of an evaluation: those between two reports of one kind of work, never those across methods or before."""

import subprocess
import sys

import pytest

from fairhuman.evaluate import pace as module
from fairhuman.evaluate.pace import TimedProgress, peak_mb, task_words
from fairhuman.utils.memory import peak_resident_bytes


def test_time_between_reports_of_one_kind(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    pace = TimedProgress(lambda *report: told.append(report))
    reports = [(10.0, "faces", 0), (12.0, "faces", 4), (13.0, "scores", 2), (20.0, "faces", 6)]
    reports += [(50.0, "faces", 0), (51.0, "faces", 6), (60.0, "scores", 2)]  # another method; all was kept
    for at, what, done in reports:
        now[0] = at
        pace(what, done, 6)
    found = pace.seconds()
    assert found == {"faces": (12, pytest.approx(11.0 / 12))}
    assert told == [(what, done, 6) for _, what, done in reports]


def test_tasks_have_names_for_users_and_those_of_others_their_own():
    assert task_words("findings-1-mediapipe-0.10.21-x4") == "finding faces and hands"
    assert task_words("mine") == "mine"


def test_memory_is_in_megabytes():
    assert 20 < peak_mb() < 100_000


def test_memory_of_a_process_is_its_own_not_that_of_who_started_it():
    held = bytearray(600 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    script = "from fairhuman.utils.memory import peak_resident_bytes; print(peak_resident_bytes())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(said.stdout) < 300e6 < peak_resident_bytes()
