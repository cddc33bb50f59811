"""A tiny data set on disk: coloured pictures with boxes, made in a moment."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fairhuman.record import Box, HumanRecord
from helpers.tiny_pictures import encoded, picture


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., list[HumanRecord]]:
    """`people(n)` writes n pictures of changing sizes; their records have a face each, every other one a hand."""

    def make(n: int) -> list[HumanRecord]:
        records = []
        for i in range(n):
            width, height = 40 + 3 * i, 64 - 2 * i
            path = tmp_path / f"{i:03}.png"
            path.write_bytes(encoded(picture(width, height, i)))
            boxes = {"face": (Box(4, 5, 20, 25),), "hand": None if i % 2 else (Box(20, 20, 28, 30),)}
            records.append(
                HumanRecord(f"{i:03}", path, width, height, f"person {i}", boxes, location=f"metadata.jsonl:{i + 1}")
            )
        return records

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Sequence[dict]], Path]:
    """`folder(rows)` writes metadata.jsonl and, for each `file_name`, a picture of 40x30 pixels."""

    def make(rows: Sequence[dict]) -> Path:
        root = tmp_path / "set"
        root.mkdir()
        for i, row in enumerate(rows):
            if "file_name" in row:
                (root / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
                (root / row["file_name"]).write_bytes(encoded(picture(40, 30, i)))
        (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return root

    return make
