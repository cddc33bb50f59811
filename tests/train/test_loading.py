"""What a run says about decoding its pictures: colours that are converted, and processes that fit into the memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairhuman.data.pictures.decode import BYTES_PER_PIXEL
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.train import data as training_data
from fairhuman.train.data import build_loader, load_data, loading_workers
from fairhuman.train.recipe import TrainRecipe
from helpers.colour_profiles import SWAPPED, rgb_profile
from helpers.figures import write_shapes
from helpers.tiny_pictures import encoded, picture

MakeRecipe = Callable[..., TrainRecipe]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "photos", [(64, 64)] * 6)


def test_a_run_trains_on_what_viewers_show_and_counts_it(make_recipe: MakeRecipe, photos: Path) -> None:
    names = sorted(photos.glob("*.png"))
    brighter, darker = [min(level + 40, 255) for level in range(256)], [level // 3 for level in range(256)]
    red = picture(64, 64).point([*brighter, *darker, *darker])
    names[0].write_bytes(encoded(red, icc_profile=rgb_profile(SWAPPED)))
    names[1].write_bytes(encoded(red, icc_profile=b"nothing"))
    names[2].write_bytes(encoded(red, icc_profile=rgb_profile()))
    data = load_data(make_recipe("run", "validation.every=0", data=str(photos)), LoadReport())
    assert data.lines() == [
        "6 captions: 1 different text, 'x'",
        "1 x colours converted to sRGB by their profile",
        "1 x colour profile can't be used, colours taken as sRGB",
    ]
    seen: dict[str, Any] = {}
    for position in range(60):
        sample = data.train[position]
        assert sample.picture_chw is not None
        seen[sample.key] = sample.picture_chw.mean(dim=(1, 2)).numpy()
    (as_blue, as_red, plain) = (seen[name.name] for name in names[:3])
    assert np.argmax(as_blue) == 2
    assert np.argmax(as_red) == np.argmax(plain) == 0


@pytest.mark.parametrize(("free", "expected"), [(None, 4), (2**40, 4), (5 * 64**2 * BYTES_PER_PIXEL, 2), (1000, 1)])
def test_processes_that_load_pictures_fit_into_half_of_the_free_memory(
    make_recipe: MakeRecipe, photos: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, expected: int
) -> None:
    recipe = make_recipe("run", "source.workers=4", data=str(photos))
    monkeypatch.setattr(training_data, "available_bytes", lambda: free)
    number, said = loading_workers(recipe, load_data(recipe, LoadReport()))
    assert number == expected
    assert (said is None) == (expected == 4)
    assert said is None or said.startswith(f"source.workers=4: {expected} are used, as the largest picture takes")


def test_the_largest_picture_may_be_one_that_a_run_is_steered_by(
    make_recipe: MakeRecipe, photos: Path, tmp_path: Path
) -> None:
    large = write_shapes(tmp_path / "large", [(64, 96)])
    steer = {"at_most": 0.01, "data": str(large)}
    data = load_data(make_recipe(data=str(photos), steer=steer), LoadReport())
    assert data.largest_bytes == 64 * 96 * BYTES_PER_PIXEL


@pytest.mark.parametrize("pinned", [True, False])
def test_batches_are_pinned_where_it_is_safe(
    make_recipe: MakeRecipe, photos: Path, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    monkeypatch.setattr(training_data, "pins_batches", lambda: pinned)
    recipe = make_recipe(data=str(photos))
    loader: Any = build_loader(recipe, load_data(recipe, LoadReport()), 0, 1, 0)
    assert loader.pin_memory == pinned
