"""A build of another trainer's folder, and its exports: masks, boxes of `ignore` and repeats are kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from fairhuman.data.export.run import FORMATS, export_dataset
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.run import build_dataset, plan_build
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.check import check_records
from fairhuman.errors import DataError
from fairhuman.record import IGNORE, SUBJECT, Box, HumanRecord
from helpers.trainer_folders import COUNT, HEIGHT, TRAINERS, WIDTH, mask, photo

RECIPE = BuildRecipe(min_side=16, min_clarity=0.0, needs=(), detect=None)


def read(path: Path, regions: tuple[str, ...] = ()) -> list[HumanRecord]:
    return read_source(path, regions, SourceSettings(), LoadReport())


def opacity_of(record: HumanRecord, region: str) -> float:
    return float(np.asarray(decode_mask(record.masks[region])).mean()) / 255


@pytest.fixture(scope="module", params=["kohya", "ai_toolkit"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    root = tmp_path_factory.mktemp("mine")
    write, _, repeats = TRAINERS[request.param]
    source, out = write(root), tmp_path_factory.mktemp("built") / "out"
    build_dataset(source, out, RECIPE)
    return source, out, repeats


def test_a_build_keeps_masks_and_repeats(built: tuple[Path, Path, int]) -> None:
    source, out, repeats = built
    for before, after in zip(read(source), read(out), strict=True):
        assert (after.key, after.repeats) == (before.key, repeats)
        assert set(after.masks) == {IGNORE}
        assert opacity_of(after, IGNORE) == opacity_of(before, IGNORE) == 0.75
    assert f"{COUNT} photos with {COUNT} masks; repeats {repeats}: {COUNT * repeats} with repeats" in plan_build(
        source, out, RECIPE
    )


@pytest.mark.parametrize("format", FORMATS)
def test_every_export_keeps_them(built: tuple[Path, Path, int], tmp_path: Path, format: str) -> None:
    _, out, repeats = built
    export_dataset(out, tmp_path / "export", format)
    for record in read(tmp_path / "export"):
        assert record.repeats == repeats
        assert opacity_of(record, IGNORE) == 0.75


def test_the_meaning_of_the_mask_is_that_of_the_build(built: tuple[Path, Path, int], tmp_path: Path) -> None:
    """Another meaning is another table: the same folder goes on, and its masks are others."""
    source, _, _ = built
    out = tmp_path / "out"
    for meaning, region, share in (("ignore", IGNORE, 0.75), ("subject", SUBJECT, 0.25)):
        build_dataset(source, out, RECIPE.model_copy(update={"source": SourceSettings(mask=meaning)}))
        for record in read(out, (SUBJECT,) if region == SUBJECT else ()):
            assert opacity_of(record, region) == share


def test_an_empty_mask_of_a_subject_says_that_there_is_none(tmp_path: Path) -> None:
    for number, columns in enumerate((WIDTH // 2, 0)):
        photo(tmp_path / "source" / f"{number}.jpg", number, "a")
        mask(tmp_path / "source" / "masks" / f"{number}.png", columns)
    photo(tmp_path / "source" / "2.jpg", 2, "a")
    build_dataset(
        tmp_path / "source", tmp_path / "out", RECIPE.model_copy(update={"source": SourceSettings(mask="subject")})
    )
    checked = check_records(read(tmp_path / "out", (SUBJECT,)), LoadReport(), full=True)
    assert [(one.annotated(SUBJECT), one.has(SUBJECT)) for one in checked] == [
        *((True, True), (True, False), (False, False))
    ]


def test_boxes_to_ignore_are_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for number in range(2):
        photo(source / f"{number}.jpg", number)
    rows = [{"file_name": f"{number}.jpg", "caption": "a", "repeats": 1 + number} for number in range(2)]
    rows[0][IGNORE] = [[0, 0, WIDTH, HEIGHT // 2]]
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    build_dataset(source, out, RECIPE)
    for format in FORMATS:
        export_dataset(out, tmp_path / format, format)
    for place in (out, *(tmp_path / format for format in FORMATS)):
        records = read(place)
        assert [record.boxes.get(IGNORE) for record in records] == [(Box(0, 0, WIDTH, HEIGHT // 2),), None]
        assert [record.repeats for record in records] == [1, 2]


def test_a_build_of_a_plain_folder_says_how_to_go_on(tmp_path: Path) -> None:
    """Before, a folder of repeats was read as plain photos."""
    photo(tmp_path / "source" / "10_ohwx" / "a.jpg", 0, "a")
    plain = RECIPE.model_copy(update={"source": SourceSettings(format="folder")})
    build_dataset(tmp_path / "source", tmp_path / "out", plain)
    with pytest.raises(DataError, match=r"give another folder, or source\.format=folder"):
        build_dataset(tmp_path / "source", tmp_path / "out", RECIPE)
    build_dataset(tmp_path / "source", tmp_path / "out", plain)
