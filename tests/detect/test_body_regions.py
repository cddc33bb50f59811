"""Parts of a body from key points and a mask: a figure whose parts are known."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from fairhuman.detect.body_regions import _hull, body_regions, face_regions, hand_region, outline_mask, separate
from fairhuman.detect.found_region import FoundRegion, of_persons, region_of, shrunk
from fairhuman.record import Box

WIDTH, HEIGHT = 200, 400
# A person who stands and faces the camera, so that the left side is on the right: BlazePose's points by name.
NAMED = {
    0: (100, 50), 7: (115, 48), 8: (85, 48), 9: (106, 60), 10: (94, 60), 2: (107, 45), 5: (93, 45),
    11: (130, 100), 12: (70, 100), 13: (150, 150), 14: (50, 150), 15: (155, 195), 16: (45, 195),
    17: (158, 205), 18: (42, 205), 19: (154, 206), 20: (46, 206), 21: (150, 200), 22: (50, 200),
    23: (118, 200), 24: (82, 200), 25: (118, 280), 26: (82, 280), 27: (118, 355), 28: (82, 355),
    29: (118, 370), 30: (82, 370), 31: (130, 372), 32: (70, 372),
}  # fmt: skip
POINTS = np.array([(*NAMED.get(index, (100, 50)), 0) for index in range(33)], dtype=np.float32)
SEEN = np.ones(33, dtype=np.float32)
BODY = ("head", "upper_body", "legs", "feet")


def person(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A mask around all key points: the head, the trunk with arms, two legs, two feet."""
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    for left, top, right, bottom in (
        (80, 20, 120, 90), (40, 90, 160, 210), (65, 200, 135, 230), (70, 230, 95, 385), (105, 230, 130, 385)
    ):  # fmt: skip
        mask_hw[top:bottom, left:right] = 1
    return mask_hw[:height, :width]


def masks(found: dict[str, FoundRegion]) -> dict[str, np.ndarray]:
    return {name: region.mask_hw for name, region in found.items()}


def test_every_pixel_of_the_person_belongs_to_one_part() -> None:
    found = masks(body_regions(POINTS, SEEN, person()))
    assert tuple(found) == BODY
    assert (sum(mask_hw.astype(int) for mask_hw in found.values()) == person()).all()


@pytest.mark.parametrize(
    ("part", "inside"),
    [
        ("head", [(100, 22), (82, 30), (100, 75)]),
        ("upper_body", [(100, 150), (45, 200), (155, 100), (100, 95)]),
        ("legs", [(118, 300), (82, 250), (100, 215), (75, 340)]),
        ("feet", [(118, 365), (82, 380), (128, 375)]),
    ],
)
def test_a_part_is_where_its_bones_are(part: str, inside: list[tuple[int, int]]) -> None:
    found = masks(body_regions(POINTS, SEEN, person()))
    for x, y in inside:
        assert [name for name in BODY if found[name][y, x]] == [part], (x, y)


