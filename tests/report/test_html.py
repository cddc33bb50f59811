"""Pages appear whole or not at all, and escape what they are given."""

import base64
import html
import io
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from PIL import Image

from fairhuman import report
from fairhuman.report.html import breakable, picture_uri, render, stackable


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


def test_names_break_only_between_parts_and_are_escaped() -> None:
    assert breakable("samples/a_b-1.png") == "samples/<wbr>a_<wbr>b-<wbr>1.png"
    assert breakable("<b>") == "&lt;b&gt;"
    assert breakable("a--b") == "a--<wbr>b"


def test_every_page_has_the_style_for_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in render("page.html", title="")


def test_pages_name_no_colour_of_the_ground_or_the_ink_beside_the_style() -> None:
    """White or black of its own would be unreadable in the other scheme."""
    for file in Path(report.__file__).parent.glob("*.html"):
        found = re.findall(r"(?:background|[^-]color): *#\w+", file.read_text(encoding="utf-8"))
        assert not [one for one in found if re.search(r"#(fff|000|f\w{5}|[12]\w{5})", one)], file.name


def test_tables_too_wide_for_a_phone_know_the_heads_of_their_columns() -> None:
    head = '<tr><th>metric</th><th>a<br>b <small>c</small></th><th>x&#34;;} <wbr>\\y</th><th class="text"></th></tr>'
    wide = f"<table>\n<thead>{head}</thead><tbody><tr><td>1</td></tr></tbody></table>"
    found = html.unescape(re.search(r'<table class="cards" style="([^"]*)">', stackable(wide))[1])  # type: ignore[index]
    assert found == '''--c1: "metric"; --c2: "a b"; --c3: "x\\22 ;} \u200b\\5c y"; --c4: ""'''
    narrow = "<table><thead><tr><th>a</th><th>b</th><th>c</th></tr></thead></table><table><tr></tr></table>"
    assert stackable(narrow) == narrow
    assert "cards" in stackable(narrow.replace("<th>b</th><th>", '<th class="text">b</th><th class="text">'))
