"""`data show`: everything is on the page, nothing on it is trusted, and it is drawn where the boxes are."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fairhuman.data.look import built as look_built
from fairhuman.data.look.reading import open_dataset
from fairhuman.data.look.show import SCRIPT, show_dataset
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.report import REJECTED
from fairhuman.errors import DataError, FairHumanError
from fairhuman.report.colours import colours
from helpers.tiny_pictures import encoded, picture


def shown(path, tmp_path, **options):
    page = tmp_path / "page.html"
    number = show_dataset(path, page, **options)
    return number, page.read_text(encoding="utf-8")


def keys(page):
    return re.findall(r'<dd class="key">(.*?)</dd>', page)


def test_a_build_shows_its_rejected_rows(built, tmp_path):
    number, page = shown(built, tmp_path)
    assert number == 6
    assert keys(page) == [f"{i}.png" for i in (1, 2, 4, 5, 6, 7)]
    assert "1, by source, score 0.50" in page
    assert page.count('class="over pose"') == 6
    assert len(re.findall(r'<rect class="box region-0" x="4.0" y="5.0" width="16.0" height="20.0">', page)) == 6
    left_out = page[page.index('id="left-out"') :]
    assert "filter: shorter side below 41 pixels" in left_out
    assert left_out.count("data:image/jpeg") == 1, "the small picture can be seen, the one that is cut off can't"
    assert "0.png (metadata.jsonl:1): 40" in left_out
    assert "metadata.jsonl:9: " in left_out
    assert 'id="left-out"' not in shown(built, tmp_path, rejected=False)[1]


def test_a_score_that_is_no_number_is_left_out(folder, tmp_path):
    row = {"file_name": "0.png", "faces": [[4, 5, 20, 25], [5, 6, 20, 25]], "face_scores": [float("nan"), 0.25]}
    assert "2, score 0.25<" in shown(folder([row]), tmp_path)[1]


def test_rejected_rows_beyond_the_examples_are_named(built, tmp_path, monkeypatch):
    copied = tmp_path / "set"
    shutil.copytree(built, copied)
    table = copied / REJECTED
    texts = {"stage": "filter", "reason": "many", "value": "3"}
    rows = [{"key": f"{i}.png", "location": f"metadata.jsonl:{i}", **texts} for i in range(10)]
    pq.write_table(pyarrow.Table.from_pylist(rows), table)
    monkeypatch.setattr(look_built, "NAMED", 3)
    left_out = shown(copied, tmp_path)[1].partition('id="left-out"')[2]
    assert "filter: many " in left_out
    assert "<summary>4 more</summary>" in left_out
    assert [f"{i}.png (metadata.jsonl:{i}): 3" in left_out for i in range(10)] == [True] * 9 + [False]
    assert f"1 more are in the table <code>{REJECTED}</code>" in left_out


def test_a_build_without_its_source(built, tmp_path):
    copied = tmp_path / "set"
    shutil.copytree(built, copied)
    (copied / "source.json").write_text(json.dumps({"source": str(tmp_path / "gone"), "format": "imagefolder"}))
    page = shown(copied, tmp_path)[1]
    assert "The source has been moved or deleted" in page
    assert "0.png (metadata.jsonl:1): 40" in page
    (copied / "report.json").write_text('["somebody else\'s"]')
    shown(copied, tmp_path)
    (copied / "report.json").write_text('{"funnel": 3, "recipe": {}}')
    with pytest.raises(DataError, match=r"report\.json: expected the report of a build"):
        shown(copied, tmp_path)


def test_a_manifest_that_is_damaged_is_named(built, tmp_path):
    copied = tmp_path / "set"
    shutil.copytree(built, copied)
    for path in (copied / "manifest").iterdir():
        path.write_bytes(b"half")
    with pytest.raises(DataError, match="manifest: not a readable manifest"):
        shown(copied, tmp_path)
    assert shown(copied, tmp_path, rejected=False)[0] == 6


def test_the_draw_is_fair_and_repeats(folder, tmp_path):
    root = folder([{"file_name": f"{i:02}.png", "caption": "x"} for i in range(12)])
    drawn = [tuple(keys(shown(root, tmp_path, count=4, seed=seed)[1])) for seed in range(12)]
    assert drawn[0] == tuple(keys(shown(root, tmp_path, count=4, seed=0)[1]))
    assert all(len(some) == 4 and list(some) == sorted(some) for some in drawn)
    assert {key for some in drawn for key in some} == {f"{i:02}.png" for i in range(12)}
    assert keys(shown(root, tmp_path, count=4, first=True)[1]) == [f"{i:02}.png" for i in range(4)]
    assert len(keys(shown(root, tmp_path, count=60)[1])) == 12


def test_data_is_escaped_in_the_page(folder, tmp_path):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    row = {
        "file_name": "a.png",
        "caption": evil,
        "key": evil,
        "source": evil,
        "split": evil,
        "source_caption": evil + "2",
    }
    root = folder([row])
    page = shown(root, tmp_path)[1]
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 5


@pytest.mark.parametrize(("kind", "bright"), [(None, "right"), ("relative", "right"), ("metric_mm", "left")])
def test_depth_is_of_the_kind_that_training_takes(folder, tmp_path, kind, bright):
    """Without a kind it is relative: large is near, and near is bright."""
    root = folder([{"file_name": "a.png", "caption": "x", "depth": "d.png", "depth_kind": kind}])
    depth_hw = np.full((30, 40), 2000, np.uint16)
    depth_hw[:, 20:] = 60000
    Image.fromarray(depth_hw).save(root / "d.png")
    uri = re.search(r'class="depth" src="data:image/[a-z]+;base64,([^"]+)"', shown(root, tmp_path)[1])
    near_hw = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri[1]))).convert("L")).astype(int)
    assert (near_hw[15, 35] > near_hw[15, 5] + 100) == (bright == "right")


def test_masks_and_depth_lie_where_they_are(folder, tmp_path):
    """The left half is painted, in 40x30 pixels."""
    row = {"file_name": "a.png", "caption": "x", "masks": {"face": "m.png", "tail": "bad.png"}, "depth": "d.png"}
    root = folder([{**row, "attributes": {"depth_kind": "relative"}}])
    mask = np.zeros((30, 40), np.uint8)
    mask[:, :20] = 255
    Image.fromarray(mask).save(root / "m.png")
    (root / "bad.png").write_bytes(encoded(picture(40, 31)))
    Image.fromarray(np.full((30, 40), 30000, np.uint16)).save(root / "d.png")
    page = shown(root, tmp_path)[1]
    uri = re.search(r'class="over mask region-0" src="data:image/png;base64,([^"]+)"', page)
    assert uri is not None
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri[1]))).convert("RGBA"))[..., 3]
    assert alpha.shape == (30, 40)
    assert (alpha[:, :20] > 0).all()
    assert (alpha[:, 20:] == 0).all()
    assert 'class="depth"' in page
    assert "mask has not the size of its picture" in page[page.index('id="notes"') :]


def test_conditions_that_can_not_be_drawn_are_noted(folder, tmp_path):
    rows = [{"file_name": "a.png", "caption": "x", "pose": [[1, 2]], "depth": "a.png"}]
    page = shown(folder(rows), tmp_path)[1]
    notes = page[page.index('id="notes"') :]
    assert "pose can&#39;t be drawn" in notes
    assert "depth must be grey with 16 bits" in notes


def test_bad_files_leave_a_note_each(shared, tmp_path):
    number, page = shown(shared / "data" / "bad", tmp_path)
    assert number == 21
    notes = page[page.index('id="notes"') :]
    for words in ("picture is cut off or damaged", "line is not JSON", "file does not exist", "inverted box"):
        assert words in notes


def test_sixty_large_pictures_stay_below_ten_megabytes(tmp_path):
    """Noise is the worst case of a JPEG."""
    root = tmp_path / "noise"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=80)
    for i in range(60):
        (root / f"{i}.jpg").write_bytes(data)
    number, page = shown(root, tmp_path)
    assert number == 60
    assert len(page) < 10e6


def test_what_is_refused(folder, tmp_path):
    root = folder([{"file_name": "a.png"}])
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        show_dataset(root, tmp_path / "p.html", count=0)
    with pytest.raises(FairHumanError, match=r"/proc/p\.html: can't be written"):
        show_dataset(root, Path("/proc/p.html"))
    (root / "a.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"no usable record[^\n]*\n  metadata\.jsonl:1: skipped, not a picture"):
        show_dataset(root, tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


def test_keys_are_unique_however_often_one_comes(folder):
    root = folder([{"file_name": f"{i}.png", "key": "k"} for i in range(3)])
    records = list(open_dataset(root).records(LoadReport()))
    assert [record.key for _, record in records] == ["k", "k#2", "k#3"]


def test_the_page_filters_in_a_browser(folder, tmp_path, open_page):
    """The one script runs under the page's policy, and no other does."""
    root = folder(
        [{"file_name": f"{i}.png", "caption": f"person {i}", "faces": [[1, 1, 9, 9]] * (i % 2)} for i in range(4)]
    )
    page_file = tmp_path / "page.html"
    show_dataset(root, page_file)
    page = open_page(page_file.as_uri())
    seen = []
    for text, state in (("", ""), ("person 2", ""), ("", "has-0"), ("", "none-0"), ("", "unknown-1")):
        page.fill("#text", text)
        page.select_option("#state", state)
        seen.append(page.text_content("#count"))
    assert seen == ["4 of 4", "1 of 4", "2 of 4", "2 of 4", "4 of 4"]
    page.select_option("#state", "has-0")
    visible = page.locator(".card .box")
    assert visible.first.is_visible() or visible.last.is_visible()
    page.uncheck("#boxes")
    assert not visible.last.is_visible()
    assert SCRIPT in page_file.read_text(encoding="utf-8")


