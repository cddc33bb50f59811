"""The studio's pages in a real browser."""

import json
import math
import re
import shutil
import subprocess
import sys
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.edits import EditsWriter, read_edits
from fairhuman.errors import DataError
from fairhuman.studio.app import create_studio_app
from fairhuman.studio.settings import StudioSettings
from fairhuman.utils.files import alone
from helpers.study_tab import audit
from helpers.tiny_pictures import encoded, picture

NEWS = "document.dispatchEvent(new Event('visibilitychange'))"  # as a tab's that comes to the front: it asks for news


@pytest.fixture
def shown(serving, open_page):
    """`shown(path, page, **options)` serves the studio of a path and opens one of its pages."""

    def show(path, where="", settings=None, **options):
        app = create_studio_app([path], StudioSettings(**(settings or {})))
        return open_page(f"{serving(app)}{app.state.root}{where}", **options)

    return show


def test_two_runs_side_by_side_go_on_and_their_previews_follow_one_slider(shown, run):
    shutil.copytree(run, run.parent / "ls")
    page = shown(run.parent, "/run?name=mpd&name=ls", viewport={"width": 1280, "height": 900})
    page.wait_for_function("() => document.querySelectorAll('.preview figure:nth-child(2) img').length === 6")
    assert page.locator(".run").count() == 2
    charts = page.locator(".run:first-child .chart figcaption").all_text_contents()
    assert charts[0] == "Training loss"
    assert (
        page.locator(".run:first-child .charts .chart").count()
        == page.locator(".run:last-child .charts .chart").count()
    )
    assert page.text_content(".run:first-child .facts dd") == "200 of 200"
    slider = page.locator(".scrubber input").first
    slider.focus()
    page.keyboard.press("Home")
    sources = page.eval_on_selector_all(".preview figure:nth-child(2) img", "all => all.map(one => one.src)")
    assert all("step-000000" in source for source in sources)
    assert len(sources) == 6
    page.keyboard.press("ArrowRight")
    assert page.locator(".scrubber output").all_text_contents() == ["step 100"] * 2
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 260, "loss/face": 0.1, "images": 1040}) + "\n")
    page.evaluate(NEWS)
    page.wait_for_function("() => document.querySelector('.run .facts dd').textContent === '260 of 200'")
    audit(page)


@pytest.mark.slow
def test_of_many_objectives_the_cosines_of_one_are_shown_with_its_partners_colours(shown, run):
    names = ["global", "face", "hand", "feet", "my-logo", "eyes"]
    row = {f"cos/{a}-{b}": 0.1 for i, a in enumerate(names) for b in names[i + 1 :]} | {"peak_memory_mib": 1175.0}
    rows = [{"step": n, **row, **{f"loss/{name}": n / 9 for name in names}} for n in range(1, 9)]
    rows[0]["peak_memory_mib"] = 1182.0
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    text = (run / "validation.jsonl").read_text()
    (run / "validation.jsonl").write_text(text.partition("\n")[0] + "\n")
    page = shown(run.parent, "/run?name=mpd", viewport={"width": 1280, "height": 900})
    chart = ".chart:has(select)"
    page.wait_for_selector(f"{chart} li")
    labels = f"{chart} li"
    assert [one.split()[0] for one in page.locator(labels).all_text_contents()] == names[1:]
    page.select_option(f"{chart} select", "my-logo")
    assert {one.split()[0] for one in page.locator(labels).all_text_contents()} == set(names) - {"my-logo"}
    colours = page.eval_on_selector_all(f"{chart} .line", "all => all.map(one => one.getAttribute('stroke'))")
    assert len(set(colours)) == 5
    texts = page.locator(".chart:has-text('Peak memory') .tick").all_text_contents()
    assert len(texts) == len(set(texts)) > 4
    assert page.locator(".held-out th[scope=col]").all_text_contents() == ["Objective", "Step 0"]
    assert page.locator(".of-region").first.text_content() == "face"
    audit(page)


