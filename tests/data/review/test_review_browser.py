"""The review page in a real browser: keys, undo, several reviewers, a lost server, a phone."""

import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from fairhuman.data.review import ReviewSettings, create_review_app
from fairhuman.data.review.events import FILE, TABLES
from fairhuman.data.sources.edits import EditsWriter
from fairhuman.web import database
from fairhuman.web.database import open_database, transaction

SERVER = """
import sys
from pathlib import Path
from fairhuman.data.review import ReviewSettings, serve_review
serve_review(Path(sys.argv[1]), ReviewSettings(), "127.0.0.1", int(sys.argv[2]), lambda text: print(text, flush=True))
"""


def showing(page, key):
    """Wait until the picture of a key is on the page, decoded."""
    page.wait_for_function(
        """key => document.querySelector('#key')?.textContent === key
            && document.querySelector('#canvas img')?.naturalWidth""",
        arg=key,
    )


def saying(page, text, where="#status"):
    page.wait_for_function(
        "([where, text]) => document.querySelector(where)?.textContent.includes(text)", arg=[where, text]
    )


def shown(page):
    return page.text_content("#key")


@pytest.fixture
def reviewing(review_folder, serving, open_page):
    """`reviewing(pictures)` gives the folder, and what opens a page of a reviewer."""

    def start(count, more=None, **settings):
        folder = review_folder(count, **(more or {}))
        app = create_review_app(folder, ReviewSettings(**settings))
        root = f"{serving(app)}{app.state.root}"
        return folder, lambda name, **options: open_page(f"{root}/review?name={name}", **options)

    return start


def test_one_key_a_decision_undo_and_reload(reviewing, events):
    folder, opened = reviewing(6)
    page = opened("Ada")
    showing(page, "p0")
    page.keyboard.press("k")
    saying(page, "Kept.")
    showing(page, "p1")
    page.keyboard.press("2")
    saying(page, "Dropped: unclear.")
    showing(page, "p2")
    page.keyboard.press("e")
    page.keyboard.type(", k1 smiling")  # letters of a prompt are no decisions
    page.keyboard.press("Control+Enter")
    saying(page, "Kept with the new prompt.")
    showing(page, "p3")
    page.keyboard.press("e")
    page.keyboard.type(" nonsense")
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    saying(page, "Kept.")
    showing(page, "p4")
    page.fill("#prompt", "something else")
    page.click("#zoom")  # Escape restores the prompt after the focus has left it, too
    page.keyboard.press("Escape")
    assert page.input_value("#prompt") == "a person, number 4"
    assert page.text_content("#keep span") == "Keep"
    assert events(folder) == [
        ("Ada", "p0", "keep", "a person, number 0", None),
        ("Ada", "p1", "drop", None, "unclear"),
        ("Ada", "p2", "keep", "a person, number 2, k1 smiling", None),
        ("Ada", "p3", "keep", "a person, number 3", None),
    ]
    page.keyboard.press("u")
    showing(page, "p3")
    page.keyboard.press("u")
    showing(page, "p2")
    assert page.input_value("#prompt") == "a person, number 2, k1 smiling"  # what was written isn't lost
    assert page.text_content("#counts") == "2 of 6 done · 2 by you"
    page.reload()
    showing(page, "p2")
    assert page.text_content("#counts") == "2 of 6 done · 2 by you"
    assert [row[2] for row in events(folder)] == ["keep", "drop", "keep", "keep", "undo", "undo"]


@pytest.mark.slow
def test_a_prompt_that_is_changed_by_hand_meanwhile_is_shown_before_it_is_decided_on(reviewing, events):
    folder, opened = reviewing(2)
    page = opened("Ada", expected="409")
    showing(page, "p0")
    page.fill("#prompt", "typed")
    with EditsWriter(folder) as writer:
        writer.add("p0", {"caption": "by hand"})
    page.keyboard.press("Control+Enter")
    saying(page, "The prompt was changed meanwhile, to “by hand”.", "#problem")
    page.wait_for_function("() => !document.getElementById('original').hidden")
    assert (page.input_value("#prompt"), events(folder)) == ("typed", [])  # what was written isn't lost
    page.click("#original")
    assert page.input_value("#prompt") == "by hand"
    page.click("#keep")
    showing(page, "p1")
    assert events(folder) == [("Ada", "p0", "keep", "by hand", None)]


def test_a_region_that_is_newer_than_the_page_stops_nothing_and_a_rewritten_prompt_is_not_lost(reviewing, events):
    folder, opened = reviewing(3, more={"leftHand": [[1, 2, 5, 6]]})
    asked = []
    page = opened("Ada")
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    showing(page, "p0")
    assert [one.split()[0] for one in page.locator(".legend").all_text_contents()] == ["Faces", "Hands", "LeftHand"]
    with EditsWriter(folder) as writer:
        writer.add("p1", {"region": "bag", "boxes": [[1, 2, 9, 9]], "mask": None})
    page.keyboard.press("k")
    showing(page, "p1")
    assert (page.input_value("#prompt"), page.text_content("#problem")) == ("a person, number 1", "")
    page.keyboard.press("e")
    page.keyboard.type(", typed")
    page.click("#undo")
    showing(page, "p0")
    page.click("#keep")
    showing(page, "p1")
    assert page.input_value("#prompt") == "a person, number 1, typed"
    page.reload()
    showing(page, "p1")
    page.reload()
    showing(page, "p1")
    assert asked == ["beforeunload"]  # only while there was something to lose


