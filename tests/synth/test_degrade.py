"""Only faces and hands of degraded pictures are changed."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, laplace

from fairhuman.synth.body import Body
from fairhuman.synth.degrade import degrade
from fairhuman.synth.people import people_row
from fairhuman.synth.render import render
from fairhuman.synth.settings import SynthSettings


@pytest.mark.parametrize("size", [64, 128])
def test_only_what_is_near_a_mask_changes(body: Body, size: int) -> None:
    for number in range(3):
        picture = render(body, 2, number, size)
        masks = picture.masks["face"], picture.masks["hand"]
        spoilt = degrade(picture.image, masks, np.random.default_rng(number))
        assert spoilt.dtype == np.uint8
        changed = np.abs(spoilt.astype(int) - picture.image).max(2)
        away = distance_transform_edt((masks[0] == 0) & (masks[1] == 0))
        assert not changed[away > 9 * size / 128 + 2].any()
        inside = (masks[0] == 255) | (masks[1] == 255)
        assert changed[inside].mean() > 4
        sharpness = [np.abs(laplace(image.mean(2)))[inside].mean() for image in (picture.image, spoilt)]
        assert sharpness[1] < 0.7 * sharpness[0]


def test_without_masks_nothing_changes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    empty = np.zeros((32, 32), np.uint8)
    assert (degrade(image, (empty, empty), np.random.default_rng(1)) == image).all()


def test_a_share_of_the_rows_is_degraded_and_the_rest_unchanged(body: Body) -> None:
    plain, some = SynthSettings(count=12, size=32), SynthSettings(count=12, size=32, degraded=0.5)
    spoilt = 0
    for number in range(12):
        clean, row = people_row(body, plain, number), people_row(body, some, number)
        assert (clean["image"] != row["image"]) == row["degraded"]
        spoilt += row["degraded"]
        for name in clean.keys() - {"image", "degraded"}:
            assert clean[name] == row[name], name
    assert 3 <= spoilt <= 9
