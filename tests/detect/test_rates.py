"""Rates: exact on written answers, the same with any number of processes, and told apart from failures."""

import math
import multiprocessing
import time

import numpy as np
import pytest

from fairhuman.detect.detection import Detection, DetectorError
from fairhuman.detect.rates import PartRates, find_parts, part_rates
from fairhuman.record import Box
from helpers.tiny_detectors import CRASH, HANG, RAISE, DiesAtStart, Fragile, Quadrant, WontStart, Written, picture

SPOT = {"spot": Written}


def found(*scores: float) -> dict[str, list[Detection]]:
    """Detections centred at (10, 10), (20, 10), ..."""
    return {"spot": [Detection(Box(8 + 10 * i, 8, 12 + 10 * i, 12, s), "spot") for i, s in enumerate(scores)]}


def rates(pictures: list[dict[str, list[Detection]]], truth: list[tuple[Box, ...] | None] | None = None) -> PartRates:
    return part_rates(pictures, None if truth is None else {"spot": truth}, parts=("spot",))["spot"]


def test_the_best_score_of_a_picture_counts_and_a_miss_is_zero() -> None:
    result = rates([found(0.5, 0.9), found(), found(0.7), found()])
    assert (result.found.value, result.found.n) == (0.5, 4)
    assert result.score_where_found == pytest.approx(0.8)
    assert result.score_zero_where_none == pytest.approx(0.4)
    assert result.on_target is None


def test_nothing_found_has_a_zero_score_and_no_mean_of_the_found() -> None:
    result = rates([found(), found()])
    assert (result.found.value, result.found.low) == (0.0, 0.0)
    assert math.isnan(result.score_where_found)
    assert result.score_zero_where_none == 0.0


def test_unknown_boxes_and_known_absence_count_as_they_should() -> None:
    at_first = Box(0, 0, 14, 14)
    truth = [(at_first,), (at_first,), (), None]
    result = rates([found(0.5, 0.9), found(), found(0.7), found(1.0)], truth)
    # found: the first two pictures have the part. on target: (10, 10) of two in the first, none of one in the third.
    assert (result.found.value, result.found.n) == (0.5, 2)
    assert result.score_where_found == pytest.approx(0.9)
    assert result.on_target is not None
    assert (result.on_target.value, result.on_target.n) == (pytest.approx(1 / 3), 3)


def test_true_boxes_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"one entry per picture \(1\), not 2"):
        part_rates([found()], {"spot": [(), ()]}, parts=("spot",))
    with pytest.raises(ValueError, match="parts spot, not 'hand'"):
        part_rates([found()], {"hand": [()]}, parts=("spot",))


def test_any_number_of_processes_gives_the_same_and_progress_reaches_the_end() -> None:
    pictures = [picture(*range(50, 50 + n % 4)) for n in range(13)]
    results = []
    for workers in (1, 3):
        steps: list[tuple[int, int]] = []
        all_found = find_parts(
            pictures, detectors=SPOT, workers=workers, progress=lambda done, n, steps=steps: steps.append((done, n))
        )
        assert steps == [(done, 13) for done in range(1, 14)]
        results.append([[one.box for one in of_picture["spot"]] for of_picture in all_found])
    assert results[0] == results[1]
    assert [len(boxes) for boxes in results[0]] == [n % 4 for n in range(13)]
    assert results[0][3][2] == Box(28, 8, 32, 12, 0.52)


def test_no_pictures_need_no_process() -> None:
    assert find_parts([], detectors={"spot": DiesAtStart}) == []
    assert rates([]).found.n == 0


def test_small_pictures_are_enlarged_and_detections_scaled_back() -> None:
    small, large = np.zeros((40, 64, 3), dtype=np.uint8), np.zeros((300, 200, 3), dtype=np.uint8)
    small[10, 20], large[10, 20] = 255, 255
    in_small, in_large = (parts["spot"][0] for parts in find_parts([small, large], detectors={"spot": Quadrant}))
    assert (in_small.label, in_large.label) == ("256x160", "200x300")
    assert in_small.centre == pytest.approx((20.5, 10.5), abs=0.3)
    assert in_large.centre == (20.5, 10.5)
    assert in_small.landmarks_n3 is not None
    assert in_small.landmarks_n3[0] == pytest.approx([20.5, 10.5, 64], abs=0.3)


@pytest.mark.parametrize(("mark", "reason"), [(CRASH, "process died .SIGSEGV"), (RAISE, "RuntimeError: spoiled")])
def test_the_picture_that_breaks_a_detector_is_named(mark: int, reason: str) -> None:
    pictures = [picture(50) for _ in range(8)]
    pictures[5] = picture(50, mark=mark)
    with pytest.raises(DetectorError, match=rf"picture 5 of 8 \(the first is 0\): .*{reason}") as caught:
        find_parts(pictures, detectors={"spot": Fragile}, workers=2)
    assert caught.tb is not None  # an error that is still looked at keeps no process alive
    assert multiprocessing.active_children() == []


def test_a_hanging_detector_is_ended_and_the_picture_named() -> None:
    begun = time.monotonic()
    with pytest.raises(DetectorError, match=r"picture 1 of 2 .* took too long"):
        find_parts([picture(50), picture(50, mark=HANG)], detectors={"spot": Fragile}, seconds=0.5)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(("detector", "reason"), [(WontStart, "OSError: no model here"), (DiesAtStart, "exit code 7")])
def test_detectors_that_do_not_start_end_the_run(detector: type[Written], reason: str) -> None:
    with pytest.raises(DetectorError, match=f"a detector can't start: .*{reason}"):
        find_parts([picture(), picture()], detectors={"spot": detector}, workers=2)


@pytest.mark.parametrize("setting", [{"upscale": 0}, {"workers": 0}, {"seconds": 0.0}])
def test_settings_out_of_range_are_named(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
        find_parts([picture()], detectors=SPOT, **setting)  # type: ignore[arg-type]


def test_a_refused_picture_is_named() -> None:
    with pytest.raises(DetectorError, match=r"picture 0 .*image must be uint8 \(0\.\.255\), not float32"):
        find_parts([np.zeros((8, 8, 3), dtype=np.float32)], detectors=SPOT)  # type: ignore[list-item]