@pytest.mark.slow
def test_what_is_not_read_of_a_long_prompt_is_shown_while_it_is_written(reviewing):
    _, opened = reviewing(2)
    page = opened("Ada")
    showing(page, "p0")
    page.fill("#prompt", "a person waving, " * 30)
    page.wait_for_function("() => document.getElementById('unread').textContent.includes(\"isn't read\")")
    page.keyboard.press("Control+Enter")
    saying(page, "Kept with the new prompt.")
    page.wait_for_function("() => document.getElementById('unread').textContent === ''")


@pytest.mark.slow
def test_the_next_picture_is_there_before_it_is_asked_for(reviewing):
    _, opened = reviewing(4)
    page = opened("Ada")
    showing(page, "p0")
    page.wait_for_function("() => performance.getEntriesByType('resource').some(each => each.name.endsWith('key=p1'))")
    page.keyboard.press("k")
    showing(page, "p1")
    fetched = page.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
    assert sum(name.endswith("key=p1") for name in fetched) == 1


@pytest.mark.slow
def test_a_next_picture_that_failed_to_come_is_asked_for_again(reviewing):
    _, opened = reviewing(3)
    page = opened("Ada", expected="ERR_FAILED")
    showing(page, "p0")
    page.route("**/picture?key=p2", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.keyboard.press("k")
    page.unroute("**/picture?key=p2")
    showing(page, "p1")
    page.keyboard.press("k")
    showing(page, "p2")


@pytest.mark.slow
def test_a_key_held_down_and_keys_that_are_switched_off_decide_nothing_more(reviewing, events):
    folder, opened = reviewing(3)
    page = opened("Ada")
    showing(page, "p0")
    page.keyboard.down("k")
    saying(page, "Kept.")
    for _ in range(5):
        page.keyboard.down("k")  # what a keyboard sends while a key is held
    page.keyboard.up("k")
    showing(page, "p1")
    page.uncheck("#shortcuts")
    page.keyboard.press("k")
    page.reload()
    showing(page, "p1")
    page.keyboard.press("k")
    page.click("#zoom")
    page.click("[data-reason=anatomy]")
    saying(page, "Dropped: wrong anatomy.")
    assert [row[1:3] for row in events(folder)] == [("p0", "keep"), ("p1", "drop")]


@pytest.mark.slow
def test_two_reviewers_never_have_the_same_picture_and_the_last_one_waits(reviewing, events):
    folder, opened = reviewing(7, lease_seconds=600)
    ada, bo = opened("Ada"), opened("Bo")
    showing(ada, "p0")
    bo.wait_for_function("() => document.querySelector('#key')?.textContent")
    for _ in range(2):
        assert shown(ada) != shown(bo)
        for page in (ada, bo):
            before = shown(page)
            page.keyboard.press("k")
            page.wait_for_function("before => document.querySelector('#key')?.textContent !== before", arg=before)
    assert len(events(folder)) == len({row[1] for row in events(folder)}) == 4
    for _ in range(2):
        count = len(events(folder))
        ada.keyboard.press("k")
        ada.wait_for_function(
            "own => document.querySelector('#counts')?.textContent.startsWith(own)", arg=f"{count + 1} of"
        )
    saying(ada, "Nothing to do right now", "#nothing-title")
    bo.keyboard.press("k")
    saying(bo, "All done", "#nothing-title")
    ada.wait_for_function(
        "() => document.querySelector('#nothing-title')?.textContent === 'All done'"
    )  # looks by itself
    assert sorted(row[1] for row in events(folder)) == [f"p{i}" for i in range(7)]


@pytest.mark.slow
def test_a_picture_decided_by_another_reviewer_is_reported_and_skipped(reviewing, events):
    folder, opened = reviewing(3, lease_seconds=0.01)
    ada, bo = opened("Ada", expected="409"), opened("Bo")
    showing(ada, "p0")
    showing(bo, "p0")
    bo.keyboard.press("k")
    showing(bo, "p1")
    ada.keyboard.press("1")
    saying(ada, "already been decided by Bo", "#problem")
    showing(ada, "p1")
    assert len(events(folder)) == 1


@pytest.mark.slow
def test_a_locked_database_is_reported_and_the_picture_stays(reviewing, events, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    folder, opened = reviewing(2)
    page = opened("Ada", expected="503")
    showing(page, "p0")
    other = open_database(folder / FILE, TABLES)
    with transaction(other):
        page.keyboard.press("k")
        saying(page, "nothing was saved", "#problem")
    other.dispose()
    assert (shown(page), page.text_content("#status"), events(folder)) == ("p0", "", [])
    page.keyboard.press("k")
    showing(page, "p1")
    assert page.text_content("#problem") == ""


def serve(folder, port):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), str(port)], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().split()[0]