def test_what_is_unknown_is_not_counted_as_absent_and_layers_that_are_not_there_are_not_offered(folder, tmp_path):
    rows = [{"file_name": f"{i}.png", "caption": "x", "hands": [[1, 1, 9, 9]] if i else None} for i in range(3)]
    root = folder(rows)
    Image.new("L", (40, 30)).save(root / "m.png")
    lines = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    lines[0]["masks"] = {"ignore": "m.png"}
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = shown(root, tmp_path)[1]
    facts = dict(re.findall(r"<dt>(\w+)</dt><dd>([^<]*)</dd>", page[: page.index("</dl>")]))
    assert facts["face"] == "unknown"
    assert facts["hand"] == "in 2 of 3, 1 unknown"
    assert facts["ignore"] == "in 1 of 3, 2 unknown"
    assert re.findall(r'id="(boxes|masks|pose|depth)"', page) == ["boxes", "masks"]


def test_pages_of_sixty_search_in_each_other(folder, tmp_path, open_page):
    """130 pictures; the last one alone has shoes, in its own colour."""
    rows = [{"file_name": f"{i:03}.png", "caption": f"it's <b>{i}</b>"} for i in range(130)]
    root = folder([*rows[:-1], rows[-1] | {"shoes": [[1, 1, 9, 9]]}])
    page_file = tmp_path / "page.html"
    assert show_dataset(root, page_file, count=200) == 130
    names = ["page.html", "page-2.html", "page-3.html"]
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in names]
    assert [len(keys(text)) for text in texts] == [60, 60, 10]
    assert sorted(key for text in texts for key in keys(text)) == [row["file_name"] for row in rows]
    page = open_page(page_file.as_uri())
    page.select_option("#state", label="with shoes")
    links = page.locator(".pages").first.locator("a")
    assert [link.strip() for link in links.all_inner_texts()] == ["2 (0)", "3 (1)"]
    links.last.click()
    assert page.url.partition("#")[0].endswith("page-3.html")
    assert page.text_content("#count") == "1 of 10"
    box = page.locator(".card:not([hidden]) rect.box")
    assert box.count() == 1
    red, green, blue = bytes.fromhex(colours(["shoes"])["shoes"][1:])
    assert box.evaluate("box => getComputedStyle(box).stroke") == f"rgb({red}, {green}, {blue})"


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_a_page_is_never_wider_than_its_window(folder, tmp_path, open_page, width):
    rows = [
        {"file_name": f"{'long_name_' * 9}{i}.png", "caption": "x" * 200, f"region_{i}": [[1, 1, 9, 9]]}
        for i in range(7)
    ]
    show_dataset(folder(rows), tmp_path / "page.html")
    page = open_page((tmp_path / "page.html").as_uri(), viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
