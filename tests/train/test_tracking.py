"""Logs of a run that starts over or resumes hold each step once."""

from pathlib import Path

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
