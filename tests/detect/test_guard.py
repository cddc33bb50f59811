"""The guard: every item gives a result or a failure, whatever native code does; no process is left behind."""

import multiprocessing
from functools import partial
from pathlib import Path

import pytest

from fairhuman.detect.guard import guarded_map
from fairhuman.detect.worker import Failure
from helpers.guarded_worker import squarer


@pytest.mark.parametrize("workers", [1, 3])
def test_other_items_continue_when_processes_die_hang_or_fail(workers: int) -> None:
    results = dict(guarded_map(squarer, range(10), workers=workers, seconds=1.0))
    failed = {index: result.reason for index, result in results.items() if isinstance(result, Failure)}
    assert failed == {
        3: "the process died (SIGSEGV)",
        5: "the process took too long and was ended",
        7: "LookupError: seven",
    }
    assert {index: r for index, r in results.items() if index not in failed} == {
        n: n * n for n in (0, 1, 2, 4, 6, 8, 9)
    }
    assert multiprocessing.active_children() == []


def test_processes_end_by_themselves_so_that_detectors_are_closed(tmp_path: Path) -> None:
    assert len(dict(guarded_map(partial(squarer, tmp_path), [0, 1, 2], workers=2))) == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_a_caller_that_leaves_leaves_no_process() -> None:
    results = guarded_map(squarer, range(3), workers=2)
    next(results)
    results.close()
    assert multiprocessing.active_children() == []