def test_each_foot_has_a_box_and_every_box_is_tight() -> None:
    found = body_regions(POINTS, SEEN, person())
    assert [len(found[part].boxes) for part in BODY] == [1, 1, 1, 2]
    for region in found.values():
        inside_hw = np.zeros((HEIGHT, WIDTH), dtype=bool)
        for box in region.boxes:
            inside_hw[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
        assert not (region.mask_hw & ~inside_hw).any()
    left, right = sorted(found["feet"].boxes, key=lambda box: box.x0)
    assert (left.x0, left.x1, right.x0, right.x1, left.y1) == (70, 95, 105, 130, 385)


def test_the_score_is_the_visibility_of_what_is_visible() -> None:
    visibility_n = SEEN.copy()
    visibility_n[[27, 29, 31]], visibility_n[[28, 30, 32]] = 0.9, 0.2
    found = body_regions(POINTS, visibility_n, person())
    assert [box.score for box in found["feet"].boxes] == pytest.approx([0.9, 0.9])
    assert {box.score for box in found["legs"].boxes} == {1.0}


def test_two_who_overlap_share_no_pixel() -> None:
    """Both masks have both persons: each keeps what is nearer to its own bones, in units of its size."""
    shifted = POINTS + np.array([90, 0, 0], dtype=np.float32)
    both_hw = np.pad(person(), ((0, 0), (0, 90)))
    both_hw = np.maximum(both_hw, np.pad(person(), ((0, 0), (90, 0))))
    left_hw, right_hw = separate([(POINTS, both_hw), (shifted, both_hw)])
    assert not ((left_hw > 0) & (right_hw > 0)).any()
    assert (left_hw + right_hw == both_hw).all()
    for mask_hw, x in ((left_hw, 100), (right_hw, 190)):
        assert all(mask_hw[y, x] == 1 for y in (30, 150)), "the head and the trunk"
    alone_hw = person()
    assert separate([(POINTS, alone_hw)])[0] is alone_hw


def test_what_is_found_twice_is_found_once() -> None:
    """The same pixels are one part, a box that two share is two."""
    square_hw, corner_hw = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    square_hw[:4, :4], corner_hw[5, 5] = True, True
    box, same, near = (Box(0, 0, 6, 6, score) for score in (0.5, 0.9, 0.8))
    parts = [FoundRegion((box,), square_hw), None, FoundRegion((same,), square_hw), FoundRegion((near,), corner_hw)]
    region = of_persons(parts)
    assert region is not None
    assert (region.boxes, region.persons, region.searched) == ((near, box), (3, 0), 4)
    assert region.mask_hw is not None
    assert (region.mask_hw == (square_hw | corner_hw)).all()
    assert of_persons([None, None]) is None


def test_what_is_hidden_or_out_of_the_picture_is_not_there() -> None:
    hidden = SEEN.copy()
    hidden[27:33] = 0.3
    assert set(body_regions(POINTS, hidden, person())) == {"head", "upper_body", "legs"}
    assert set(body_regions(POINTS, SEEN, person(height=180))) == {"head", "upper_body"}
    assert body_regions(POINTS, SEEN, np.zeros((HEIGHT, WIDTH), dtype=np.float32)) == {}


def test_a_larger_picture_has_the_same_parts() -> None:
    """Divided at 512 pixels, and drawn at the picture's own size."""
    small = masks(body_regions(POINTS, SEEN, person()))
    large = masks(body_regions(POINTS * 4, SEEN, person().repeat(4, axis=0).repeat(4, axis=1)))
    for part in BODY:
        assert large[part].shape == (4 * HEIGHT, 4 * WIDTH)
        differing = (large[part] ^ small[part].repeat(4, axis=0).repeat(4, axis=1)).sum()
        assert differing < 0.06 * large[part].sum(), part


def test_a_face_places_the_chin() -> None:
    face_n3 = np.zeros((468, 3), dtype=np.float32)
    face_n3[152] = (100, 85, 0)
    low, high = (masks(body_regions(POINTS, SEEN, person(), face))["head"].sum() for face in (face_n3, None))
    assert low > high


def test_eyes_and_mouth_are_outlines_with_a_margin() -> None:
    """Circles of 10 pixels: an outline of n corners has the area n/2 r² sin(2π/n)."""
    face_n3 = np.full((468, 3), 100, dtype=np.float32)
    from fairhuman.detect.body_regions import EYE_MARGIN, EYE_OUTLINES, LIPS, MOUTH_MARGIN

    for outline, x in (*zip(EYE_OUTLINES, (60, 140), strict=True), (LIPS, 100)):
        turns = np.linspace(0, 2 * np.pi, len(outline), endpoint=False)
        face_n3[list(outline), :2] = np.stack([x + 10 * np.cos(turns), 100 + 10 * np.sin(turns)], axis=1)
    found = face_regions(face_n3, 0.8, (WIDTH, HEIGHT))
    assert [len(found[name].boxes) for name in ("eyes", "mouth")] == [2, 1]
    assert {box.score for box in found["eyes"].boxes} == {0.8}
    for name, pieces, margin in (("eyes", 2, EYE_MARGIN), ("mouth", 1, MOUTH_MARGIN)):
        expected = pieces * np.pi * (10 + 20 * margin) ** 2
        assert found[name].mask_hw.sum() == pytest.approx(expected, rel=0.12), name


def test_a_hand_is_the_hull_of_its_points() -> None:
    hand_n3 = np.random.default_rng(1).uniform(50, 90, (21, 3)).astype(np.float32)
    region = hand_region(hand_n3, 0.7, (WIDTH, HEIGHT))
    assert region is not None
    hull = ConvexHull(hand_n3[:, :2])
    assert {tuple(point) for point in np.round(_hull(hand_n3[:, :2]), 3)} == {
        tuple(point) for point in np.round(hand_n3[hull.vertices, :2].astype(float), 3)
    }
    assert hull.volume < region.mask_hw.sum() < 2 * hull.volume
    assert all(region.mask_hw[int(y), int(x)] for x, y, _ in hand_n3)


def test_an_outline_outside_the_picture_is_none() -> None:
    square_n2 = np.array([(-50, -50), (-30, -50), (-30, -30), (-50, -30)], dtype=np.float32)
    assert region_of([(outline_mask(square_n2, 0.1, (20, 20)), 0.5)]) is None


def test_a_region_of_an_enlarged_picture_is_scaled_back() -> None:
    mask_hw = np.zeros((8, 8), dtype=bool)
    mask_hw[0:4, 0:4], mask_hw[4, 4] = True, True
    back = shrunk(FoundRegion((Box(0, 0, 5, 5, 0.5),), mask_hw), 4)
    assert back is not None
    assert back.boxes == (Box(0, 0, 1.25, 1.25, 0.5),)
    assert back.mask_hw.tolist() == [[True, False], [False, False]]
    assert shrunk(FoundRegion((Box(4, 4, 5, 5, 0.5),), np.eye(8, dtype=bool) & (np.arange(8) == 4)), 4) is None
