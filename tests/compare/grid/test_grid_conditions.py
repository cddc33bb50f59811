"""Grids of controlled pictures: what they follow stands before them, as it was given."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.compare.grid.grid import write_grid
from fairhuman.compare.grid.grid_figure import GAP, HEIGHT, MARGIN
from fairhuman.errors import DataError
from fairhuman.generate.control_inputs import read_control_inputs
from fairhuman.generate.sample import save_png

Typed = Callable[..., tuple[int, str, str]]
SIZE = (64, 48)  # width and height


def write_pose(path: Path, x: float) -> None:
    points = [[x, 2.0 + 2 * point, 1.0] for point in range(17)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"width": SIZE[0], "height": SIZE[1], "people": [points]}))


def write_depth(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1]).astype(np.uint16)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two prompts by two methods, of which one followed poses at twice the size."""
    for number in range(2):
        write_pose(tmp_path / "poses" / f"{number}.json", 20.0 + 20 * number)
        write_depth(tmp_path / "depths" / f"{number}.png")
    asked = read_control_inputs([f"pose={tmp_path / 'poses'}"], 2)
    for number in range(2):
        texts = {"prompt": f"prompt {number}", "prompt_index": str(number), "picture_index": "0"}
        name, size = f"{number:05d}-00.png", (2 * SIZE[0], 2 * SIZE[1])
        save_png(Image.new("RGB", SIZE, (200, 0, 0)), tmp_path / "base" / name, texts)
        followed = asked.texts(number, size[::-1])
        save_png(Image.new("RGB", size, (0, 200, 0)), tmp_path / "MPD" / name, texts | followed)
    return tmp_path


def test_conditions_are_the_first_columns(folder: Path, typed: Typed) -> None:
    methods = ("--method", folder / "base", "--method", folder / "MPD")
    control = ("--control", f"pose={folder / 'poses'}", "--control", f"depth={folder / 'depths'}")
    code, _, error = typed("grid", folder / "grid", *methods, *control)
    assert code == 0, error
    page = (folder / "grid" / "grid.html").read_text(encoding="utf-8")
    assert re.findall(r'<th scope="col">(\w+)</th>', page) == ["pose", "depth", "base", "MPD"]
    assert re.findall(r'alt="(\w+): prompt 0"', page) == ["pose", "depth", "base", "MPD"]
    width = round(SIZE[0] * HEIGHT / SIZE[1])
    with Image.open(folder / "grid" / "grid.png") as figure:
        pixels = np.asarray(figure.convert("RGB")).astype(int)
    columns = [pixels[:, MARGIN + number * (width + GAP) :][:, : width - 4] for number in range(4)]
    assert (columns[2][..., 0] - columns[2][..., 1]).max() > 150, "base is red"
    assert (columns[3][..., 1] - columns[3][..., 0]).max() > 150, "MPD is green"
    assert np.ptp(columns[0], axis=2).max() > 100, "a pose has colours"
    assert np.ptp(columns[1], axis=2).max() == 0, "depth is grey"
    assert len(np.unique(columns[1])) > 50


def test_the_pose_shown_is_the_one_that_was_followed(folder: Path) -> None:
    methods = {"base": folder / "base", "MPD": folder / "MPD"}
    write_pose(folder / "poses" / "1.json", 41.0)
    with pytest.raises(DataError, match=r"00001-00.png of method 'MPD' followed another pose .* prompt 1"):
        write_grid(methods, folder / "grid", control=[f"pose={folder / 'poses'}"])
    write_grid({"base": folder / "base"}, folder / "grid", control=[f"pose={folder / 'poses'}"])


def test_conditions_of_another_number_or_shape_are_named(folder: Path, typed: Typed) -> None:
    methods = ("--method", folder / "base")
    write_pose(folder / "poses" / "2.json", 10.0)
    code, _, error = typed("grid", folder / "grid", *methods, "--control", f"pose={folder / 'poses'}")
    assert (code, "holds 3 conditions for 2 prompts" in error) == (1, True), error
    Image.new("RGB", (64, 64)).save(folder / "square.png")
    code, _, error = typed("grid", folder / "grid", *methods, "--control", f"pose={folder / 'square.png'}")
    assert code == 1
    assert "is 64x64, the picture 64x48: they must have one aspect ratio" in error
    assert typed("grid", folder / "grid", *methods, "--control", "edges=a")[0] == 2
