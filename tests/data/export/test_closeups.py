"""Close-ups: a record for each large enough box, with all that belongs to it in the same place."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.condition.depth import decode_depth
from fairhuman.data.condition.people import people_from_source
from fairhuman.data.export.closeups import CloseupSettings
from fairhuman.data.export.run import export_dataset
from fairhuman.data.pictures.decode import decode, decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, RecipeError
from fairhuman.record import Box, HumanRecord

FACE = [20, 20, 30, 30]
NEAR = {"region": "face", "context": 2.0, "min_side": 8, "size": 40, "max_enlarge": 2.0}


def row(name: str, **values: object) -> dict[str, object]:
    return {"file_name": name, "caption": f"caption of {name}", "faces": [FACE], "hands": [], **values}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Pictures of 64x48 whose red is the column and green the row, so that each pixel tells where it comes from."""
    root = tmp_path / "people"
    root.mkdir()
    pose = [[20.0, 20.0, 1.0]] * 16 + [[30.0, 30.0, 1.0]]
    rows = [
        row(
            "a.png",
            hands=[[26, 26, 60, 40, 0.5], [50, 2, 60, 10]],
            masks={"face": "mask.png"},
            pose=pose,
            depth="depth.png",
        ),
        row("b.png", faces=[FACE, [2, 2, 9, 9], [0, 0, 18, 12]], split="val"),
        row("c.png", faces=[]),
        row("d.png", faces=None),
        row("e.png", faces=[[1, 1, 6, 6]]),
    ]
    y, x = np.mgrid[:48, :64]
    for one in rows:
        Image.fromarray(np.stack([x * 4, y * 4, 0 * x], axis=-1).astype(np.uint8)).save(root / str(one["file_name"]))
    inside = (x >= 20) & (x < 30) & (y >= 20) & (y < 30)
    Image.fromarray((inside * 255).astype(np.uint8)).save(root / "mask.png")
    Image.fromarray((x * 1000).astype(np.uint16)).save(root / "depth.png")
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


def read(folder: Path) -> dict[str, HumanRecord]:
    return {one.key: one for one in read_source(folder, ("face", "hand"), SourceSettings(), LoadReport())}


@pytest.mark.parametrize("format", ["parquet", "imagefolder", "webdataset"])
def test_everything_is_cropped_with_the_picture(people: Path, tmp_path: Path, format: str) -> None:
    """The square of the face is columns and rows 15 to 34, doubled."""
    export_dataset(people, tmp_path / "out", format, near=CloseupSettings.model_validate(NEAR))
    one = read(tmp_path / "out")["a.png-face-0"]
    assert (one.width, one.height, one.caption) == (40, 40, "caption of a.png")
    assert one.boxes["face"] == (Box(10, 10, 30, 30),)
    assert [(b.x0, b.y0, b.x1, b.y1) for b in one.boxes["hand"] or ()] == [(22, 22, 40, 40)], "clipped; one out of view"
    pixels = np.asarray(decode(one.image).picture).astype(int)
    assert pixels.shape == (40, 40, 3)
    assert np.abs(pixels[20, :, 0] / 4 - (15 + (np.arange(40) + 0.5) / 2 - 0.5)).max() < 1
    assert np.abs(pixels[:, 20, 1] / 4 - (15 + (np.arange(40) + 0.5) / 2 - 0.5)).max() < 1
    mask = np.asarray(decode_mask(one.masks["face"]))
    assert mask[20, 20] == mask[11, 28] == 255
    assert mask[8, 20] == mask[20, 32] == 0
    [person] = people_from_source(one.pose)
    assert {(round(float(x)), round(float(y))) for x, y, score in person.body if score} == {(10, 10), (30, 30)}
    assert one.depth is not None
    depth = decode_depth(one.depth)
    assert depth.shape == (40, 40)
    assert (int(depth.min()), int(depth.max())) == (0, 65535), "relative depth is spread again"
    assert (np.diff(depth[0].astype(int)) >= 0).all()


def test_what_is_left_out_is_counted(people: Path, tmp_path: Path) -> None:
    summary = export_dataset(people, tmp_path / "out", "parquet", near=CloseupSettings.model_validate(NEAR))
    found = read(tmp_path / "out")
    assert sorted(found) == ["a.png-face-0", "b.png-face-0", "b.png-face-2"]
    assert summary.records == 3
    assert {one.split for one in found.values()} == {None, "val"}
    counts = summary.report.counts()
    assert counts["dropped"] == {"box too small for a close-up": 2}
    assert counts["skipped"] == {
        "has no face": 1,
        "face isn't annotated": 1,
        "no face is large enough for a close-up": 1,
    }


def test_a_close_up_is_enlarged_no_further_than_allowed_and_never_made_smaller(people: Path, tmp_path: Path) -> None:
    few = CloseupSettings.model_validate({**NEAR, "max_enlarge": 1.2})
    summary = export_dataset(people, tmp_path / "few", "parquet", near=few)
    assert [(key, one.width) for key, one in read(tmp_path / "few").items()] == [("b.png-face-2", 40)]
    assert summary.report.counts()["dropped"]["close-up would be enlarged too much"] == 2
    large = CloseupSettings.model_validate({**NEAR, "size": 16})
    export_dataset(people, tmp_path / "large", "parquet", near=large)
    assert read(tmp_path / "large")["b.png-face-0"].width == 20


def test_nothing_large_enough_an_unknown_region_and_other_settings_are_errors(people: Path, tmp_path: Path) -> None:
    near = CloseupSettings.model_validate(NEAR)
    with pytest.raises(DataError, match=r"(?s)no usable record.*no face is large enough"):
        export_dataset(people, tmp_path / "out", "parquet", near=near.model_copy(update={"min_side": 100.0}))
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match=r"--closeups: must be one of face, hand, person, found 'feet'"):
        export_dataset(people, tmp_path / "out", "parquet", near=near.model_copy(update={"region": "feet"}))
    export_dataset(people, tmp_path / "out", "parquet", near=near)
    export_dataset(people, tmp_path / "out", "parquet", near=near)
    with pytest.raises(DataError, match="must be empty or hold an export"):
        export_dataset(people, tmp_path / "out", "parquet")


def test_the_command_cuts_close_ups(people: Path, tmp_path: Path, typed) -> None:  # type: ignore[no-untyped-def]
    settings = ("context=2", "min_side=8", "size=40")
    code, said, error = typed("data", "export", people, tmp_path / "out", *settings, "--closeups", "face")
    assert code == 0, error
    assert "box too small for a close-up" in said
    assert "3 close-ups" in said
    code, _, error = typed("data", "export", people, tmp_path / "two", "size=40")
    assert (code, "settings belong to --closeups" in error) == (2, True)
    code, _, error = typed("data", "export", people, tmp_path / "two", "sice=40", "--closeups", "face")
    assert (code, "size" in error) == (2, True)
