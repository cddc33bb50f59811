"""What is told at once when a signal comes, and what a second one does."""

import atexit
import os
import signal

import pytest

from fairhuman.utils.signals import announced, end_at_once, held_back, signals


def test_the_first_signal_is_told_and_the_second_stops_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    for number, again in ((signal.SIGINT, "Ctrl-C again"), (signal.SIGTERM, "another signal")):
        caught: list[int] = []
        with signals(lambda found=caught: bool(found), caught.append, "Ending after this step"):
            os.kill(os.getpid(), number)
            assert caught == [number]
            assert capfd.readouterr().err == f"Ending after this step; {again} stops at once\n"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert caught == [number]
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is before


def test_an_announced_interrupt_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), announced("Stopping"):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with announced("Stopping"), signals(lambda: False, lambda _: None):
            os.kill(os.getpid(), signal.SIGINT)  # the inner one decides
        assert capfd.readouterr() == ("", "Stopping\n")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with announced("Stopping"):
            os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr().err == "", "it is ignored"
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done: list[str] = []

    def interrupted() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the block")
        done.append("what follows")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert done == ["the block"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)  # ignored afterwards, too
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("second", [False, True])
def test_a_held_interrupt_is_delivered_on_demand_and_a_second_one_at_once(second: bool) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt), held_back() as deliver:  # noqa: PT012 (where it is raised is the test)
            deliver()
            os.kill(os.getpid(), signal.SIGINT)
            done.append("a block")
            if second:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                deliver()
            done.append("another")
        assert done == ["a block"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_can_end_without_the_interpreters_end() -> None:
    child = os.fork()
    if child == 0:
        atexit.register(os.abort)  # as a native library's thread does
        end_at_once(130)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
