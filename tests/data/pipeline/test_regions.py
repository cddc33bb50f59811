"""The tier of further regions: what is found, what is kept of the source, and what it costs again."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.look.show import show_dataset
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline import detect as detect_tier
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.detect import named_regions
from fairhuman.detect.bundled import source_name
from fairhuman.detect.found_region import FoundRegion
from fairhuman.errors import RecipeError
from fairhuman.record import Box
from helpers.small_builds import build, rejected, rows
from helpers.tiny_finders import make_clipseg
from helpers.tiny_pictures import encoded, picture
from helpers.unguarded import Unguarded

BODY = ("detect={face: null, hand: null, person: null, regions: [eyes, feet]}",)
LOOKED: list[int] = []  # widths of the pictures that were looked at


@contextmanager
def open_fake(confidence: float, upscale: int, persons: int) -> Iterator[object]:
    """Eyes at the top left, feet in pictures of even width; the picture of 43 pixels breaks it."""

    def find(image: np.ndarray) -> dict[str, FoundRegion]:
        LOOKED.append(image.shape[1])
        if image.shape[1] == 43:
            raise ValueError("no such layer")
        mask_hw = np.zeros(image.shape[:2], dtype=bool)
        mask_hw[2:6, 3:9] = True
        eyes = FoundRegion((Box(3, 2, 9, 6, 0.75),), mask_hw, (1,), 2)
        feet = {"feet": FoundRegion((Box(1, 50, 20, 60, 0.5),), None, (0,), 2)} if image.shape[1] % 2 == 0 else {}
        return {"eyes": eyes, "mouth": eyes, **feet}

    yield find


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures 40 .. 43 pixels wide with captions."""
    for tier in (named_regions, detect_tier):
        monkeypatch.setattr(tier, "Guarded", Unguarded)
    monkeypatch.setattr(named_regions, "open_body_parts", open_fake)
    LOOKED.clear()
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(4):
        (root / f"{i}.png").write_bytes(encoded(picture(40 + i, 64, i)))
    annotate(root)
    return root