def test_a_legend_tells_apart_what_its_chart_tells_apart(shown, run):
    names, steps = ["global", "face"], range(1340, 1348)
    rows = [{"step": n, **{f"loss/{name}": 0.0911 + (n - 1340) * 1e-5 for name in names}} for n in steps]
    rows[-1] |= {"loss/face": 0.09116, "lr": 1.25e-5}
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    page = shown(run.parent, "/run?name=mpd", viewport={"width": 1280, "height": 900})
    page.wait_for_selector(".chart li b")
    page.fill("#smoothing", "0")
    page.wait_for_function("() => document.querySelector('.chart li b').textContent === '0.09117'")
    assert page.locator(".chart li b").nth(1).text_content() == "0.09116"
    assert page.text_content(".chart:has-text('Learning rate') li b") == "1.25e-5"
    box = page.locator(".chart svg.plot").first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 50)
    page.mouse.up()
    assert re.fullmatch(r"1,34\d to 1,34\d", page.text_content("#range [value=picked]"))


def test_a_run_that_is_gone_keeps_up_no_other_and_an_overlay_comes_once_it_is_drawn(shown, run, monkeypatch):
    monkeypatch.setattr("fairhuman.studio.base.LOOK_SECONDS", -1.0)
    drawn = (run / "overlay.png").rename(run / "later.png")
    shutil.copytree(run, run.parent / "ls")
    with alone(run / ".lock", "held"):
        page = shown(run.parent, "/run?name=ls&name=mpd", expected="404")
        told = "text => document.querySelector('#runs').textContent.includes(text)"
        for text in ("overlay.png is missing.", "Not drawn yet."):
            page.wait_for_function(told, arg=text)
        # a file that goes while it is being sent breaks off, which the console tells
        page.wait_for_function("() => [...document.images].every(image => (image.loading = 'eager', image.complete))")
        shutil.rmtree(run.parent / "ls")
        drawn.rename(run / "overlay.png")
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 260, "images": 1040}) + "\n")
        page.clock.install()
        page.clock.fast_forward(11_000)
        page.evaluate(NEWS)
        page.wait_for_function(told, arg="260 of 200")
        page.wait_for_selector(".run img[alt^=Training]", state="attached")
    assert page.locator(".run .problem").all_text_contents() == ["There is no such run in this studio.", ""]
    assert (page.text_content("#problem"), "Not drawn" in page.text_content("#runs")) == ("", False)


