import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fairhuman.models.tokenizer import build_tokenizer
from fairhuman.synth.figures import POSES, SKINS, draw_figure, random_figure, write_figures


def painted(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(np.asarray(image).astype(int) - colour) <= 3).all(axis=2)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("skin", SKINS)
def test_boxes_are_where_face_and_hands_are(pose: str, skin: str) -> None:
    """Under long sleeves the pure skin colour shows in face and hands alone (neck and ears are shaded)."""
    for number in range(3):
        figure = replace(random_figure(0, number), pose=pose, skin=skin, long_sleeves=True, background="teal")
        drawing = draw_figure(figure, 160)
        skin_hw = painted(drawing.image, SKINS[skin])
        outside_hw = skin_hw.copy()
        assert len(drawing.hands) == 2
        for x0, y0, x1, y1 in (drawing.face, *drawing.hands):
            assert 0 <= x0 < x1 <= 160
            assert 0 <= y0 < y1 <= 160
            rows, columns = slice(int(y0), int(np.ceil(y1))), slice(int(x0), int(np.ceil(x1)))
            ys, xs = np.nonzero(skin_hw[rows, columns])
            # edge pixels are mixed with the background, so the pure colour may begin two pixels inside
            assert abs(xs.min()) <= 2
            assert abs(ys.min()) <= 2
            assert abs(xs.max() + 1 + int(x0) - x1) <= 2
            assert abs(ys.max() + 1 + int(y0) - y1) <= 2
            outside_hw[rows, columns] = False
        assert not outside_hw.any()


def test_hands_have_five_fingers() -> None:
    """What an opening by a disc wider than a finger and narrower than the palm takes away is five pieces."""
    figure = replace(random_figure(0, 0), pose="hands up", long_sleeves=True, background="teal")
    drawing = draw_figure(figure, 512)
    skin_hw = painted(drawing.image, SKINS[figure.skin])
    radius = int(0.1 * figure.head_height * 512)
    offsets = np.arange(-radius, radius + 1)
    disc = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    for x0, y0, x1, y1 in drawing.hands:
        hand = np.pad(skin_hw[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1], radius)
        palm = ndimage.binary_dilation(ndimage.binary_opening(hand, disc), iterations=2)
        labels, _ = ndimage.label(hand & ~palm)
        assert (np.bincount(labels.ravel())[1:] > 30).sum() == 5


def test_a_figure_depends_on_seed_and_number_alone() -> None:
    forward = [random_figure(1, number) for number in range(6)]
    backward = [random_figure(1, number) for number in reversed(range(6))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 6
    assert random_figure(2, 0) != forward[0]
    first, second = (draw_figure(forward[0], 96).image.tobytes() for _ in range(2))
    assert first == second


def test_caption_tells_what_is_drawn() -> None:
    figure = replace(
        random_figure(0, 0),
        skin="dark",
        hair="red",
        hair_length="long",
        shirt="yellow",
        trousers="black",
        pose="waving",
        background="gray",
        smiling=True,
        long_sleeves=True,
    )
    assert figure.caption == (
        "a person with dark skin and long red hair in a yellow long-sleeved shirt and black pants, waving, smiling, "
        "plain gray background"
    )
    assert len(build_tokenizer()(figure.caption).input_ids) <= 40


def test_scale_of_face_and_hands() -> None:
    """A half-body portrait: a face takes some per cent of the picture, a hand about one."""
    areas = {"face": [], "hand": []}
    for number in range(50):
        drawing = draw_figure(random_figure(3, number), 64)
        for name, boxes in (("face", [drawing.face]), ("hand", drawing.hands)):
            areas[name] += [(x1 - x0) * (y1 - y0) / 64**2 for x0, y0, x1, y1 in boxes]
    assert 0.015 < np.mean(areas["face"]) < 0.06
    assert 0.008 < np.mean(areas["hand"]) < 0.03
    assert min(areas["hand"]) > 0.003


def test_folder_is_an_imagefolder(tmp_path: Path) -> None:
    write_figures(tmp_path, count=3, size=64, seed=4)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"images/0000{i}.png" for i in range(3)]
    for number, row in enumerate(rows):
        drawing = draw_figure(random_figure(4, number), 64)
        with Image.open(tmp_path / row["file_name"]) as image:
            assert image.size == (row["width"], row["height"]) == (64, 64)
            assert image.tobytes() == drawing.image.tobytes()
        assert row["caption"] == drawing.figure.caption
        assert row["faces"] == [list(drawing.face)]
        assert row["hands"] == [list(box) for box in drawing.hands]
