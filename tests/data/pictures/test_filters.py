"""Filters judge what is known, and only that; clarity and covered area are what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from fairhuman.config import build
from fairhuman.data.pictures.filters import (
    ClarityPercentile,
    FacesAndHands,
    FilterSettings,
    Measures,
    ShorterSide,
    active_filters,
    clarity,
    covered_share,
    measure,
)
from fairhuman.errors import RecipeError
from fairhuman.record import Box, HumanRecord

ALL_ON = FilterSettings(
    min_side=100,
    min_aspect=0.5,
    max_aspect=2.0,
    needs=("face", "hand", "face or hand"),
    min_persons=1,
    max_persons=3,
    min_person_share=0.1,
    max_person_share=0.9,
    min_clarity=50.0,
)
GOOD = Measures(200, 200, clarity=50.0, persons=3, person_share=0.1, faces=1, hands=1)


def scene(width: int, height: int) -> Image.Image:
    """Blocks with sharp edges, the same at any size."""
    coarse = np.random.default_rng(3).integers(0, 256, (12, 16), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST).convert("RGB")


def test_blur_lowers_clarity_step_by_step() -> None:
    picture = scene(640, 480)
    values = [clarity(picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 0.7, 1.5, 3, 6)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.05 * values[0]


def test_clarity_of_a_flat_picture_is_zero_and_goes_with_the_square_of_contrast() -> None:
    assert clarity(Image.new("RGB", (300, 500), "gray")) == 0.0
    picture = scene(640, 480)
    assert clarity(ImageEnhance.Contrast(picture).enhance(0.5)) == pytest.approx(clarity(picture) / 4, rel=0.05)


@pytest.mark.parametrize("size", [(1280, 960), (2560, 1920), (960, 1280)])
def test_clarity_of_the_same_picture_is_about_the_same_at_any_size_and_way_up(size: tuple[int, int]) -> None:
    large = scene(max(size), min(size))
    large = large if size[0] > size[1] else large.transpose(Image.Transpose.ROTATE_90)
    assert clarity(large) == pytest.approx(clarity(scene(640, 480)), rel=0.35)


def test_an_enlarged_small_picture_is_less_clear_than_a_large_one() -> None:
    assert clarity(scene(1280, 960).resize((160, 120), Image.Resampling.BICUBIC)) < 0.5 * clarity(scene(1280, 960))


@pytest.mark.parametrize("size", [(3, 4000), (1, 1)])
def test_clarity_of_odd_shapes_is_a_number(size: tuple[int, int]) -> None:
    assert np.isfinite(clarity(Image.new("L", size)))


boxes_of_20 = st.lists(st.tuples(*[st.integers(0, 19)] * 4), max_size=8)


@settings(max_examples=60, deadline=None)
@given(boxes_of_20)
def test_covered_share_is_that_of_a_painted_mask(corners: list[tuple[int, int, int, int]]) -> None:
    mask = np.zeros((20, 20), dtype=bool)
    boxes = []
    for x0, y0, width, height in corners:
        x1, y1 = min(x0 + 1 + width, 20), min(y0 + 1 + height, 20)
        boxes.append(Box(x0, y0, x1, y1))
        mask[y0:y1, x0:x1] = True
    assert covered_share(boxes, 20, 20) == pytest.approx(mask.mean())


def test_bounds_themselves_are_allowed() -> None:
    assert [each.judge(GOOD) for each in active_filters(ALL_ON, [])] == [None] * 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": 99}, "shorter side below 100 pixels"),
        ({"width": 401}, "width through height above 2"),
        ({"faces": 0}, "number of faces below 1"),
        ({"hands": 0}, "number of hands below 1"),
        ({"persons": 0}, "number of persons below 1"),
        ({"persons": 4}, "number of persons above 3"),
        ({"person_share": 0.09}, "share covered by persons below 0.1"),
        ({"clarity": 49.9}, "clarity below 50 grey levels²"),
    ],
)
def test_each_filter_names_rule_and_value(change: dict[str, float], reason: str) -> None:
    measures = Measures(**{name: getattr(GOOD, name) for name in Measures.__slots__} | change)
    rejections = [found for each in active_filters(ALL_ON, []) if (found := each.judge(measures))]
    assert rejections[0].reason == reason
    expected = next(iter(change.values())) if "aspect" not in reason and "through" not in reason else 401 / 200
    assert rejections[0].value == expected


def test_what_is_unknown_is_never_rejected() -> None:
    unknown = Measures(200, 200)
    assert [each.name for each in active_filters(ALL_ON, []) if each.judge(unknown)] == []
    assert sum(each.value(unknown) is None for each in active_filters(ALL_ON, [])) == 6


@pytest.mark.parametrize(
    ("faces", "hands", "expected"), [(None, None, None), (0, None, None), (0, 0, 0), (1, None, 1), (None, 2, 2)]
)
def test_no_face_says_nothing_while_hands_are_unknown(faces: int, hands: int, expected: int) -> None:
    assert FacesAndHands(low=1).value(Measures(9, 9, faces=faces, hands=hands)) == expected


@pytest.mark.parametrize(
    ("persons", "faces", "hands", "expected"),
    [
        *((None, None, None, None), (None, 0, None, None), (None, 0, 0, 0), (None, None, 2, 2)),
        *((0, None, None, 0), (1, None, None, 1), (0, 0, 1, 1), (2, 1, None, 3)),
    ],
)
def test_people_are_persons_faces_or_hands(persons: int, faces: int, hands: int, expected: int) -> None:
    (rule,) = active_filters(FilterSettings(min_side=None, needs=("people",)), [])
    measures = Measures(9, 9, persons=persons, faces=faces, hands=hands)
    assert rule.value(measures) == expected
    rejection = rule.judge(measures)
    assert (rejection and rejection.reason) == ("relevance: no person, face or hand" if expected == 0 else None)


def test_a_percentile_becomes_a_value_over_what_is_known() -> None:
    measures = [Measures(9, 9, clarity=value) for value in (10.0, 20.0, 30.0, 40.0, 50.0, None)]
    found = active_filters(FilterSettings(min_side=None, min_clarity_percentile=25), measures)
    assert found == [ClarityPercentile(low=20.0)]
    assert active_filters(FilterSettings(min_side=None, min_clarity_percentile=25), [Measures(9, 9)]) == []


def test_only_resolution_is_on_by_default() -> None:
    assert active_filters(FilterSettings(), []) == [ShorterSide(low=1024)]


def test_measures_of_a_record() -> None:
    boxes = {"face": (Box(0, 0, 5, 5),), "hand": None, "person": (Box(0, 0, 50, 100), Box(25, 0, 75, 100))}
    record = HumanRecord("a", b"", 100, 100, "", boxes, masks={"hand": b"mask"})
    assert measure(record, 7.0) == Measures(100, 100, clarity=7.0, persons=2, person_share=0.75, faces=1, hands=1)
    assert measure(HumanRecord("a", b"", 100, 100, "")) == Measures(100, 100)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_aspect": 2, "max_aspect": 1}, "min_aspect must be at most max_aspect, found 2 and 1"),
        ({"min_persons": 2, "max_persons": 1}, "min_persons must be at most max_persons"),
        ({"min_clarity": 1, "min_clarity_percentile": 1}, "not both"),
        ({"needs": ["foot"]}, "needs"),
        ({"min_sides": 3}, "did you mean 'min_side'"),
        ({"min_clarity": float("nan")}, "min_clarity"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(FilterSettings, values)
