"""Which pictures are measured, and with which prompts."""

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.cache import DETECTION_ROWS, CachedRows
from fairhuman.errors import DataError
from fairhuman.evaluate.pictures import read_pictures
from fairhuman.evaluate.results import shared_indices
from helpers.tiny_pictures import noise


@pytest.fixture
def read(tmp_path):
    """`read(folder, prompts)`: the pictures and the notes about those left out."""

    def make(folder, prompts=None):
        report = LoadReport()
        checked = CachedRows(tmp_path / "cache" / "checked", DETECTION_ROWS)
        return read_pictures(folder, prompts, checked, report), [(note.file, note.reason) for note in report.skipped()]

    return make


def draw(folder, name, grey, **texts):
    folder.mkdir(exist_ok=True)
    info = PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    Image.new("RGB", (32, 24), (grey, grey, grey)).save(folder / name, pnginfo=info)


def test_pictures_of_sample_say_their_prompts(tmp_path, read):
    for number, prompt in enumerate(["a man", "a woman"]):
        for picture in range(2):
            name = f"{number:05d}-{picture:02d}.png"
            draw(tmp_path / "x", name, 10 * number + picture, prompt=prompt, prompt_index=str(number))
    pictures, notes = read(tmp_path / "x", ["a man", "a woman"])
    assert [(p.name, p.prompt) for p in pictures] == [
        ("00000-00.png", "a man"),
        ("00000-01.png", "a man"),
        ("00001-00.png", "a woman"),
        ("00001-01.png", "a woman"),
    ]
    assert [p.group for p in pictures] == ["a man", "a man", "a woman", "a woman"]
    assert len({p.key() for p in pictures}) == 4
    assert notes == []
    assert [p.prompt for p in read(tmp_path / "x")[0]] == [p.prompt for p in pictures]
    with pytest.raises(DataError, match=r"00001-00.png was drawn for prompt 1 = 'a woman', the prompts have 'a cat'"):
        read(tmp_path / "x", ["a man", "a cat"])
    with pytest.raises(DataError, match=r"prompt 1 = 'a woman', the prompts have none, it has 1 there"):
        read(tmp_path / "x", ["a man"])


def test_silent_pictures_go_to_prompts_in_order(tmp_path, read):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "._0.png").write_bytes(b"attributes of a file, as macOS stores them")
    for number in range(4):
        draw(tmp_path / "x", f"{number}.png", number)
    assert [p.prompt for p in read(tmp_path / "x", ["a", "b"])[0]] == ["a", "a", "b", "b"]
    with pytest.raises(DataError, match=r"4 pictures can't be divided evenly among 3 prompts"):
        read(tmp_path / "x", ["a", "b", "c"])
    pictures, _ = read(tmp_path / "x")
    assert [p.prompt for p in pictures] == ["", "", "", ""]
    assert len({p.group for p in pictures}) == 4


def test_a_silent_picture_among_others_is_refused(tmp_path, read):
    draw(tmp_path / "x", "0.png", 0, prompt="a", prompt_index="0")
    draw(tmp_path / "x", "1.png", 1)
    with pytest.raises(DataError, match=r"1.png has no prompt metadata, but other pictures do"):
        read(tmp_path / "x")


def test_captions_and_boxes_of_a_data_set_count(tmp_path, read):
    draw(tmp_path / "x", "0.png", 0)
    line = {"file_name": "0.png", "caption": "a man", "faces": [[1, 2, 9, 12]], "hands": None}
    (tmp_path / "x" / "metadata.jsonl").write_text(json.dumps(line))
    ((picture,), _) = read(tmp_path / "x")
    assert picture.prompt == "a man"
    assert [box.x1 for box in picture.record.boxes["face"]] == [9]
    assert picture.record.boxes["hand"] is None


def test_bad_pictures_are_noted_and_looked_at_once(tmp_path, read, monkeypatch):
    draw(tmp_path / "x", "0.png", 0)
    noise(64, 64, 50).save(tmp_path / "x" / "2.png")
    whole = (tmp_path / "x" / "2.png").read_bytes()
    (tmp_path / "x" / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x" / "3.png").write_bytes(b"no picture")
    for _ in range(2):
        pictures, notes = read(tmp_path / "x")
        assert [p.name for p in pictures] == ["0.png"]
        assert [file for file, _ in notes] == ["3.png", "2.png"]
    monkeypatch.setattr("fairhuman.evaluate.pictures.decode", None)
    assert len(read(tmp_path / "x")[0]) == 1


def test_grey_pictures_of_any_size_are_read(tmp_path, read):
    (tmp_path / "x").mkdir()
    Image.new("L", (40, 30), 7).save(tmp_path / "x" / "g.png")
    Image.new("I;16", (30, 40), 7 * 257).save(tmp_path / "x" / "h.png")
    images = [picture.image() for picture in read(tmp_path / "x")[0]]
    assert [image.getpixel((0, 0)) for image in images] == [(7, 7, 7), (7, 7, 7)]


def test_a_folder_without_pictures_is_refused(tmp_path, read):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no picture in .*empty, which is empty"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"empty: holds no usable picture"):
        read(tmp_path / "empty")


def test_silent_pictures_are_in_natural_order_as_in_grid_and_study(tmp_path, read):
    for number in range(1, 13):
        draw(tmp_path / "x", f"{number}.png", number)
    pictures, _ = read(tmp_path / "x", [f"prompt {number}" for number in range(1, 13)])
    assert [(p.name, p.prompt) for p in pictures] == [(f"{n}.png", f"prompt {n}") for n in range(1, 13)]


def test_a_damaged_picture_moves_no_prompt_and_no_pair(tmp_path, read):
    for name in ("x", "y"):
        for number in range(4):
            draw(tmp_path / name, f"{number}.png", number)
    (tmp_path / "x" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    x, y = read(tmp_path / "x", ["one", "two"])[0], read(tmp_path / "y", ["one", "two"])[0]
    assert [(p.name, p.prompt) for p in x] == [("1.png", "one"), ("2.png", "two"), ("3.png", "two")]
    assert names_of_pairs(x, y) == [("1.png", "1.png"), ("2.png", "2.png"), ("3.png", "3.png")]


def test_pictures_of_sample_are_paired_by_their_numbers(tmp_path, read):
    for name, lost in (("x", (0, 0)), ("y", None)):
        for number, picture in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
            texts = {"prompt": "same", "prompt_index": str(number), "picture_index": str(picture)}
            if (number, picture) != lost:
                draw(tmp_path / name, f"{number:05}-{picture}.png", 10 * number + picture, **texts)
    x, y = read(tmp_path / "x")[0], read(tmp_path / "y")[0]
    assert names_of_pairs(x, y) == [(p.name, p.name) for p in x]


def test_captions_are_paired_with_prompts_of_the_same_text(tmp_path, read):
    for number in range(3):
        draw(tmp_path / "x", f"{number}.png", number)
        (tmp_path / "x" / f"{number}.txt").write_text("a man" if number < 2 else "a woman")
        texts = {"prompt": "a man" if number < 2 else "a woman", "prompt_index": str(number), "picture_index": "0"}
        draw(tmp_path / "y", f"{number:05}-0.png", number, **texts)
    (tmp_path / "x" / "0.png").write_bytes(b"no picture")
    x, y = read(tmp_path / "x")[0], read(tmp_path / "y")[0]
    assert names_of_pairs(x, y) == [("1.png", "00001-0.png"), ("2.png", "00002-0.png")]


def names_of_pairs(x, y):
    return [(x[own].name, y[other].name) for own, other in zip(*shared_indices(x, y), strict=True)]
