"""A small folder to review, and its events."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_pictures import encoded, picture


@pytest.fixture(autouse=True)
def _secret_of_a_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor make the secret of the user who runs them."""
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def review_folder(tmp_path: Path) -> Callable[..., Path]:
    """`review_folder(n)` writes n pictures, p0 ... , with prompts `a person, number i`, a face, and hands or null."""

    def make(count: int, **more: Any) -> Path:
        root = tmp_path / "people"
        (root / "images").mkdir(parents=True)
        rows = []
        for i in range(count):
            (root / "images" / f"{i}.png").write_bytes(encoded(picture(64, 48, i)))
            hands = [[30, 30, 40, 44]] if i % 2 else None
            row = {"file_name": f"images/{i}.png", "caption": f"a person, number {i}", "key": f"p{i}"}
            rows.append({**row, "faces": [[4, 5, 20, 25, 0.9]], "hands": hands, "scene": "park", **more})
        (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return root

    return make


@pytest.fixture
def events() -> Callable[[Path], list[tuple]]:
    """`events(folder)` reads reviewer, key, action, prompt, reason of all events, as another process would."""

    def read(root: Path) -> list[tuple]:
        connection = sqlite3.connect(root / "review.sqlite")
        try:
            return connection.execute("SELECT reviewer, key, action, prompt, reason FROM event ORDER BY id").fetchall()
        finally:
            connection.close()

    return read
