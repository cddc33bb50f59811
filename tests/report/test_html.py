"""Pages appear whole or not at all, and escape what they are given."""

import base64
import io
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from PIL import Image

from fairhuman.report.html import picture_uri, render, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, "new ☺")
    assert path.read_text(encoding="utf-8") == "new ☺"


def test_frame_escapes_and_forbids_requests() -> None:
    page = render("page.html", title="<b>bold</b>")
    assert "<title>&lt;b&gt;bold&lt;/b&gt;</title>" in page
    assert "default-src 'none'" in page
    with pytest.raises(UndefinedError, match="title"):
        render("page.html")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_pictures_of_any_mode_are_made_smaller_never_larger(mode: str) -> None:
    for side, expected in ((100, 50), (20, 20)):
        uri = picture_uri(Image.new(mode, (side, side // 2)), longest=50)
        decoded = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        assert decoded.size == (expected, expected // 2)
