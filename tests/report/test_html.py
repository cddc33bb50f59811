"""Pages appear whole or not at all, and escape what they are given."""

import base64
import io

import pytest
from jinja2 import UndefinedError
from PIL import Image

from fairhuman.report.html import picture_uri, render


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
