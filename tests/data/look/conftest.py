"""A small built data set, with all that only a build has."""

import json
from pathlib import Path

import pytest

from fairhuman import config
from fairhuman.data.pipeline.run import Workers, build_dataset
from fairhuman.data.pipeline.settings import BuildRecipe
from helpers.tiny_pictures import encoded, picture

SETTINGS = ["min_side=41", "detect=null", "caption.kind=text", "condition.pose=none", "shard_rows=4"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures: number 0 is too small, 3 is cut off, the others have a face; one line isn't JSON."""
    root = tmp_path_factory.mktemp("built")
    source = root / "photos"
    source.mkdir()
    lines = []
    for i in range(8):
        data = encoded(picture(40 + i, 64, i))
        (source / f"{i}.png").write_bytes(data[: len(data) // 2] if i == 3 else data)
        pose = [[10.0 + p, 12.0 + p, 0.9] for p in range(17)]
        row = {"file_name": f"{i}.png", "caption": f"person {i}", "faces": [[4, 5, 20, 25, 0.5]], "pose": pose}
        lines.append(json.dumps(row))
    (source / "metadata.jsonl").write_text("\n".join([*lines, "{half"]))
    out = root / "set"
    build_dataset(source, out, config.build(BuildRecipe, {}, SETTINGS), Workers(0))
    return out
