"""The person's box: around a whole person in photos, nothing in nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.overlap import corners, iou
from fairhuman.detect.persons import PersonDetector
from fairhuman.record import Box


def test_the_box_is_that_of_a_person(shared: Path) -> None:
    folder = shared / "data" / "wholebody"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    alone = [row for row in rows if len(row["persons"] or ()) == 1 and row["file_name"].startswith("images/coco")]
    assert alone
    with PersonDetector() as detector:
        for row in alone:
            with Image.open(folder / row["file_name"]) as image:
                found = detector.detect(np.asarray(image.convert("RGB")))
            assert [one.label for one in found] == ["person"]
            assert iou(corners([found[0].box]), corners([Box(*row["persons"][0][:4])]))[0, 0] > 0.7
            assert 0 <= found[0].score <= 1
            assert found[0].source.endswith(" person")


@pytest.mark.parametrize("size", [(1, 1), (3, 3000), (300, 300)])
def test_nobody_is_found_in_a_blank_picture(size: tuple[int, int]) -> None:
    with PersonDetector() as detector:
        assert detector.detect(np.full((*size, 3), 90, dtype=np.uint8)) == []
