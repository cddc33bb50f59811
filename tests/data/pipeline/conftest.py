"""A hundred pictures, and what an uninterrupted build makes of them."""

import pytest

from helpers.killed_builds import OPTIONS
from helpers.small_builds import build, contents
from helpers.tiny_pictures import encoded, picture


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A hundred pictures with captions."""
    root = tmp_path_factory.mktemp("many")
    for i in range(100):
        (root / f"{i:03}.png").write_bytes(encoded(picture(200, 200, i)))
        (root / f"{i:03}.txt").write_text(f"person {i}")
    return root


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """What an uninterrupted build makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build(many, out, *OPTIONS)
    return contents(out)
