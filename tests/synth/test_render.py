"""Masks, boxes, depth and key points are where the geometry is, checked against the projected vertices."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from fairhuman.errors import DataError
from fairhuman.synth.body import Body
from fairhuman.synth.person import POSES
from fairhuman.synth.render import KEYPOINTS, MASKS, REGIONS, Rendering, Scene, build_scene, render
from fairhuman.synth.surface import above_hairline, is_clothed

SIZE = 96
HANDS = {"left_hand": 1, "right_hand": -1}  # the side of the template, which faces -y


@pytest.fixture(scope="module")
def drawn(body: Body) -> list[tuple[Scene, Rendering]]:
    """One picture a pose."""
    return [(build_scene(body, 5, n, pose), render(body, 5, n, SIZE, pose)) for n, pose in enumerate(POSES)]


def bare_hand(body: Body, scene: Scene, side: int, share: float) -> np.ndarray:
    """Vertices that hang on a hand by at least `share`, without those that the sleeve covers."""
    hand = body.skin[(body.anatomy.hand[body.skin] > share) & (side * body.template[body.skin, 0] > 0)]
    return hand[~is_clothed(body, scene.person, body.template[hand], body.anatomy.along_arm[hand])]


def bare_face(body: Body, scene: Scene) -> np.ndarray:
    """Vertices of the front of the head, well below the hairline."""
    template, anatomy = body.template[body.skin], body.anatomy
    front = (anatomy.head[body.skin] > 0.9) & (template[:, 1] < anatomy.eye[1] + 0.04)
    return body.skin[front & (above_hairline(body, template) < -0.01)]


def pixels(scene: Scene, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows [N, 2] and depths [N] of those vertices that are in the picture."""
    position, depth = scene.camera.project(scene.surface.vertices[vertices], SIZE)
    inside = ((position > 0) & (position < SIZE)).all(1)
    return np.floor(position[inside]).astype(int), depth[inside]


def seen_pixels(scene: Scene, picture: Rendering, vertices: np.ndarray) -> np.ndarray:
    """Pixels of the vertices that nothing lies in front of, by the depth map."""
    pixel, depth = pixels(scene, vertices)
    return pixel[depth < picture.depth[pixel[:, 1], pixel[:, 0]] + 0.003]


def test_visible_hands_and_faces_lie_in_their_masks(body: Body, drawn: list[tuple[Scene, Rendering]]) -> None:
    found = dict.fromkeys(REGIONS, 0)
    for scene, picture in drawn:
        parts = {name: bare_hand(body, scene, side, 0.9) for name, side in HANDS.items()}
        parts["face"] = bare_face(body, scene)
        for name, vertices in parts.items():
            pixel = seen_pixels(scene, picture, vertices)
            near = maximum_filter(picture.masks[name], 3)[pixel[:, 1], pixel[:, 0]]
            assert len(pixel) <= 20 or (near > 0).mean() > 0.99, (scene.person.pose, name)
            found[name] += len(pixel)
    assert min(found.values()) > 1000


def test_masks_hold_nothing_but_hands_and_face(body: Body, drawn: list[tuple[Scene, Rendering]]) -> None:
    """Every pixel of a mask is near a projected vertex of its part: two pixels off, the mask would fail."""
    for scene, picture in drawn:
        parts = {name: bare_hand(body, scene, side, 0.2) for name, side in HANDS.items()}
        parts["face"] = np.flatnonzero(body.anatomy.head > 0.4)
        for name, vertices in parts.items():
            pixel, _ = pixels(scene, vertices)
            near = np.zeros((SIZE, SIZE), bool)
            near[pixel[:, 1], pixel[:, 0]] = True
            inside = picture.masks[name] > 0
            assert not (inside & ~maximum_filter(near, 5)).any(), (scene.person.pose, name)


def test_the_left_hand_is_the_person_s_left(body: Body) -> None:
    """Seen from the front, a person's raised left hand is right of the face in the picture."""
    picture = render(body, 5, 2, SIZE, "hands up")
    centre = {name: np.nonzero(picture.masks[name])[1].mean() for name in REGIONS}
    assert centre["right_hand"] < centre["face"] < centre["left_hand"]
    position = dict(zip(KEYPOINTS, picture.keypoints, strict=True))
    assert position["right_shoulder"][0] < position["nose"][0] < position["left_shoulder"][0]


def test_boxes_are_tight_around_masks(drawn: list[tuple[Scene, Rendering]]) -> None:
    boxes = 0
    for _, picture in drawn:
        for name, box in picture.boxes.items():
            rows, columns = np.nonzero(picture.masks[name])
            for low, high, places in ((box.x0, box.x1, columns), (box.y0, box.y1, rows)):
                assert places.min() <= low < places.min() + 1
                assert places.max() < high <= places.max() + 1
            boxes += 1
        for name in set(REGIONS) - set(picture.boxes):
            assert picture.masks[name].mean() / 255 < 5e-4
    assert boxes > 2.5 * len(drawn)