def test_the_focus_stays_in_its_row_while_a_run_goes_on(shown, run):
    page = shown(run.parent)
    page.focus("#list a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 260, "images": 1040}) + "\n")
    page.evaluate(NEWS)
    page.wait_for_function("() => document.querySelector('#list').textContent.includes('260 of 200')")
    assert page.evaluate("[document.activeElement.localName, document.activeElement.textContent]") == ["a", "mpd"]


def test_numbers_of_axes_are_those_of_their_ticks_and_long_durations_have_hours(shown, run):
    page = shown(run, "/run?name=mpd")
    module = page.get_attribute("script[src*=studio_run]", "src").replace("studio_run.js", "studio.js")
    words = """async (at) => {
        const { duration, told } = await import(at);
        return [told([12240, 12260]), told([0.1, 0.15, 0.2]), told([1e6, 1.5e6]), duration(60 * 3600)];
    }"""
    assert page.evaluate(words, module) == [["12240", "12260"], ["0.1", "0.15", "0.2"], ["1M", "1.5M"], "2 days 12 h"]


@pytest.mark.slow
def test_the_overview_opens_runs_on_a_dark_phone(shown, run):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    page = shown(run.parent, **phone)
    page.check("#list input")
    audit(page)
    page.click("#open")
    page.wait_for_selector(".preview img")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    audit(page)


def ready(page, key):
    """Wait until a picture is large, drawn, and known to the page."""
    page.wait_for_function("key => document.querySelector('#title')?.textContent === key", arg=key)
    page.wait_for_function(
        "() => document.querySelector('#canvas').width > 0 && document.querySelector('#regions input')"
    )


def saved(page, text="Saved"):
    page.wait_for_function("text => document.querySelector('#saved').textContent.includes(text)", arg=text)


class View:
    """Where the cells of a picture are on the screen: as the page fits, zooms and moves it."""

    def __init__(self, page, width, height):
        box = page.locator("#canvas").bounding_box()
        self.page, self.left, self.top = page, box["x"], box["y"]
        w, h = page.evaluate(
            "[document.querySelector('#canvas').clientWidth, document.querySelector('#canvas').clientHeight]"
        )
        self.scale = min(w / width, h / height)
        self.x, self.y = (w - width * self.scale) / 2, (h - height * self.scale) / 2

    def place(self, cell):
        return self.left + self.x + cell[0] * self.scale, self.top + self.y + cell[1] * self.scale

    def zoom(self, cell, delta):
        """Turn the wheel with the pointer on a cell."""
        px, py = self.place(cell)
        self.page.mouse.move(px, py)
        self.page.mouse.wheel(0, delta)
        share = math.exp(-delta / 400)
        self.x, self.y = (px - self.left) * (1 - share) + self.x * share, (py - self.top) * (1 - share) + self.y * share
        self.scale *= share
        self.page.wait_for_timeout(100)

    def colour(self, cell):
        self.page.mouse.move(0, 0)  # no cursor in the picture
        self.page.wait_for_timeout(100)
        (x, y), script = self.place(cell), "([x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
        return self.page.evaluate(script, [round(x - self.left), round(y - self.top)])

    def wait_for_colour(self, cell, colour):
        for _ in range(50):
            if self.colour(cell) == colour:
                return
        assert self.colour(cell) == colour

    def drag(self, start, end):
        self.page.mouse.move(*self.place(start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(end))
        self.page.mouse.up()

    def pan(self, cell, by):
        px, py = self.place(cell)
        self.page.mouse.move(px, py)
        self.page.mouse.down()
        self.page.mouse.move(px + by[0], py + by[1])
        self.page.mouse.up()
        self.x, self.y = self.x + by[0], self.y + by[1]


def capsule(shape, start, end, radius):
    """Cells whose middle is within `radius` of a line."""
    rows, columns = np.indices(shape) + 0.5
    (ax, ay), (bx, by) = start, end
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = np.clip(((columns - ax) * (bx - ax) + (rows - ay) * (by - ay)) / length, 0, 1)
    return np.hypot(columns - ax - along * (bx - ax), rows - ay - along * (by - ay)) <= radius


def grown(mask_hw):
    return ndimage.binary_dilation(mask_hw, np.ones((3, 3)))


@pytest.fixture
def turned(tmp_path):
    """A folder with one photo, which its EXIF orientation turns upright: 96 x 128."""
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(128, 96, 1).save(folder / "a.jpg", exif=exif, quality=95)
    return folder


def painted(folder, region):
    record, *_ = read_source(folder, (region,), SourceSettings(), LoadReport())
    return np.asarray(decode_mask(record.masks[region])) > 127


def test_painting_changes_the_intended_cells_after_zoom_and_pan_in_a_turned_photo(shown, turned):
    page = shown(turned, "/data#0", viewport={"width": 1280, "height": 800})
    ready(page, "a.jpg")
    view = View(page, 96, 128)
    view.zoom((40, 50), -350)
    view.pan((40, 50), (37, -21))
    page.check("#region-hand")
    page.keyboard.press("b")
    page.locator("#size").fill("60")
    radius = 0.5 * 128 ** (0.6 * 0.85)
    view.drag((36, 44), (52, 60))
    saved(page)
    expected_hw = capsule((128, 96), (36, 44), (52, 60), radius)
    found_hw = painted(turned, "hand")
    assert not (found_hw & ~grown(expected_hw)).any()
    assert not (expected_hw & ~grown(found_hw)).any()
    page.keyboard.press("e")
    page.locator("#saved").evaluate("one => (one.textContent = '')")
    view.drag((52, 44), (36, 60))
    saved(page)
    expected_hw &= ~capsule((128, 96), (52, 44), (36, 60), radius)
    found_hw = painted(turned, "hand")
    assert not (found_hw & ~grown(expected_hw)).any()
    assert not (expected_hw & ~grown(found_hw)).any()
    page.keyboard.press("z")
    saved(page, "undone")
    page.keyboard.press("Shift+Z")
    saved(page, "redone")
    assert np.array_equal(painted(turned, "hand"), found_hw)
    audit(page)


@pytest.mark.slow
def test_boxes_polygons_none_there_and_captions_by_pointer_and_keys(shown, turned):
    page = shown(turned, "/data#0", viewport={"width": 1280, "height": 800}, expected="Canvas2D: Multiple readback")
    ready(page, "a.jpg")
    view = View(page, 96, 128)
    page.check("#region-face")
    page.keyboard.press("r")
    view.drag((10, 20), (40, 60))
    saved(page, "face: boxes")
    page.wait_for_function("() => document.querySelectorAll('#boxes li').length === 1")
    view.drag((40, 60), (50, 70))  # a corner
    page.wait_for_function("() => document.querySelector('#boxes li').textContent.startsWith('10, 20, 50, 70')")
    view.drag((30, 40), (35, 45))  # the inside
    page.wait_for_function("() => document.querySelector('#boxes li').textContent.startsWith('15, 25, 55, 75')")
    page.keyboard.press("g")
    page.wait_for_function("() => document.querySelector('#boxes li').textContent.startsWith('14, 24, 56, 76')")
    page.keyboard.press("s")
    page.wait_for_function("() => document.querySelector('#boxes li').textContent.startsWith('15, 25, 55, 75')")
    for key in "+-=-":  # which zoom, as on the other pages
        page.keyboard.press(key)
    assert [text for _, text in changes(turned)] == ["face: 1 box"] * 5
    page.check("#region-ignore")
    page.keyboard.press("p")
    for corner in ((60, 10), (90, 10), (90, 40)):
        page.mouse.click(*view.place(corner))
    page.keyboard.press("Enter")
    saved(page, "ignore: painted")
    page.check("#region-person")
    page.keyboard.press("n")
    saved(page, "person: none there")
    page.fill("#caption", "somebody outside")
    page.keyboard.press("Escape")
    saved(page, "caption")
    [record] = read_source(turned, ("face", "person"), SourceSettings(), LoadReport())
    assert record.caption == "somebody outside"
    assert [round(value) for value in (record.boxes["face"][0].x0, record.boxes["face"][0].y1)] == [15, 75]
    assert record.boxes["person"] == ()
    triangle_hw = painted(turned, "ignore")
    assert abs(int(triangle_hw.sum()) - 450) < 40
    assert triangle_hw[12, 86]
    assert not triangle_hw[38, 62]
    colour = view.colour((84, 16))

    def early(route):
        """As a server that has just started: it doesn't know the regions yet."""
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "colours": {}, "regions": ["ignore"], "done": False})

    page.route("**/api/data?*", early, times=1)
    page.reload()
    ready(page, "a.jpg")
    view.wait_for_colour((84, 16), colour)


