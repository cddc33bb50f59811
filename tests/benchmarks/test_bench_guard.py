"""The guard against slowness: what it compares, and what it says of a ratio that got worse."""

import guard


def test_only_what_is_a_fifth_slower_is_worse() -> None:
    before = {"a": 1.0, "b": 2.0, "c": 0.05}
    assert guard.worse({"a": 1.19, "b": 1.0, "c": 0.059}, before) == {}
    assert guard.worse({"a": 1.21, "b": 2.5, "c": 0.05}, before) == {"a": (1.21, 1.0), "b": (2.5, 2.0)}


def test_all_that_is_measured_has_a_committed_ratio() -> None:
    known = guard.committed()
    assert {"solver", "FairBackward, MPD, sequential, no checkpointing", "mode output", "trainer, LS"} <= known.keys()
    assert all(0.0 < value < 5.0 for value in known.values())
    assert guard.weights().keys() <= known.keys()
