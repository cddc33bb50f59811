"""Logs of a run that starts over or resumes hold each step once."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fairhuman.train.tracking import Tracker
from helpers.runs import read_lines


@pytest.mark.parametrize(("resumed", "kept"), [(0, []), (1, [0, 1])])
def test_what_was_logged_of_later_steps_is_removed(tmp_path: Path, resumed: int, kept: list[int]) -> None:
    first = Tracker(tmp_path, 0, None, {})
    first.validation(0, {"loss": 5.0}, {"loss": 5.0})
    for step in (1, 2, 3):
        first.metrics(step, {"validation/loss": float(step)})
    first.close()
    for file in (tmp_path / "tensorboard").iterdir():  # read in the order of names: of one second they don't tell
        file.rename(file.with_name("events.out.tfevents.0000000000.first"))
    Tracker(tmp_path, resumed, None, {}).close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [one.step for one in board.Scalars("validation/loss")] == kept
    rows = read_lines(tmp_path / "validation.jsonl") + read_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == kept


def test_a_resumed_run_goes_on_at_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the id of its first start; one that starts over is another run, as is one in another folder."""
    begun: list[dict[str, Any]] = []
    run = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: (begun.append(options), run)[1]))
    for folder, step in (("a", 0), ("a", 2), ("a", 4), ("a", 0), ("b", 2), ("b", 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        Tracker(tmp_path / folder, step, "people", {}).close()
    ids = [options["id"] for options in begun]
    assert ids[0] == ids[1] == ids[2]
    assert ids[4] == ids[5], "begun by a version that kept no id"
    assert len(set(ids)) == 3
    assert {options["resume"] for options in begun} == {"allow"}