@pytest.mark.slow
def test_new_regions_an_eraser_on_nothing_and_a_caption_that_is_being_typed(shown, turned):
    page = shown(turned, "/data", viewport={"width": 1280, "height": 800}, expected="422 (Unprocessable")
    page.wait_for_selector(".card")
    page.focus("#grid")
    page.keyboard.press("Enter")
    ready(page, "a.jpg")
    view = View(page, 96, 128)
    page.fill("#name", "my logo")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#problem').textContent.includes('such as my_logo')")
    page.wait_for_timeout(1500)  # in which the page asks for news
    assert "such as my_logo" in page.text_content("#problem")
    page.fill("#name", "logo")
    page.keyboard.press("Enter")
    page.wait_for_selector("#region-logo:checked")
    assert page.evaluate("document.activeElement.id") == "canvas"
    assert page.get_attribute("[data-tool=brush]", "aria-pressed") == "true"
    page.keyboard.press("e")
    view.drag((10, 20), (40, 60))
    saved(page, "nothing to erase")
    assert read_edits(turned).lines == []
    page.keyboard.press("r")
    view.drag((10, 20), (40, 60))
    saved(page, "logo: boxes")
    page.wait_for_function("() => document.querySelectorAll('#boxes li').length === 1")
    view.drag((50, 70), (60, 90))
    page.wait_for_function("() => document.querySelectorAll('#boxes li').length === 2")
    page.fill("#caption", "after a pause")
    saved(page, "caption")
    page.fill("#caption", "before going back")
    page.go_back()
    page.wait_for_selector("#list:not([hidden])")
    page.wait_for_function("() => document.querySelector('.card').dataset.text === '✎ · a.jpg · before going back'")
    page.go_forward()
    ready(page, "a.jpg")
    assert page.input_value("#caption") == "before going back"
    page.fill("#caption", "before a reload")
    page.reload()
    ready(page, "a.jpg")
    assert page.input_value("#caption") == "before a reload"
    page.set_viewport_size({"width": 280, "height": 800})
    page.locator("#like").scroll_into_view_if_needed()
    page.locator("#region-ignore").scroll_into_view_if_needed()
    page.check("#region-ignore")
    assert page.locator("#canvas").bounding_box()["y"] >= 0  # the picture stays in view
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_a_change_waits_for_the_server_and_another_tab_s_is_not_overwritten(shown, turned):
    offline = {"expected": "Failed to load resource", "viewport": {"width": 1280, "height": 800}}
    page = shown(turned, "/data#0", **offline)
    ready(page, "a.jpg")
    page.context.set_offline(True)
    page.keyboard.press("n")
    saved(page, "Not saved yet: 1 change waits")
    page.context.set_offline(False)
    saved(page, "Saved")
    answers = [503, 422, 503]  # the server is back and reads; refuses one; reads again

    def answer(route):
        if answers:
            route.fulfill(status=answers.pop(0), json={"message": "as told"})
        else:
            route.continue_()

    page.context.route("**/api/change", answer)
    page.check("#region-hand")
    page.keyboard.press("n")
    saved(page, "Not saved yet: 1 change waits")
    page.check("#region-person")
    page.keyboard.press("n")
    saved(page, "Not saved: hand: none there. Saved: person: none there.")
    assert page.text_content("#problem") == "as told"
    assert answers == []
    assert {line.values["region"] for line in read_edits(turned).lines} == {"face", "person"}
    page.reload()
    ready(page, "a.jpg")
    with pytest.raises(DataError, match="another studio"), EditsWriter(turned):
        pass
    other = page.context.new_page()
    other.goto(page.url)
    ready(other, "a.jpg")
    other.check("#region-hand")
    other.keyboard.press("n")
    saved(other)
    page.keyboard.press("u")
    page.wait_for_function("() => document.querySelector('#problem').textContent.includes('another window')")
    page.evaluate(NEWS)
    page.wait_for_timeout(1000)
    assert "another window" in page.text_content("#problem")