def test_a_server_that_is_killed_loses_nothing_and_the_open_page_goes_on(review_folder, open_page, events):
    folder = review_folder(8)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, address = serve(folder, port)
    try:
        page = open_page(f"{address}/review?name=Ada", expected="net::ERR_")
        for i in range(2):
            showing(page, f"p{i}")
            page.keyboard.press("k")
        showing(page, "p2")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert [row[1] for row in events(folder)] == ["p0", "p1"]
        page.keyboard.press("k")
        saying(page, "The server can't be reached, so nothing was saved", "#problem")
        assert shown(page) == "p2"
        process, _ = serve(folder, port)
        page.keyboard.press("k")
        showing(page, "p3")
        assert [row[1] for row in events(folder)] == ["p0", "p1", "p2"]
        assert urlopen(f"http://127.0.0.1:{port}/health", timeout=30).status == 200
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_boxes_and_zoom(reviewing):
    _, opened = reviewing(2)
    page = opened("Ada", viewport={"width": 1200, "height": 800})
    showing(page, "p0")
    image, box = page.locator("#canvas img").bounding_box(), page.locator("rect.face").bounding_box()
    scale = image["width"] / 64
    assert image["height"] == pytest.approx(48 * scale, abs=1)
    assert (box["x"] - image["x"], box["y"] - image["y"]) == pytest.approx((4 * scale, 5 * scale), abs=3)
    assert (box["width"], box["height"]) == pytest.approx((16 * scale, 20 * scale), abs=6)
    assert page.locator("rect.hand").count() == 0
    assert page.locator("#count-1").text_content() == "unknown"
    page.keyboard.press("b")
    assert not page.locator("rect.face").is_visible()
    page.reload()
    showing(page, "p0")
    assert page.get_attribute("#boxes", "aria-pressed") == "false"  # remembered
    page.click("#canvas", position={"x": 0.9 * image["width"], "y": 0.9 * image["height"]})
    assert page.locator("#canvas img").bounding_box()["width"] == pytest.approx(2.5 * image["width"], rel=0.01)
    assert page.evaluate("document.querySelector('#stage').scrollLeft") > image["width"] / 2
    page.keyboard.press("z")
    assert page.locator("#canvas img").bounding_box() == pytest.approx(image)
    page.keyboard.press("k")
    showing(page, "p1")
    assert page.locator("#count-1").text_content() == "1"


@pytest.mark.slow
def test_a_picture_that_is_gone_can_be_dropped(reviewing, events):
    folder, opened = reviewing(2)
    (folder / "images" / "0.png").unlink()
    page = opened("Ada", expected="404")
    page.wait_for_selector("text=This picture can't be shown.")
    page.keyboard.press("5")
    showing(page, "p1")
    assert events(folder) == [("Ada", "p0", "drop", None, "other")]


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
        {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},  # a 1280 px window at 200 %
        {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    ],
    ids=["phone", "zoom-200", "dark"],
)
def test_all_fits_the_width_and_can_be_reached_by_keyboard(reviewing, options):
    _, opened = reviewing(2)
    page = opened("Ada%20" + "Bo" * 25, **options)
    showing(page, "p0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.reason ?? document.activeElement.id"))
        assert page.evaluate(
            """document.activeElement === document.body
                || getComputedStyle(document.activeElement).outlineStyle !== 'none'"""
        )
    assert {"stage", "zoom", "boxes", "prompt", "keep", "undo", "anatomy", "other"} <= reached
    assert ("shortcuts" in reached) != options.get("has_touch", False)  # a phone has no keys
    unnamed = """() => [...document.querySelectorAll('button, input, textarea, a')].filter(
        (each) => !(each.getAttribute('aria-label') || each.labels?.length || each.textContent.trim())).length"""
    assert page.evaluate(unnamed) == 0
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_by_label("Prompt", exact=True).input_value() == "a person, number 0"


def test_the_start_page_asks_for_a_name_and_leads_on(serving, open_page, review_folder):
    app = create_review_app(review_folder(1), ReviewSettings())
    page = open_page(f"{serving(app)}{app.state.root}")
    page.wait_for_function("document.activeElement.id === 'name'")
    page.keyboard.type("Zoë & <b>")
    page.keyboard.press("Enter")
    showing(page, "p0")
    assert page.text_content(".who") == "Zoë & <b>"
    page.keyboard.press("k")
    saying(page, "All done", "#nothing-title")
    page.click("text=Change")
    page.click("text=Zoë & <b>")
    saying(page, "All done", "#nothing-title")
