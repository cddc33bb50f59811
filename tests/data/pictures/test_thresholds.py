"""What a threshold leaves out is counted, and the suggested value keeps what it promises."""

import re

import numpy as np
import pytest

from fairhuman.data.pictures.filters import Aspect, ClarityPercentile, Faces, Measures, PersonShare, ShorterSide
from fairhuman.data.pictures.thresholds import harms


def test_equal_pictures_are_kept_by_their_own_size():
    (harm,) = harms([ShorterSide(low=512)], [Measures(338, 512)] * 198, "filters.")
    assert harm.harsh
    assert harm.line == (
        "shorter side below 512 pixels (198 of 198): lower filters.min_side: filters.min_side=338 would keep all"
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_suggested_bound_keeps_nine_of_ten(seed):
    """Low and high bounds, of any size, with pictures whose measure is unknown."""
    generator = np.random.default_rng(seed)
    shares = generator.random(generator.integers(1, 60)) * 10.0 ** -generator.integers(0, 8)
    measures = [Measures(10, 10, person_share=share) for share in shares] + [Measures(10, 10)] * 3
    for low, high in ((2.0, None), (None, -1.0)):
        (harm,) = harms([PersonShare(low, high)], measures)
        assert (harm.rejected, harm.pictures) == (len(shares), len(measures))
        value = float(re.search(r"_share=(\S+)", harm.advice)[1])
        rule = PersonShare(value, None) if high is None else PersonShare(None, value)
        kept = sum(rule.judge(each) is None for each in measures)
        assert kept - 3 >= 0.9 * len(shares)
        assert ("would keep all" in harm.advice) == (kept == len(measures))
        assert "would keep all" in harm.advice or f"would keep {kept} of {len(measures)}" in harm.advice


def test_of_few_pictures_the_suggested_bound_keeps_all():
    """Of many it leaves out the smallest tenth."""
    for count, kept in ((40, "all"), (100, "all"), (200, "180 of 200")):
        (harm,) = harms([ShorterSide(low=2000)], [Measures(300 + number, 900) for number in range(count)])
        assert harm.advice == f"lower min_side: min_side={300 + (20 if count == 200 else 0)} would keep {kept}"


def test_pictures_that_cannot_be_judged_are_counted_where_they_are_left_out():
    measures = [Measures(9, 9, faces=1)] * 3 + [Measures(9, 9, faces=0)] + [Measures(9, 9)] * 6
    unjudged, below = harms([Faces(low=1)], measures, "filters.", unknown_kept=False)
    assert unjudged.line == "number of faces unjudged (6 of 10): filters.unknown=keep would keep them"
    assert (below.reason, below.rejected) == ("number of faces below 1", 1)
    assert [harm.reason for harm in harms([Faces(low=1)], measures)] == ["number of faces below 1"]


def test_only_bounds_that_leave_something_out_are_named():
    measures = [Measures(width, 100, faces=0) for width in range(50, 150)]
    assert harms([ShorterSide(low=50), Aspect(0.5, 1.49)], measures) == []
    faces, below, above = harms([Faces(low=1), Aspect(0.6, 1.0)], measures)
    assert faces.line == "number of faces below 1 (100 of 100): change needs"
    assert (below.rejected, above.rejected) == (10, 49)
    assert not below.harsh
    assert above.advice.startswith("raise max_aspect: max_aspect=1.")
    (clear,) = harms([ClarityPercentile(low=9.0)], [Measures(1, 1, 3.0)])
    assert clear.advice == "lower min_clarity_percentile"