@pytest.fixture
def three(tmp_path):
    """A folder with three photos, a, b and c, each with a face and a caption."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for i, name in enumerate("abc"):
        (folder / f"{name}.png").write_bytes(encoded(picture(64, 48, i)))
        rows.append({"file_name": f"{name}.png", "caption": f"photo {name}", "faces": [[4, 5, 20, 25]]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def whole(page, number=3):
    """Wait until the data set is read; before that the last picture that was read has no next one."""
    page.wait_for_function(
        "text => document.querySelector('#count').textContent === text", arg=f"{number} picture{'s' * (number != 1)}"
    )


def hold(page, number):
    """The answer to a request for a picture waits until the function that is returned is called."""
    held = []
    page.route(f"**/api/picture?*number={number}&*", lambda route: held.append(route))

    def release():
        while not held:
            page.wait_for_timeout(10)
        with page.expect_response(f"**/api/picture?*number={number}&*"):
            held.pop().continue_()

    return release


@pytest.mark.slow
def test_a_picture_that_has_another_s_number_by_now_is_shown_with_its_own_pixels(shown, three):
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 48), colour).save(three / f"{name}.png")
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800}, expected="Canvas2D: Multiple readback")
    ready(page, "a.png")
    View(page, 64, 48).wait_for_colour((40, 40), [255, 0, 0, 255])
    rows = (three / "metadata.jsonl").read_text().splitlines()
    (three / "metadata.jsonl").write_text("\n".join(rows[1:]))
    page.keyboard.press("Escape")
    page.evaluate(NEWS)
    whole(page, 2)
    page.reload()
    page.locator(".card img").first.click()
    ready(page, "b.png")
    View(page, 64, 48).wait_for_colour((40, 40), [0, 0, 255, 255])


def changes(folder):
    return [(line.key, line.text()) for line in read_edits(folder).lines]


def test_a_text_typed_while_a_picture_is_on_its_way_changes_no_picture(shown, three):
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800})
    ready(page, "a.png")
    whole(page)
    release = hold(page, 1)
    page.fill("#caption", "of a")
    page.click("#next")
    page.clock.install()
    page.clock.pause_at(2**31)  # the pause that ends a text comes with run_for
    page.click("#caption")
    page.keyboard.type("no, none under")  # keys of "none there", "previous", "not annotated", and the tool
    assert page.input_value("#caption") == "of a"
    release()
    ready(page, "b.png")
    page.keyboard.press("Backspace")
    page.keyboard.type("n, u")
    assert page.input_value("#caption") == "photo b"
    page.clock.run_for(1300)
    page.keyboard.press("End")
    page.keyboard.type(", later")
    page.keyboard.press("Escape")
    saved(page, "caption")
    page.keyboard.press("<")
    ready(page, "a.png")
    page.keyboard.press(">")  # without the caption's field, the text would be keys
    page.keyboard.type("no, none under")
    release()
    ready(page, "b.png")
    page.keyboard.type("b n, u")
    page.clock.run_for(1300)
    assert page.get_attribute("[data-tool=pan]", "aria-pressed") == "true"
    assert page.text_content("#title") == "b.png"
    assert changes(three) == [("a.png", "caption: of a"), ("b.png", "caption: photo b, later")]
    page.keyboard.press("n")
    saved(page, "face: none there")


def test_a_tap_that_changes_no_cell_changes_no_annotation_and_a_pinch_adds_no_corner(shown, three):
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800}, has_touch=True)
    ready(page, "a.png")
    assert page.is_visible("text=counts for no objective")
    view = View(page, 64, 48)
    view.zoom((32, 24), 200)
    page.check("#region-hand")  # not annotated
    for key in "be":
        page.keyboard.press(key)
        page.mouse.click(*view.place((32, -8)))
        saved(page, "hand: nothing was painted." if key == "b" else "hand: there was nothing to erase.")
    page.check("#region-face")
    page.keyboard.press("b")
    page.mouse.click(*view.place((12, 15)))  # inside its box
    saved(page, "face: nothing was painted.")
    assert "1 box" in page.text_content(".region:has(#region-face)")
    page.check("#region-ignore")
    page.keyboard.press("p")
    for corner in ((30, 10), (40, 10), (50, 10)):
        page.mouse.click(*view.place(corner))
    page.keyboard.press("Enter")
    saved(page, "ignore: nothing was painted.")
    page.check("#region-person")
    touch = page.context.new_cdp_session(page)
    for corner in ((30, 10), (50, 10), (40, 30)):
        fingers = [dict(zip("xy", view.place(at), strict=True)) for at in (corner, (20, 40))]
        for down in (fingers[:1], fingers):
            touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": down})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.keyboard.press("Enter")
    for corner in ((30, 10), (50, 10), (50, 30)):
        page.mouse.click(*view.place(corner))
    page.keyboard.press("Enter")
    saved(page, "Saved: person: painted.")
    assert abs(int(painted(three, "person").sum()) - 200) < 20
    assert [key for key, _ in changes(three)] == ["a.png"]


@pytest.mark.slow
def test_of_two_quick_nexts_the_later_one_is_shown_and_back_leaves_both(shown, three):
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800})
    ready(page, "a.png")
    whole(page)
    release = hold(page, 1)
    page.click("#next")
    saved(page, "Opening the picture")
    audit(page)
    page.click("#next")
    ready(page, "c.png")
    assert page.text_content("#saved") == ""
    release()
    page.wait_for_timeout(500)
    assert (page.url.rpartition("#")[2], page.text_content("#title")) == ("2", "c.png")
    assert page.input_value("#caption") == "photo c"
    page.keyboard.press("n")
    saved(page)
    page.click("#previous")
    page.click("#back")
    page.wait_for_selector("#list:not([hidden])")
    release()
    page.keyboard.press("n")
    page.wait_for_timeout(500)
    assert page.is_visible("#list")
    assert changes(three) == [("c.png", "face: none there")]


@pytest.mark.slow
def test_a_stroke_is_saved_to_the_picture_it_was_begun_on(shown, three):
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800})
    ready(page, "a.png")
    whole(page)
    view = View(page, 64, 48)
    page.check("#region-hand")
    page.keyboard.press("b")
    page.mouse.move(*view.place((30, 10)))
    page.mouse.down()
    page.mouse.move(*view.place((40, 20)))
    page.keyboard.press(">")
    ready(page, "b.png")
    page.mouse.move(*view.place((50, 30)))
    page.mouse.up()
    page.wait_for_timeout(300)
    assert [key for key, _ in changes(three)] == ["a.png"]


@pytest.mark.slow
def test_with_the_server_killed_between_a_text_stays_with_its_picture(open_page, three):
    words = [sys.executable, "-m", "fairhuman", "studio", str(three), "--port"]

    def start(port):
        process = subprocess.Popen([*words, port], stdout=subprocess.PIPE, text=True)
        return process, next(line for line in process.stdout if line.startswith("http")).split()[0]

    process, address = start("0")
    try:
        page = open_page(
            f"{address}/data#0", expected="Failed to load resource", viewport={"width": 1280, "height": 800}
        )
        ready(page, "a.png")
        whole(page)
        process.kill()
        process.communicate()
        page.fill("#caption", "of a")
        page.click("#next")
        saved(page, "Not saved yet: 1 change waits")
        page.click("#caption")
        page.keyboard.type("no, none under")
        page.click("#next")
        page.click("#previous")
        process, again = start(address.rpartition(":")[2].partition("/")[0])
        assert again == address
        ready(page, "b.png")
        whole(page)
        assert page.input_value("#caption") == "photo b"
        assert page.text_content("#problem") == ""
        assert changes(three) == [("a.png", "caption: of a")]
        process.kill()
        process.communicate()
        page.click("#next")  # nothing waits to be saved: the picture itself can't be read
        page.wait_for_function("() => document.querySelector('#problem').textContent.includes('be reached')")
        process, _ = start(address.rpartition(":")[2].partition("/")[0])
        ready(page, "c.png")
        assert page.text_content("#problem") == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_undo_names_what_it_takes_back_and_stops_at_what_the_page_has_done(shown, three):
    with EditsWriter(three) as earlier:
        earlier.add("a.png", {"caption": "of last week"})
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800})
    ready(page, "a.png")
    view = View(page, 64, 48)
    assert page.is_disabled("#undo")
    page.keyboard.press("z")
    saved(page, "Nothing that this page has changed is left to undo here")
    page.check("#region-face")
    page.keyboard.press("e")
    view.drag((6, 8), (9, 12))
    saved(page, "Saved: face: erased.")
    page.keyboard.press("n")
    saved(page, "Saved: face: none there.")
    page.keyboard.press("n")
    saved(page, "face: none there already.")
    page.keyboard.press("z")
    saved(page, "Saved: undone (face: none there).")
    page.keyboard.press("z")
    page.keyboard.press("z")
    saved(page, "Nothing that this page has changed is left to undo here")
    page.keyboard.press("y")
    saved(page, "Saved: redone (face: erased).")
    assert page.input_value("#caption") == "of last week"
    assert [text for _, text in changes(three)] == [
        "caption: of last week",
        "face: painted, 1 box",
        "face: none there",
        "undoes 3",
        "undoes 2",
        "undoes 5",
    ]


@pytest.mark.slow
def test_a_caption_that_another_window_has_changed_is_told_and_the_own_text_stays(shown, three):
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800}, expected="409 (Conflict)")
    ready(page, "a.png")
    other = page.context.new_page()
    other.goto(page.url)
    ready(other, "a.png")
    other.fill("#caption", "theirs")
    saved(other, "caption")
    page.fill("#caption", "mine")
    told = "() => document.querySelector('#problem').textContent.includes('“theirs”')"
    page.wait_for_function(told)
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    assert [text for _, text in changes(three)] == ["caption: theirs"]
    assert page.input_value("#caption") == "mine"
    page.fill("#caption", "mine, after theirs")
    saved(page, "Saved: caption.")
    assert page.text_content("#problem") == ""
    other.fill("#caption", "theirs again")
    other.keyboard.press("Escape")  # the field is left before the answer
    other.wait_for_function("() => document.querySelector('#problem').textContent.includes('“theirs again”')")
    assert other.input_value("#caption") == "mine, after theirs"


@pytest.mark.slow
def test_a_tool_s_key_leaves_the_list_of_regions_and_a_new_region_has_its_colour_at_once(shown, three):
    page = shown(three, "/data#0", viewport={"width": 1280, "height": 800})
    ready(page, "a.png")
    page.focus("#region-face")
    page.keyboard.press("ArrowDown")
    chosen = page.eval_on_selector("#regions input:checked", "one => one.value")
    page.keyboard.press("b")
    assert page.evaluate("document.activeElement.id") == "canvas"
    page.keyboard.press("ArrowDown")
    assert page.eval_on_selector("#regions input:checked", "one => one.value") == chosen != "face"
    page.fill("#name", "a" + "b" * 59)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#region-a{'b' * 59}:checked")
    drawn = page.get_attribute(f".region:has(#region-a{'b' * 59}) rect", "fill")
    view = View(page, 64, 48)
    view.drag((40, 10), (50, 20))
    saved(page)
    page.reload()
    ready(page, "a.png")
    page.wait_for_selector(f"#region-a{'b' * 59}")
    page.wait_for_function(
        f"() => document.querySelector('.region:has(#region-a{'b' * 59}) rect').getAttribute('fill') === '{drawn}'"
    )
    inside = "() => document.querySelector('#panel').scrollWidth <= document.querySelector('#panel').clientWidth"
    page.wait_for_selector("#lines li")  # which come last, with the crop
    assert page.evaluate(inside)
    audit(page)


@pytest.mark.slow
def test_the_address_keeps_the_filters_and_back_goes_to_the_list(shown, three):
    with (three / "metadata.jsonl").open("a") as file:
        (three / "d.png").write_bytes(encoded(picture(64, 48, 7)))
        file.write("\n" + json.dumps({"file_name": "d.png", "caption": "photo d", "faces": []}))
    page = shown(three, "/data", viewport={"width": 1280, "height": 800})
    whole(page, 4)
    page.select_option("#region", "face")
    page.select_option("#state", "has")
    whole(page)
    page.fill("#text", "photo")
    page.wait_for_function("() => location.search.includes('text=photo')")
    whole(page)
    page.check("#outlines")
    page.wait_for_function("() => document.querySelector('.card img')?.src.includes('regions=1')")
    page.focus("#grid")
    page.keyboard.press("Enter")
    ready(page, "a.png")
    page.click("#next")
    ready(page, "b.png")
    page.click("#next")
    ready(page, "c.png")
    page.reload()
    ready(page, "c.png")
    page.go_back()
    page.wait_for_selector("#list:not([hidden])")
    whole(page)
    values = [page.input_value(f"#{one}") for one in ("region", "state", "text")]
    assert (values, page.is_checked("#outlines")) == (["face", "has", "photo"], True)
    page.fill("#text", "")
    page.select_option("#state", "none")
    whole(page, 1)
    page.go_forward()
    page.wait_for_selector("#editor:not([hidden], [aria-busy])")
    assert page.text_content("#title") == "c.png"  # with the filters of its address
    page.keyboard.press("Escape")
    page.wait_for_selector("#list:not([hidden])")
    whole(page)
    assert page.input_value("#state") == "has"


def test_the_first_click_after_a_search_opens_a_picture(shown, three):
    page = shown(three, "/data", viewport={"width": 1280, "height": 800})
    whole(page)
    page.click("#text")
    page.keyboard.type("photo b")
    whole(page, 1)
    page.locator(".card img").click()
    ready(page, "b.png")


@pytest.mark.slow
def test_of_ten_thousand_pictures_few_are_in_the_page(shown, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.png").write_bytes(encoded(picture(64, 48, i)))
    rows = [{"file_name": f"{i % 10}.png", "key": f"p{i}", "caption": f"number {i}"} for i in range(10_000)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = shown(folder, "/data", viewport={"width": 1280, "height": 900})
    page.wait_for_function("() => document.querySelector('#count').textContent === '10,000 pictures'", timeout=60_000)
    for key in ("End", "PageUp", "Home"):
        page.focus("#grid")
        page.keyboard.press(key)
        page.wait_for_function(
            "() => [...document.querySelectorAll('.card')].every(card => card.querySelector('img')?.complete)"
        )
        assert page.evaluate("document.querySelectorAll('*').length") <= 200
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    ready(page, "p9999")
    page.keyboard.press("Escape")
    page.fill("#text", "number 99")
    page.wait_for_function("() => document.querySelector('#count').textContent === '111 pictures'")
    audit(page)


@pytest.mark.slow
def test_killed_while_painting_the_server_loses_no_change_that_it_confirmed(turned, tmp_path):
    words = [sys.executable, "-m", "fairhuman", "studio", str(turned), "--port", "0"]
    for number in range(1, 4):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            address = next(line for line in process.stdout if line.startswith("http")).split()[0]
            while not json.load(urlopen(f"{address}/api/data?name=photos"))["done"]:
                pass
            body = {
                "name": "photos",
                "number": 0,
                "key": "a.jpg",
                "version": number - 1,
                "caption": f"caption {number}",
            }
            headers = {"Content-Type": "application/json", "Origin": address.partition("/s/")[0]}
            with urlopen(Request(f"{address}/api/change", json.dumps(body).encode(), headers)) as answer:
                assert json.load(answer)["caption"] == f"caption {number}"
        finally:
            process.kill()
            process.communicate()
    assert [line.values["caption"] for line in read_edits(turned).lines] == ["caption 1", "caption 2", "caption 3"]
