"""Parts of the body by the bundled models, on rendered people whose parts are known."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fairhuman.detect.body_parts import open_body_parts
from fairhuman.detect.found_region import BODY_PARTS, FoundRegion
from fairhuman.synth.body import Body
from fairhuman.synth.render import Rendering, render

# Least precision and recall of pixels, a little below what was measured (`benchmarks/regions.py`).
BODY = {"head": (0.7, 0.7), "upper_body": (0.8, 0.8), "legs": (0.7, 0.8), "feet": (0.5, 0.8)}
FACE = {"eyes": (0.4, 0.6), "mouth": (0.35, 0.25)}


def check(picture: Rendering, found: Mapping[str, FoundRegion], wanted: Mapping[str, tuple[float, float]]) -> None:
    for part, least in wanted.items():
        true_hw, region = picture.masks[part] >= 128, found[part]
        assert region.mask_hw is not None
        both = (true_hw & region.mask_hw).sum()
        assert both / region.mask_hw.sum() >= least[0], part
        assert both / true_hw.sum() >= least[1], part
        assert all(0 < box.score <= 1 for box in region.boxes if box.score is not None)


def test_a_person_from_head_to_foot_and_a_face(body: Body) -> None:
    person = render(body, 909, 1, 384, "waving", "full_body", parts=True)
    face = render(body, 909, 0, 512, parts=True)
    with open_body_parts(0.5, upscale=4, persons=8) as find:
        found = find(person.image)
        check(face, find(face.image), FACE)
        assert find(np.zeros_like(person.image)) == {}, "nobody"
        with pytest.raises(ValueError, match="must be uint8"):
            find(person.image.astype(np.float32))  # type: ignore[arg-type]  # refused
    check(person, found, BODY)
    assert set(found) <= set(BODY_PARTS)


def test_two_people_have_parts_each_with_boxes_and_one_mask(body: Body) -> None:
    """Beside each other, and the second one alone: what a part's person is doesn't change what is found of it."""
    first, second = (render(body, seed, 1, 384, "waving", "full_body", parts=True) for seed in (909, 31))
    both = np.concatenate([first.image, second.image], axis=1)
    with open_body_parts(0.5, upscale=4, persons=8) as find:
        found = find(both)
    masks = {part: np.concatenate([one.masks[part] for one in (first, second)], axis=1) for part in BODY}
    check(replace(first, masks=masks), found, BODY)
    assert [(set(found[part].persons or ()), found[part].searched) for part in BODY] == [({0, 1}, 2)] * len(BODY)
    heads = found["head"]
    assert {person: box.x0 >= 384 for person, box in zip(heads.persons or (), heads.boxes, strict=True)} in (
        {0: False, 1: True},
        {0: True, 1: False},
    )
    assert sorted(found["feet"].persons or ()) == [0, 0, 1, 1]
    with open_body_parts(0.5, upscale=4, persons=1) as find:
        one = find(both)["head"]
    assert (one.persons, one.searched, one.boxes[0]) == ((0,), 1, heads.boxes[(heads.persons or ()).index(0)])


def test_tiny_pictures_are_enlarged_and_scaled_back(body: Body) -> None:
    small = render(body, 909, 1, 96, "waving", "full_body", parts=True)
    with open_body_parts(0.5, upscale=4, persons=8) as find:
        found = find(small.image)
    for part in ("upper_body", "legs"):
        true_hw, region = small.masks[part] >= 128, found[part]
        assert region.mask_hw is not None
        assert region.mask_hw.shape == true_hw.shape
        assert (true_hw & region.mask_hw).sum() > 0.7 * true_hw.sum()
        assert all(box.x1 <= 96 and box.y1 <= 96 for box in region.boxes)
