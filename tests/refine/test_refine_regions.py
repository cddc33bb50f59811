"""Further regions: redrawn without a measure of quality, where no face or hand gets worse."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman import config
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect import named_regions
from fairhuman.detect.detection import Picture
from fairhuman.detect.found_region import FoundRegion
from fairhuman.errors import RecipeError
from fairhuman.record import Box
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.page import summary
from fairhuman.refine.parts import BodyPart
from fairhuman.refine.picture import PartRow, RefineTools, picture_outcome, refine_picture
from fairhuman.refine.regions import DetectionError, open_regions
from fairhuman.refine.run import RefineOutcome
from fairhuman.refine.settings import RefineSettings
from helpers.tiny_parts import BoardLook, ContrastPainter, NoisePainter, boards
from helpers.unguarded import Unguarded

FACE, SHOE = (16, 16, 40, 40), (72, 48, 92, 68)
PICTURE = boards(101, 117, {FACE: 0.9, SHOE: 0.5})
SETTINGS = RefineSettings(regions={"shoes": "the red shoes"}, attempts=3)


def canvas() -> Canvas:
    return Canvas.read(np_png(PICTURE))


def np_png(picture: Picture) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def refine(painter: object, part: BodyPart, settings: RefineSettings = SETTINGS) -> tuple[Canvas, list[PartRow]]:
    tools = RefineTools(
        BoardLook([("face", Box(*FACE))]),
        painter,
        lambda *_: {},
        lambda _picture, _name: [part],  # type: ignore[arg-type]
    )
    return refine_picture(canvas(), "a.png", "two people", settings, tools)


def test_a_region_is_redrawn_once_with_its_words() -> None:
    painter = ContrastPainter(2.0)
    result, rows = refine(painter, BodyPart("region", Box(*SHOE), 0.0, "shoes", measured=False))
    assert [(row.kind, row.label, row.outcome) for row in rows] == [
        ("face", "face", "good"),
        ("region", "shoes", "refined"),
    ]
    assert painter.prompts == ["close-up of the red shoes, two people"]
    changed = (result.pixels != PICTURE).any(axis=2)
    assert changed[48:68, 72:92].mean() > 0.9
    assert not changed[16:40, 16:40].any()
    assert picture_outcome(rows) == "refined"
    row = {"outcome": "refined", "parts": [one.plain() for one in rows]}
    assert "shoes: 1, 1 of them redrawn" in summary(RefineOutcome([row], {}))


def test_a_mask_limits_what_is_redrawn() -> None:
    mask_hw = np.zeros(PICTURE.shape[:2], dtype=bool)
    mask_hw[48:68, 72:77] = True
    settings = SETTINGS.model_copy(update={"margin": 0.0, "feather": 0.1})
    whole, limited = (
        (refine(ContrastPainter(2.0), part, settings)[0].pixels != PICTURE).any(axis=2)
        for part in (
            BodyPart("region", Box(*SHOE), 0.0, "shoes", measured=False),
            BodyPart("region", Box(*SHOE), 0.0, "shoes", measured=False, mask_hw=mask_hw),
        )
    )
    assert whole[48:68, 84:92].all()
    assert not limited[48:68, 80:92].any()
    assert limited[48:68, 72:77].mean() > 0.9


def test_an_attempt_that_spoils_a_face_is_rejected() -> None:
    """The region's crop covers the face, and the noise destroys it."""
    painter = NoisePainter()
    result, rows = refine(painter, BodyPart("region", Box(20, 20, 60, 60), 0.0, "shoes", measured=False))
    assert painter.calls == 3
    assert (result.pixels == PICTURE).all()
    assert rows[1].outcome == "kept"
    assert all("another part would lose" in why for _, why in rows[1].attempts)


def test_painted_masks_have_a_part_for_each_piece(tmp_path: Path) -> None:
    mask_hw = np.zeros((101, 117), dtype=np.uint8)
    mask_hw[10:30, 10:20], mask_hw[50:90, 60:100] = 255, 255
    Image.fromarray(mask_hw).save(tmp_path / "a.png")
    Image.fromarray(mask_hw[:50]).save(tmp_path / "b.png")
    with open_regions(RefineSettings(masks=str(tmp_path))) as regions:
        found = regions(PICTURE, "a.jpg")
        assert regions(PICTURE, "c.jpg") == []
        with pytest.raises(PictureError, match=r"another size than its picture.*b\.png: 117x50, not 117x101"):
            regions(PICTURE, "b.jpg")
    assert [(part.kind, part.label, part.box) for part in found] == [
        ("region", "painted", Box(10, 10, 20, 30, 1.0)),
        ("region", "painted", Box(60, 50, 100, 90, 1.0)),
    ]
    assert [int(part.mask_hw.sum()) for part in found] == [200, 1600]


def test_parts_of_the_body_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    mask_hw = np.zeros((101, 117), dtype=bool)
    mask_hw[10:20, 10:20] = True

    @contextmanager
    def open_fake(confidence: float, upscale: int, persons: int) -> Iterator[object]:
        assert (confidence, upscale) == (0.5, 4)

        def find(image: Picture) -> dict[str, FoundRegion]:
            if image.max() == 0:
                raise ValueError("no such layer")
            return {"feet": FoundRegion((Box(10, 10, 20, 20, 0.8),), mask_hw), "legs": FoundRegion((Box(0, 0, 9, 9),))}

        yield find

    monkeypatch.setattr(named_regions, "open_body_parts", open_fake)
    monkeypatch.setattr(named_regions, "Guarded", Unguarded)
    settings = RefineSettings(regions="feet")
    with open_regions(settings) as regions:
        (part,) = regions(PICTURE, "a.png")
        with pytest.raises(DetectionError, match="detection failed: ValueError: no such layer"):
            regions(np.zeros_like(PICTURE), "a.png")
    assert (part.label, part.box, int(part.mask_hw.sum())) == ("feet", Box(10, 10, 20, 20, 0.8), 100)
    assert settings.prompt("region", "a man", "feet") == "close-up of feet, a man"


def test_regions_of_the_additional_detectors_are_named_elsewhere() -> None:
    with pytest.raises(RecipeError, match="are named in regions, without detect"):
        config.build(RefineSettings, {}, ["detect.regions=[feet]"])
