"""Distances of crops: how many crops a detector finds in a picture makes no method better or worse."""

import numpy as np

from fairhuman.evaluate.metrics.distances import measure_frechet
from fairhuman.evaluate.metrics.set_distances import EvalCrop, _Sets
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.record import HumanRecord
from fairhuman.regions.squares import Square

PICTURES, WIDTH = 60, 64


def picture(number):
    name = str(number)
    return EvalImage(HumanRecord(name, b"", 8, 8, ""), name.encode(), name, name)


def crops(counts, first=0):
    return [EvalCrop(picture(first + n), Square(k, 0, 8)) for n, count in enumerate(counts) for k in range(count)]


def sets(generator, few, many):
    items = {"few": crops(few), "many": crops(many)}
    true = crops([1] * 200, first=1000)
    draw = {name: generator.normal(size=(len(each), WIDTH)) for name, each in (*items.items(), ("true", true))}
    pictures = {name: [picture(n) for n in range(PICTURES)] for name in items}
    return _Sets(pictures, items, draw, true, draw["true"])


def test_who_has_fewer_crops_of_a_picture_is_not_worse_for_that():
    worse = []
    for seed in range(10):
        drawn = sets(np.random.default_rng(seed), [1] * PICTURES, [1, 2] * (PICTURES // 2))
        distances = {name: drawn.distance(measure_frechet, name) for name in drawn.items}
        difference = drawn.differences(measure_frechet, distances, "many")["few"]
        worse.append(difference.measured.value > 0)
        assert difference.p > 0.001
    assert 1 < sum(worse) < 9


def test_crops_are_drawn_whatever_their_order():
    drawn = sets(np.random.default_rng(0), [1] * PICTURES, [4] * PICTURES)
    few, many = drawn.shared_rows("few", "many")
    assert few == list(range(PICTURES))
    assert [row // 4 for row in many] == few
    counts = np.bincount([row % 4 for row in many], minlength=4)
    assert counts.min() > 5, "the detector's first crops are not favoured"
