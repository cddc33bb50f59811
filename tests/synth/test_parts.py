"""Masks of parts of the body: where the geometry has them, and only where they are asked for."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from fairhuman.errors import DataError
from fairhuman.synth import workers
from fairhuman.synth.body import Body
from fairhuman.synth.people import SCHEMA, write_people
from fairhuman.synth.render import MASKS, PARTS, Rendering, render
from fairhuman.synth.settings import SynthSettings

SIZE = 96


@pytest.fixture(scope="module")
def whole(body: Body) -> Rendering:
    return render(body, 5, 1, SIZE, "hands on hips", "full_body", parts=True)


def test_the_body_is_divided_from_head_to_foot(whole: Rendering) -> None:
    """Coverage of the four parts adds up to the person's (rounding: one a mask), and they lie one below the other."""
    parts = [whole.masks[name].astype(int) for name in ("head", "upper_body", "legs", "feet")]
    assert (np.abs(sum(parts) - whole.masks["person"].astype(int)) <= 3).all()
    heights = [float(np.average(np.arange(SIZE), weights=mask_hw.sum(axis=1))) for mask_hw in parts]
    assert heights == sorted(heights)
    rows = [np.flatnonzero(mask_hw.any(axis=1)) for mask_hw in parts]
    assert rows[0].max() <= rows[1].min() + 3, "the neck ends where the trunk begins"
    assert rows[2].max() <= rows[3].min() + 3, "and the legs where the feet do"


def test_eyes_and_mouth_lie_in_the_face(body: Body) -> None:
    picture = render(body, 5, 2, 2 * SIZE, "hands up", parts=True)
    face = picture.masks["face"] > 0
    for name in ("eyes", "mouth"):
        part = picture.masks[name] > 0
        assert 10 < part.sum() < 0.2 * face.sum()
        assert not (part & ~face).any()
    heights = {name: np.nonzero(picture.masks[name])[0].mean() for name in ("eyes", "mouth")}
    assert heights["eyes"] < heights["mouth"]


def test_everything_else_stays(body: Body, whole: Rendering) -> None:
    plain = render(body, 5, 1, SIZE, "hands on hips", "full_body")
    assert tuple(plain.masks) == MASKS
    assert tuple(whole.masks) == (*MASKS, *PARTS)
    assert (plain.image == whole.image).all()
    assert all((plain.masks[name] == whole.masks[name]).all() for name in MASKS)
    assert plain.boxes == whole.boxes


def test_a_set_has_them_where_they_are_asked_for(tmp_path: Path, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Body", lambda _: body)
    settings = SynthSettings(count=1, size=32, parts=True)
    write_people(tmp_path, settings, workers=1)
    table = pyarrow.parquet.read_table(tmp_path / "data")
    assert [field.name for field in table.schema.field("masks").type] == [*MASKS, *PARTS]
    assert table.schema.names == SCHEMA.names
    assert "parts" not in SynthSettings(count=1).decisive(), "sets of earlier versions have none"
    with pytest.raises(DataError, match="parts was True, now False"):
        write_people(tmp_path, SynthSettings(count=1, size=32), workers=1)
