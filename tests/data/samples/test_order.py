"""Sources with repeats or weights, and aspect-ratio buckets."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from fairhuman.data.samples.buckets import bucket_resolutions, cropped_share, nearest_resolutions
from fairhuman.data.samples.order import SourceShare, bucketed_order, mixed_order
from fairhuman.data.samples.sampler import Order, SampleOrder

# SDXL: Podell et al. 2023, appendix I: the longer sides by the shorter side.
SDXL = {
    **{512: (1856, 1920, 1984, 2048), 576: (1664, 1728, 1792), 640: (1536, 1600), 704: (1344, 1408, 1472)},
    **{768: (1280, 1344), 832: (1152, 1216), 896: (1088, 1152), 960: (1024, 1088), 1024: (960, 1024)},
}


def drawn(order: Order, count: int) -> Counter[int]:
    return Counter(order.index(position) for position in range(count))


def random_sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    chance = random.Random(seed)
    return [(chance.randint(300, 900), chance.randint(300, 900)) for _ in range(count)]


def test_one_plain_source_is_the_plain_order():
    plain, mixed = SampleOrder(5, range(9)), mixed_order(5, [SourceShare(range(9))])
    assert [mixed.index(position) for position in range(30)] == [plain.index(position) for position in range(30)]


def test_repeats_within_each_epoch():
    order = mixed_order(5, [SourceShare(range(4), repeats=3), SourceShare(range(4, 10))])
    expected = Counter({record: 3 if record < 4 else 1 for record in range(10)})
    for epoch in range(4):
        assert Counter(order.index(position) for position in range(18 * epoch, 18 * epoch + 18)) == expected


def test_weights_are_shares_of_samples_whatever_the_sizes():
    order = mixed_order(5, [SourceShare(range(40), weight=1), SourceShare(range(40, 44), weight=3)])
    counts = drawn(order, 400)
    assert sum(counts[record] for record in range(40)) == pytest.approx(100, abs=2)
    assert {counts[record] for record in range(40, 44)} == {75}
    assert {counts[record] for record in range(40)} <= {2, 3}


def test_two_sources_of_one_size_have_orders_of_their_own():
    order = mixed_order(5, [SourceShare(range(50), weight=1), SourceShare(range(50, 100), weight=1)])
    seen = [order.index(position) for position in range(100)]
    assert [record for record in seen if record < 50] != [record - 50 for record in seen if record >= 50]


def test_resolutions_of_sdxl():
    found = bucket_resolutions((1024, 1024), 4.0, 64, None)
    wide = {(short, long) for short, sides in SDXL.items() for long in sides}
    assert set(found) <= wide | {(long, short) for short, long in wide}
    assert {min(size) for size in found} == set(SDXL)
    assert {(width, height) for height, width in found} == set(found)


@pytest.mark.parametrize(
    ("size", "aspect", "step"), [((1024, 1024), 2.0, 64), ((768, 512), 3.0, 64), ((64, 64), 2, 16)]
)
def test_resolutions_keep_to_their_rules(size, aspect, step):
    found = bucket_resolutions(size, aspect, step, None)
    assert size in found
    assert len(set(found)) == len(found) > 2
    for height, width in found:
        assert height % step == width % step == 0
        assert height * width <= size[0] * size[1] < (height + step) * (width + step)
        assert max(height, width) <= aspect * min(height, width)
    assert bucket_resolutions(size, 1.0, step, None) == [size] or size[0] != size[1]


@pytest.mark.parametrize(
    ("size", "aspect", "step", "least"),
    [((1024, 1024), 8.0, 64, 0.8), ((128, 128), 2.0, 16, 0.8), ((768, 512), 3.0, 64, 0.9), ((512, 512), 8.0, 16, 0.8)],
)
def test_pairs_of_sides_with_nearly_the_whole_area(size, aspect, step, least):
    found = bucket_resolutions(size, aspect, step, least)
    assert size in found
    area, units = size[0] * size[1], range(1, size[0] * size[1] // step**2 + 1)
    for height, width in found:
        assert height % step == width % step == 0
        assert least * area <= height * width <= area
        assert max(height, width) <= aspect * min(height, width)
    # Each pair is one of them or has one of nearly the same shape, which isn't smaller.
    for height, width in (
        (h * step, w * step) for h in units for w in units if least * area <= h * w * step**2 <= area
    ):
        if max(height, width) <= aspect * min(height, width):
            near = [(h, w) for h, w in found if abs(math.log(height * w / (width * h))) < 0.02]
            assert any(h * w >= height * width for h, w in near) or size in near
    logs = sorted(math.log(height / width) for height, width in found)
    assert min(b - a for a, b in pairwise(logs)) >= 0.02


def test_portrait_photos_lose_a_hundredth_where_steps_are_fine():
    cropped = {
        step: cropped_share([(512, 338)], nearest_resolutions([(512, 338)], bucket_resolutions((128, 128), 8.0, step)))
        for step in (64, 16)
    }
    assert cropped[64] == pytest.approx(0.34, abs=0.01)
    assert cropped[16] == pytest.approx(0.01, abs=0.002)


def nearest(size: tuple[int, int], resolutions: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return min(resolutions, key=lambda other: abs(math.log(size[0] / size[1]) - math.log(other[0] / other[1])))


def test_each_record_is_shown_in_the_bucket_nearest_to_it():
    sizes = random_sizes(300)
    order = bucketed_order(1, [SourceShare(range(300))], sizes, bucket_resolutions((512, 512), 2.0, 64), 8)
    assert len(order.resolutions) > 3
    seen = set()
    for position in range(900):
        record = order.index(position)
        seen.add(record)
        assert order.resolution(position) == nearest(sizes[record], order.resolutions)
    assert len(seen) == 300


def test_buckets_crop_less_away():
    assert cropped_share([(512, 512), (512, 256), (300, 600)], [(64, 64)] * 3) == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)
    sizes = random_sizes(300)
    order = bucketed_order(1, [SourceShare(range(300))], sizes, bucket_resolutions((512, 512), 2.0, 64), 8)
    shown = order.resolutions_of_records()
    bucketed = cropped_share(sizes, [shown[record] for record in range(300)])
    assert 0.0 < bucketed < cropped_share(sizes, [(512, 512)] * 300) / 2


def test_a_bucket_without_a_full_batch_is_closed():
    sizes = [(512, 512)] * 20 + [(640, 384)] * 3 + [(384, 640)] * 9
    resolutions = [(640, 384), (512, 512), (384, 640)]
    order = bucketed_order(1, [SourceShare(range(32))], sizes, resolutions, 8)
    assert list(order.resolutions) == [(512, 512), (384, 640)]
    assert [int(length) for length in order.lengths] == [23, 9]
    few = bucketed_order(1, [SourceShare(range(5))], random_sizes(5), resolutions, 8)
    assert len(few.resolutions) == 1
    assert set(drawn(few, 16).values()) == {3, 4}
    # Repeats are samples too.
    order = bucketed_order(1, [SourceShare(range(20)), SourceShare(range(20, 32), repeats=3)], sizes, resolutions, 8)
    assert [int(length) for length in order.lengths] == [9, 20, 27]


def test_a_bucket_that_would_be_cropped_elsewhere_stays_open():
    sizes = [(512, 512)] * 20 + [(640, 384)] * 2 + [(500, 512)]
    resolutions = [(640, 384), (512, 512), (496, 512)]
    order = bucketed_order(1, [SourceShare(range(23))], sizes, resolutions, 8, most_cropped=0.05)
    assert list(order.resolutions) == [(640, 384), (512, 512)]
    assert [int(length) for length in order.lengths] == [2, 21]
    counts = drawn(order, 8 * 23 * 4)
    assert len(counts) == 23
    assert max(counts.values()) - min(counts.values()) <= 4  # a batch shows each of two records four times
    assert set(drawn(order, 24)) & {20, 21}, "they are seen from the first epochs on"


def test_repeats_and_weights_hold_with_buckets():
    sizes, resolutions = random_sizes(90), bucket_resolutions((512, 512), 2.0, 128)
    repeated = bucketed_order(1, [SourceShare(range(30), repeats=2), SourceShare(range(30, 90))], sizes, resolutions, 4)
    counts = drawn(repeated, 10 * 120)
    assert all(abs(counts[record] - (20 if record < 30 else 10)) <= 2 for record in range(90))
    weights = [SourceShare(range(30), weight=3), SourceShare(range(30, 90), weight=1)]
    weighted = bucketed_order(1, weights, sizes, resolutions, 4)
    counts = drawn(weighted, 40 * 90)
    assert sum(weighted.lengths) == pytest.approx(90)
    assert sum(counts[record] for record in range(30)) / (40 * 90) == pytest.approx(0.75, abs=0.005)
    assert all(abs(counts[record] - (90 if record < 30 else 15)) <= 3 for record in range(90))