def test_masks_don_t_overlap_and_lie_on_the_person(drawn: list[tuple[Scene, Rendering]]) -> None:
    """A pixel's coverage by face and hands adds up to no more than that by the person (rounding: one a mask)."""
    for _, picture in drawn:
        assert tuple(picture.masks) == MASKS
        face, hand, left, right, person = (picture.masks[name].astype(int) for name in MASKS)
        assert (face + left + right <= person + 2).all()
        assert (np.abs(left + right - hand) <= 1).all()
        assert set(np.unique(person)) == {0, 64, 128, 191, 255}  # of four samples


def test_depth_is_there_where_the_person_is(drawn: list[tuple[Scene, Rendering]]) -> None:
    for scene, picture in drawn:
        assert ((picture.depth > 0) == (picture.masks["person"] > 0)).all()
        _, depth = scene.camera.project(scene.surface.vertices, SIZE)
        assert depth.min() - 0.01 < picture.depth[picture.depth > 0].min()
        assert picture.depth.max() < depth.max() + 0.01


def test_key_points_of_a_hand_lie_on_it(body: Body, drawn: list[tuple[Scene, Rendering]]) -> None:
    tips = [f"{finger}4" for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky")]
    checked = 0
    for _, picture in drawn:
        position = dict(zip(KEYPOINTS, picture.keypoints, strict=True))
        for side, tip in itertools.product(("left", "right"), tips):
            x, y, visible = position[f"{side}_hand_{tip}"]
            if visible:
                near = maximum_filter(picture.masks[f"{side}_hand"], 3)
                assert near[int(y), int(x)] > 0, (side, tip)
                checked += 1
        for side in ("left", "right"):
            wrist, body_wrist = position[f"{side}_hand_wrist"], position[f"{side}_wrist"]
            assert np.linalg.norm(wrist[:2] - body_wrist[:2]) < 0.08 * SIZE
            box = picture.boxes.get(f"{side}_hand")
            if box is not None and wrist[2]:
                assert box.x0 - 8 < wrist[0] < box.x1 + 8
                assert box.y0 - 8 < wrist[1] < box.y1 + 8
        face = picture.boxes["face"]
        assert face.x0 - 2 < position["nose"][0] < face.x1 + 2
    assert checked > 60


def test_visibility_follows_occlusion(drawn: list[tuple[Scene, Rendering]]) -> None:
    for _, picture in drawn:
        assert all(0 <= share <= 1 for share in picture.visibility.values())
        assert picture.visibility["face"] > 0.5
        for name in HANDS:
            if picture.visibility[name] < 0.02:
                assert picture.masks[name].mean() / 255 < 0.002
            if picture.visibility[name] > 0.5:
                assert name in picture.boxes


@pytest.mark.parametrize(
    "pose", [pytest.param(pose, marks=pytest.mark.slow) if pose != "waving" else pose for pose in POSES]
)
def test_every_pose_shows_a_hand_in_most_pictures(body: Body, pose: str) -> None:
    shown = [render(body, 11, number, 32, pose) for number in range(5)]
    assert all(picture.person.pose == pose and pose in picture.caption for picture in shown)
    assert sum("left_hand" in picture.boxes or "right_hand" in picture.boxes for picture in shown) >= 4
    assert all("face" in picture.boxes for picture in shown)


def test_the_same_scene_at_another_size(body: Body) -> None:
    for number in range(4):
        small, large = render(body, 7, number, 64), render(body, 7, number, 128)
        assert small.caption == large.caption
        assert small.visibility == large.visibility
        assert np.allclose(2 * small.keypoints[:, :2], large.keypoints[:, :2])
        assert small.boxes.keys() == large.boxes.keys()
        for name, box in small.boxes.items():
            other = large.boxes[name]
            for edge in ("x0", "y0", "x1", "y1"):
                # a fingertip thinner than a sample of the small picture may be missed there
                assert getattr(other, edge) == pytest.approx(2 * getattr(box, edge), abs=3)
        halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(halved - small.image).mean() < 3


def test_a_picture_depends_on_seed_and_number_alone(body: Body) -> None:
    forward = [render(body, 3, number, 32) for number in range(3)]
    backward = [render(body, 3, number, 32) for number in (2, 1, 0)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert all((one.masks[name] == other.masks[name]).all() for name in MASKS)
        assert one.caption == other.caption
    pictures = [*forward, render(body, 4, 0, 32)]
    assert len({picture.image.tobytes() for picture in pictures}) == 4


def test_frame_is_half_body(body: Body) -> None:
    """Face about 5 % of the picture, a hand about 2.5 % (boxes)."""
    pictures = [render(body, 8, number, 64) for number in range(24)]
    area = {"face": [], "hand": []}
    for picture in pictures:
        for name, box in picture.boxes.items():
            area[name.split("_")[-1]].append(box.area / 64**2)
    assert 0.03 < np.mean(area["face"]) < 0.09
    assert 0.015 < np.mean(area["hand"]) < 0.04


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 15), "size must be 16 to 4096 pixels, found 15"),
        ((0, 0, 4097), "size must be 16 to 4096 pixels, found 4097"),
        ((-1, 0, 64), "must not be negative, found -1 and 0"),
        ((0, -1, 64), "must not be negative, found 0 and -1"),
        ((0, 0, 64, "flying"), "pose must be one of .*, found 'flying'"),
    ],
)
def test_wrong_arguments_are_named(body: Body, arguments: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        render(body, *arguments)