def annotate(root: Path, **values: object) -> None:
    """Captions of all, and further columns of the first one."""
    lines = [{"file_name": f"{i}.png", "caption": "person", **(values if i == 0 else {})} for i in range(4)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_boxes_masks_scores_and_the_finder_are_stored(photos: Path, tmp_path: Path) -> None:
    report = build(photos, tmp_path / "out", *BODY).report
    assert report["regions"] == ["face", "hand", "person", "eyes", "feet"]
    assert [(row["key"], row["stage"], row["value"]) for row in rejected(tmp_path / "out")] == [
        ("3.png", "regions", "ValueError: no such layer")
    ]
    assert {"stage": "regions", "rows": 3} in report["funnel"]
    first, second, _ = rows(tmp_path / "out")
    assert (first["eyes"], first["eyes_scores"]) == ([[3, 2, 9, 6]], [0.75])
    assert first["eyes_by"] == source_name("body parts")
    mask_hw = np.asarray(Image.open(io.BytesIO(first["masks"]["eyes"]["bytes"])))
    assert (mask_hw.shape, mask_hw[2:6, 3:9].min(), mask_hw.sum()) == ((64, 40), 255, 24 * 255)
    assert (first["feet"], first["masks"]["feet"]) == ([[1, 50, 20, 60]], None), "boxes alone"
    assert (first["eyes_persons"], first["feet_persons"], first["persons_searched"]) == ([1], [0], 2)
    assert (second["eyes_persons"], second["feet_persons"], second["persons_searched"]) == ([1], None, 2)
    assert (second["feet"], second["feet_by"]) == (None, first["eyes_by"]), "not found is unknown"
    assert "mouth" not in first, "it wasn't asked for"


def test_the_page_says_of_how_many_persons(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "out", *BODY)
    show_dataset(tmp_path / "out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"1, with a mask, by {source_name('body parts')}, score 0.75, of 1 of 2 persons" in page
    assert "painted, by" not in page


def test_training_reads_the_mask_and_the_boxes(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "out", *BODY)
    record = read_source(tmp_path / "out", ("eyes", "feet"), SourceSettings(), LoadReport())[0]
    assert record.boxes["eyes"] == (Box(3, 2, 9, 6, 0.75),) or record.boxes["eyes"] == (Box(3, 2, 9, 6),)
    assert np.asarray(decode_mask(record.masks["eyes"])).sum() == 24 * 255
    assert (record.has("feet"), "feet" in record.masks) == (True, False)


def test_what_the_source_annotates_stays(photos: Path, tmp_path: Path) -> None:
    Image.new("L", (40, 64), 255).save(photos / "mask.png")
    annotate(photos, feet=[[5, 5, 15, 15]], masks={"eyes": "mask.png"})
    build(photos, tmp_path / "out", *BODY)
    first, second, _ = rows(tmp_path / "out")
    assert (first["feet"], first["feet_by"]) == ([[5, 5, 15, 15]], "source")
    assert (first["eyes"], first["eyes_by"]) == (None, None)
    assert np.asarray(Image.open(io.BytesIO(first["masks"]["eyes"]["bytes"]))).min() == 255
    assert second["eyes"] == [[3, 2, 9, 6]]
    assert 40 not in LOOKED, "nothing was left to find in it"


def test_another_region_looks_again_but_not_for_faces(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    @contextmanager
    def open_faces(settings: object) -> Iterator[object]:
        def find(image: np.ndarray) -> dict[str, list[object]]:
            calls.append(image.shape[1])
            return {"face": []}

        yield find

    monkeypatch.setattr(detect_tier, "open_detectors", open_faces)
    plain = ("detect={hand: null, person: null}", "needs=[]")
    build(photos, tmp_path / "out", *plain)
    assert len(calls) == 4
    build(photos, tmp_path / "out", *plain, "detect.regions=[eyes]", "max_failed_share=1")
    assert (len(calls), LOOKED) == (4, [40, 41, 42, 43])
    build(photos, tmp_path / "out", *plain, "detect.regions=[eyes]", "max_failed_share=1")
    assert len(LOOKED) == 4, "nothing is left"
    build(photos, tmp_path / "out", *plain, "detect.regions=[eyes, feet]", "max_failed_share=1")
    assert (len(calls), len(LOOKED)) == (4, 8)


def test_regions_by_words(photos: Path, tmp_path: Path) -> None:
    make_clipseg(tmp_path / "clipseg")
    words = f"words: {{model: {tmp_path / 'clipseg'}, confidence: 0.4, device: cpu}}"
    by_words = (
        f"detect={{face: null, hand: null, person: null, regions: {{shoes: the shoes, eyes: mediapipe}}, {words}}}"
    )
    build(photos, tmp_path / "out", by_words)
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == ["0.png", "1.png", "2.png"]
    assert found[0]["shoes_by"] == f"transformers {tmp_path / 'clipseg'}: the shoes"
    assert found[0]["eyes"] == [[3, 2, 9, 6]]
    seen = [row for row in found if row["shoes"] is not None]
    assert seen
    for row in seen:
        mask_hw = np.asarray(Image.open(io.BytesIO(row["masks"]["shoes"]["bytes"])))
        assert mask_hw.shape == (row["height"], row["width"])
        assert len(row["shoes_scores"]) == len(row["shoes"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("detect.regions=[shoes]", "'shoes' is found by no bundled model.*head, upper_body.*the shoes"),
        ("detect.regions={face: the face}", "'face' can't be the name of a further region.*detectors of their own"),
        ("detect.regions={depth: how deep}", "'depth' is another column of a data set"),
        ("detect.regions={status: a sign}", "'status' is another column of a data set"),
        ("detect.regions={shoes: ''}", "shoes must have words"),
        ("detect.regions={the shoes: the shoes}", "'the shoes' can't be the name"),
        ("detect.regions={Shoes: the shoes}", "'Shoes' can't be the name.*take lower-case letters"),
        ("detect.regions=[Head]", "'Head' can't be the name.*take lower-case letters"),
        ("detect.regions={eyes: mediapipe, eyes_by: a label}", "'eyes' and 'eyes_by' would share a column"),
        ("detect.regions={hand_mask: a glove}", "'hand_mask' and 'hand' would share a column"),
    ],
)
def test_names_that_can_t_be(photos: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(photos, tmp_path / "out", "detect={}", override)
