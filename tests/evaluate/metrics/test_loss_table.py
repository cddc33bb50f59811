"""Losses of models as a table: paired changes, tests and their correction, no number where there is none."""

import json
import math

import numpy as np
import pytest

from fairhuman.evaluate.metrics.held_out_losses import loss_table
from fairhuman.stats.paired import holm, paired_difference
from fairhuman.train.validation import HeldOutLosses

N = 40
KEYS = [f"{number}.png" for number in range(N)]


def held_out(whole: np.ndarray, face: np.ndarray, areas: np.ndarray) -> HeldOutLosses:
    errors = {"global": whole.tolist(), "face": face.tolist(), "hand": [0.0] * N}
    return HeldOutLosses(KEYS, errors, {"global": [1.0] * N, "face": areas.tolist(), "hand": [0.0] * N})


def test_changes_are_tested_in_pairs_and_corrected_for_all_lines() -> None:
    generator = np.random.default_rng(0)
    whole, face, areas = generator.uniform(0.5, 2.0, (3, N))
    areas[:10] = face[:10] = 0.0  # pictures without a face
    better = face * generator.normal(0.95, 0.02, N)
    base, model = held_out(whole, face, areas), held_out(whole * generator.normal(1, 0.02, N), better, areas)
    lines = {(line.model, line.objective): line for line in loss_table({"base": base, "ours": model, "same": base})}
    expected = paired_difference((better, areas), (face, areas), KEYS).p
    ours = lines["ours", "face"]
    assert ours.change is not None
    assert ours.change.value == pytest.approx(better.sum() / face.sum() - 1)
    assert ours.p == expected < 0.01
    assert ours.loss.n == 30
    assert lines["ours", "global"].p > 0.05
    tested = [line for line in lines.values() if not math.isnan(line.p)]
    assert [line.p_holm for line in tested] == holm([line.p for line in tested])
    assert {(line.model, line.objective) for line in tested} == {("ours", "global"), ("ours", "face")}


def test_a_loss_of_nothing_is_null() -> None:
    ones = np.ones(N)
    found = {"base": held_out(ones, ones, ones), "broken": held_out(ones * np.inf, ones, ones)}
    lines = [line.plain() for line in loss_table(found)]
    assert json.loads(json.dumps(lines, allow_nan=False)) == lines
    plain = {(one["model"], one["objective"]): one for one in lines}
    assert plain["base", "hand"]["loss"]["value"] is None
    assert plain["broken", "global"]["change"]["value"] is plain["broken", "global"]["p_holm"] is None
    assert plain["broken", "face"]["p_holm"] == 1.0
