"""One guarded process over many calls: replaced when it dies, hangs or grows; startable from anywhere; no orphans."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from fairhuman.detect.detection import DetectorError
from fairhuman.detect.guard import Guarded
from fairhuman.detect.worker import Failure
from fairhuman.utils.memory import resident_mb
from helpers.guarded_worker import in_a_daemon, starts_once, wont_start, worker


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends in time, with its threads; one that nobody has waited for counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
            threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        except OSError:
            return True
        if state == "Z" and threads == 1:
            return True
        time.sleep(0.05)
    return False


def test_a_process_that_dies_or_hangs_is_replaced_and_one_that_raises_is_kept() -> None:
    with Guarded(worker, seconds=1.0) as guarded:
        first = guarded.call("work")
        assert guarded.call("work") == guarded.call("work") == first != os.getpid()
        assert guarded.call("fail") == Failure("LookupError: no such thing")
        assert guarded.call("work") == first
        assert guarded.call("die") == Failure("the process died (SIGSEGV)")
        second = guarded.call("work")
        assert guarded.call("hang") == Failure("the process took too long and was ended")
        third = guarded.call("work")
    assert len({first, second, third}) == 3
    assert all(isinstance(pid, int) and gone(pid) for pid in (first, second, third))
    assert multiprocessing.active_children() == []


def test_one_that_has_died_between_two_items_costs_no_item() -> None:
    with Guarded(worker) as guarded:
        first = guarded.call("work")
        assert isinstance(first, int)
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        assert isinstance(guarded.call("work"), int)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_a_process_that_has_grown_is_replaced_and_closes_what_it_had_opened(tmp_path: Path) -> None:
    with Guarded(worker) as guarded:
        pid = guarded.call("work")
        assert isinstance(pid, int)
        at_rest = resident_mb(pid)
    assert 5 < at_rest < resident_mb(os.getpid())
    with Guarded(partial(worker, tmp_path), max_rss_mb=at_rest + 150) as guarded:
        pids = [guarded.call("grow") for _ in range(5)]
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3]
    assert {path.name for path in tmp_path.iterdir()} == {str(pid) for pid in pids}
    assert resident_mb(None) == 0.0


def test_what_does_not_start_says_so_at_once_and_again_when_it_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="OSError: no model here"), Guarded(wont_start):
        pytest.fail("must not start")
    with Guarded(partial(starts_once, tmp_path / "mark")) as guarded:
        assert isinstance(guarded.call("die"), Failure)
        with pytest.raises(DetectorError, match="FileExistsError"):
            guarded.call("work")
    assert multiprocessing.active_children() == []


def test_a_call_that_is_interrupted_leaves_no_late_result() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Guarded(worker) as guarded:
        first = guarded.call("work")
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            guarded.call("hang")
        signal.signal(signal.SIGALRM, before)
        assert guarded.call("fail") == Failure("LookupError: no such thing")
        assert guarded.call("work") != first


def test_it_is_open_in_its_block_alone_and_checks_its_settings() -> None:
    guarded = Guarded(worker)
    with pytest.raises(ValueError, match="must be open to call"):
        guarded.call("work")
    with guarded:
        pass
    with pytest.raises(ValueError, match="must be open to call"):
        guarded.call("work")
    for setting in ({"seconds": 0}, {"max_rss_mb": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
            Guarded(worker, **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_works_in_a_daemonic_process(method: str) -> None:
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=in_a_daemon, args=(answers,), daemon=True)
    process.start()
    first, failure, second = answers.get(timeout=120)
    assert failure == Failure("the process died (SIGSEGV)")
    assert first != second
    assert answers.get(timeout=60) is True
    process.join(60)
    assert process.exitcode == 0


SCRIPT = """
import sys, time
from helpers.guarded_worker import worker
from fairhuman.detect.guard import Guarded
if __name__ == "__main__":
    with Guarded(worker) as guarded:
        print(guarded.call("work"), flush=True)
        guarded.call(sys.argv[1])
        time.sleep(600)
"""


@pytest.mark.parametrize("busy", ["work", "hang"])
def test_no_process_outlives_one_that_was_killed(busy: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), busy]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child, 0.5)
        parent.kill()
        assert gone(child)
