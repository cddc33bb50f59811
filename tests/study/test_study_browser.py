"""The participant's page in a real browser: a whole session, back, reload, no network, two tabs, phone, keyboard."""

import sqlite3
from pathlib import Path

import pytest
from small_study import METHODS

from fairhuman.study.study import DATABASE, load_design

AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


class Tab:
    """A participant's page; each method waits until the page has done it."""

    def __init__(self, page) -> None:
        self.page = page

    def ready(self) -> int:
        """Wait until an answer is taken; the step that is shown, trial * questions + question."""
        self.page.wait_for_selector("#choices button[aria-disabled=false]")
        self.page.wait_for_timeout(320)  # a person takes longer; what is faster is taken for a slip
        return self.step()

    def words(self) -> list[str]:
        return [self.page.text_content(place) for place in ("#question", "#counts")]

    def step(self) -> int:
        trial = int(self.page.text_content("#counts").split()[0]) - 1
        questions = self.page.evaluate("JSON.parse(document.body.dataset.questions).map(question => question.text)")
        return trial * len(questions) + questions.index(self.page.text_content("#question"))

    def press(self, key: str) -> None:
        """Press it once an answer is taken, and wait for another step or the end."""
        self.ready()
        self.hurry(key)

    def hurry(self, key: str) -> None:
        """Press a key where it is known that an answer is taken."""
        before = self.words()
        self.page.keyboard.press(key)
        self.page.wait_for_function(
            """([question, counts]) => document.querySelector('#question').textContent !== question
                || document.querySelector('#counts').textContent !== counts
                || !document.querySelector('#done').hidden""",
            arg=before,
        )

    def saved(self) -> None:
        """Wait until the server has all answers."""
        self.page.wait_for_function(
            "() => !Object.keys(localStorage).some(name => name.startsWith('study:') && name.includes('/p/'))"
        )

    def done(self) -> None:
        self.page.wait_for_selector("#done:not([hidden])")
        self.page.wait_for_function("() => document.querySelector('#status').textContent === 'All answers are saved.'")


@pytest.fixture
def taking_part(study_folder, make_app, serving, open_page):
    """`taking_part(participants=1, ...)` gives the folder, and what opens a participant's page after consent."""

    def start(texts=None, **values):
        folder = study_folder(**values)
        app, tokens = make_app(folder, texts=texts)
        address = serving(app)

        def opened(number=0, expected="", **options) -> Tab:
            page = open_page(f"{address}/p/{tokens[number]}", expected, **options)
            page.click("main button")
            return Tab(page)

        return folder, opened

    return start


def stored(folder, table="answers"):
    connection = sqlite3.connect(folder / DATABASE)
    try:
        order = "trial, question" if table == "answers" else "id"
        return connection.execute(f"SELECT trial, question, choice, seconds FROM {table} ORDER BY {order}").fetchall()
    finally:
        connection.close()


def choices(folder):
    return [(trial, question, choice) for trial, question, choice, _ in stored(folder)]


KEYS = {"ArrowLeft": 0, "ArrowRight": 1, "t": None, "1": 0, "2": 1}


def session(taking_part, trials: int) -> None:
    """Answer everything by keys, and compare with what is stored."""
    folder, opened = taking_part(participants=1, trials=trials)
    tab = opened()
    expected = []
    for step in range(2 * trials):
        key = list(KEYS)[step % len(KEYS)]
        assert tab.ready() == step
        tab.hurry(key)
        expected.append((step // 2, ("overall", "regional")[step % 2], KEYS[key]))
    tab.done()
    assert choices(folder) == expected
    assert all(0.3 <= seconds < 60 for *_, seconds in stored(folder))
    assert len(stored(folder, "events")) == 2 * trials


def test_a_whole_session_by_keys(taking_part):
    session(taking_part, 12)


@pytest.mark.slow
def test_a_whole_session_of_a_hundred_pairs(taking_part):
    session(taking_part, 100)


def test_what_is_shown_is_the_design_from_left_to_right_with_zooms_where_asked(taking_part):
    folder, opened = taking_part(trials=2)
    design = load_design(folder)
    item, shown = design.items[0], design.participants[0][0].shown
    tab = opened()
    tab.ready()
    seen = "[...document.querySelectorAll('{} img')].map(image => image.src.split('/').at(-1))"
    assert tab.page.evaluate(seen.format(".frame")) == [item.pictures[method] for method in shown]
    assert tab.page.evaluate(seen.format(".zooms")) == []
    assert tab.page.text_content("#prompt") == item.prompt
    tab.press("t")
    tab.ready()
    assert tab.page.evaluate(seen.format(".zooms")) == [name for method in shown for name in item.zooms[method]]
    assert not any(method in tab.page.content() for method in METHODS)


def test_back_changes_an_answer_keeps_the_history_and_leaves_the_same_answer_alone(taking_part):
    folder, opened = taking_part(trials=3)
    tab = opened()
    for key in ("1", "2", "t"):
        tab.press(key)
    tab.press("Backspace")
    tab.press("b")
    assert tab.ready() == 1
    assert tab.page.locator("#choices [aria-pressed=true]").text_content().startswith("B is better")
    tab.press("1")
    tab.press("t")  # as before: nothing new
    assert tab.ready() == 3
    tab.saved()
    assert choices(folder) == [(0, "overall", 0), (0, "regional", 0), (1, "overall", None)]
    assert [row[2] for row in stored(folder, "events")] == [0, 1, None, 0]


def test_reloading_and_coming_back_in_a_new_browser_go_on_where_it_was(taking_part):
    folder, opened = taking_part(trials=3)
    tab = opened()
    tab.press("1")
    tab.press("1")
    tab.press("1")
    tab.saved()
    tab.page.reload()
    assert tab.ready() == 3
    other = Tab(tab.page.context.browser.new_context().new_page())
    other.page.goto(tab.page.url)
    assert other.ready() == 3
    other.page.context.close()
    assert len(stored(folder)) == 3


def test_without_a_network_answers_wait_on_the_device_and_come_in_order_once(taking_part):
    folder, opened = taking_part(trials=4)
    tab = opened(expected="ERR_INTERNET_DISCONNECTED")
    tab.press("1")
    tab.saved()
    tab.page.wait_for_timeout(300)  # pictures of the next groups come
    tab.page.context.set_offline(True)
    for key in ("2", "t", "1", "b", "2"):
        tab.press(key)
    tab.page.wait_for_function("() => document.querySelector('#status').textContent.includes('network: 4')")
    assert len(stored(folder)) == 1
    tab.page.context.set_offline(False)
    tab.saved()
    assert choices(folder) == [(0, "overall", 0), (0, "regional", 1), (1, "overall", None), (1, "regional", 1)]
    assert [row[2] for row in stored(folder, "events")] == [0, 1, None, 0, 1]


def test_a_browser_closed_without_a_network_sends_its_answers_when_it_comes_back(taking_part):
    folder, opened = taking_part(trials=3)
    tab = opened(expected="Failed to load resource")
    tab.ready()
    tab.page.route("**/api/answers", lambda route: route.abort())
    tab.press("2")
    tab.press("t")
    context, url = tab.page.context, tab.page.url
    tab.page.close()
    assert stored(folder) == []
    again = Tab(context.new_page())
    again.page.goto(url)
    assert again.ready() == 2
    again.saved()
    assert choices(folder) == [(0, "overall", 1), (0, "regional", None)]


def test_a_reply_that_is_lost_makes_no_second_answer(taking_part):
    folder, opened = taking_part(trials=2)
    tab = opened(expected="Failed to load resource")
    tab.ready()
    lost = []

    def lose(route):
        route.fetch()
        lost.append(route)
        route.abort()

    tab.page.route("**/api/answers", lose, times=1)
    tab.press("2")
    tab.saved()
    assert len(lost) == 1
    assert [len(stored(folder, table)) for table in ("answers", "events")] == [1, 1]


def test_an_answer_that_the_server_refuses_is_told_and_the_next_ones_are_sent(taking_part):
    folder, opened = taking_part(trials=2)
    tab = opened(expected="422")
    tab.ready()
    tab.page.route("**/api/answers", lambda route: route.fulfill(status=422, json={"message": "no"}), times=1)
    tab.press("2")
    tab.press("1")
    tab.saved()
    assert "refused" in tab.page.text_content("#problem")
    assert choices(folder) == [(0, "regional", 0)]
    assert tab.page.evaluate("Object.keys(localStorage).filter(name => name.startsWith('refused:')).length") == 1


def test_two_tabs_of_one_participant_double_nothing(taking_part):
    folder, opened = taking_part(trials=3)
    one = opened()
    one.ready()
    two = Tab(one.page.context.new_page())
    two.page.goto(one.page.url)
    assert two.ready() == 0
    one.press("1")
    two.page.wait_for_function("() => document.querySelector('#question').textContent.startsWith('In which')")
    assert two.ready() == 1  # it moved on by itself
    two.press("2")
    for tab in (one, two):
        assert tab.ready() == 2
        tab.saved()
    assert choices(folder) == [(0, "overall", 0), (0, "regional", 1)]
    assert len(stored(folder, "events")) == 2


def test_a_key_held_down_and_a_second_click_are_one_answer(taking_part):
    folder, opened = taking_part(trials=3)
    tab = opened()
    tab.ready()
    tab.page.dblclick("#choices button >> nth=0")
    assert tab.ready() == 1
    tab.page.keyboard.down("2")
    for _ in range(5):
        tab.page.wait_for_timeout(100)
        tab.page.keyboard.down("2")
    tab.page.keyboard.up("2")
    assert tab.ready() == 2
    tab.page.uncheck("#shortcuts")
    tab.page.keyboard.press("2")
    tab.saved()
    assert len(stored(folder, "events")) == 2


def shown_part(tab) -> list[str]:
    return tab.page.evaluate("[...document.querySelectorAll('.frame img')].map(image => image.style.transform)")


def test_both_pictures_zoom_and_move_together_by_keys_mouse_and_wheel(taking_part):
    _, opened = taking_part(trials=2)
    tab = opened()
    tab.ready()
    whole = shown_part(tab)
    states = [whole]
    box = tab.page.locator(".frame").first.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.page.keyboard.press("z")
    states.append(shown_part(tab))
    tab.page.keyboard.press("Shift+ArrowRight")
    states.append(shown_part(tab))
    tab.page.mouse.move(*middle)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 60, middle[1] + 30, steps=4)
    tab.page.mouse.up()
    states.append(shown_part(tab))
    tab.page.mouse.wheel(0, -200)
    tab.page.wait_for_function("old => document.querySelector('.frame img').style.transform !== old", arg=states[-1][0])
    states.append(shown_part(tab))
    for state in states:
        assert len(state) == 2
        assert state[0] == state[1]
    assert len({state[0] for state in states}) == len(states)
    tab.page.keyboard.press("z")
    assert shown_part(tab) == whole
    tab.page.click(".frame >> nth=1", position={"x": 5, "y": 5})
    assert all("scale(2.5)" in state for state in shown_part(tab))
    tab.press("t")
    tab.press("t")
    tab.ready()
    assert shown_part(tab) == whole  # the next group starts whole


def test_two_fingers_zoom_and_one_moves_on_a_phone(taking_part):
    folder, opened = taking_part(trials=2)
    tab = opened(**PHONE)
    tab.ready()
    client = tab.page.context.new_cdp_session(tab.page)
    box = tab.page.locator(".frame").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind, *points):
        touches = [{"x": px, "y": py, "id": i} for i, (px, py) in enumerate(points)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (x - 20, y), (x + 20, y))
    for spread in (30, 45, 60):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    tab.page.wait_for_selector(".pictures.zoomed")
    pinched = shown_part(tab)
    touch("touchStart", (x, y))
    for moved in (10, 30, 50):
        touch("touchMove", (x - moved, y))
    touch("touchEnd")
    tab.page.wait_for_function("old => document.querySelector('.frame img').style.transform !== old", arg=pinched[0])
    moved = shown_part(tab)
    assert pinched[0] == pinched[1]
    assert moved[0] == moved[1]
    tab.page.tap("#choices button >> nth=1")
    tab.page.wait_for_selector("#question:has-text('In which')")
    tab.saved()
    assert choices(folder) == [(0, "overall", None)]


def test_pictures_of_the_next_group_are_there_before_it_is_shown_and_nothing_comes_from_elsewhere(taking_part):
    folder, opened = taking_part(trials=4)
    tab = opened()
    tab.ready()
    name = load_design(folder).items[1].pictures[METHODS[0]]
    loaded = "performance.getEntriesByType('resource').map(entry => entry.name)"
    tab.page.wait_for_function(f"name => {loaded}.some(each => each.endsWith(name))", arg=name)
    tab.press("t")
    tab.press("t")
    tab.ready()
    addresses = tab.page.evaluate(loaded)
    assert sum(address.endswith(name) for address in addresses) == 1
    origin = tab.page.evaluate("location.origin")
    assert all(address.startswith(origin) for address in addresses)


def test_a_picture_that_fails_is_asked_for_again_and_no_answer_is_taken_before(taking_part):
    folder, opened = taking_part(trials=2)
    name = load_design(folder).items[1].pictures[METHODS[1]]
    tab = opened(expected="ERR_FAILED")
    tab.page.route(f"**/{name}", lambda route: route.abort())
    tab.page.reload()
    tab.press("t")
    tab.ready()
    tab.page.keyboard.press("t")
    tab.page.wait_for_selector("#problem:has-text('tries again')")
    tab.page.keyboard.press("1")
    tab.page.unroute(f"**/{name}")
    assert tab.ready() == 2
    assert tab.page.text_content("#problem") == ""
    tab.saved()
    assert len(stored(folder)) == 2


TURNED = {"viewport": {"width": 740, "height": 360}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1280, "height": 800}}
ENLARGED_DARK = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2, "color_scheme": "dark"}


@pytest.mark.parametrize(
    ("options", "shown"),
    [(PHONE, 2), (PHONE, 4), (TURNED, 2), (DESK, 2), (ENLARGED_DARK, 3)],
    ids=["phone", "phone-4", "phone-turned", "desk", "zoom-200-dark-3"],
)
def test_all_fits_and_axe_finds_nothing_to_object_to(taking_part, options, shown):
    _, opened = taking_part(trials=1, shown=shown)
    page = opened(**options).page
    tab = Tab(page)
    for _ in range(2):
        tab.ready()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        bar = page.locator("#choices").bounding_box()
        assert bar["y"] + bar["height"] <= options["viewport"]["height"]  # answers are always in reach
        audit(page)
        page.click("#choices button >> nth=1")
    tab.done()
    audit(page)


def test_axe_finds_nothing_on_the_other_pages_and_would_find_something(study_folder, make_app, serving, open_page):
    app, tokens = make_app(study_folder(trials=1), open_link=True)
    address = serving(app)
    for path in ("/", f"/p/{tokens[0]}", "/admin/admin-token-of-the-tests"):
        page = open_page(address + path, expected="403")  # the open link asks whether it knows this browser
        audit(page)
    page.evaluate("document.documentElement.removeAttribute('lang')")
    with pytest.raises(AssertionError, match="html-has-lang"):
        audit(page)


def audit(page) -> None:
    """All rules of axe-core, through the debugger: the page's own policy lets no such script in."""
    client = page.context.new_cdp_session(page)
    client.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found = page.evaluate("axe.run().then(result => result.violations.map(each => [each.id, each.nodes[0].html]))")
    assert found == []


def test_keyboard_alone_reaches_everything_in_order_and_sees_where_it_is(taking_part):
    folder, opened = taking_part(trials=1)
    tab = opened()
    tab.ready()
    tab.page.uncheck("#shortcuts")
    tab.page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(9):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate("document.activeElement.id || document.activeElement.dataset.choice"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert tab.page.evaluate(f"document.activeElement === document.body || {outline} !== 'none'")
    assert [name for name in reached if name] == ["0", "null", "1", "zoom", "smaller", "larger", "shortcuts"][: len(reached)]
    for _ in range(2):
        tab.ready()
        tab.page.locator("#choices button").nth(2).focus()
        tab.page.keyboard.press("Enter")
    tab.done()
    assert choices(folder) == [(0, "overall", 1), (0, "regional", 1)]


def test_prompts_and_texts_are_shown_as_they_are(taking_part):
    from fairhuman.study.texts import load_texts

    evil = "<img src=x onerror=alert(1)>"
    texts = {**load_texts(), "language": "de", "tie": f"Kein Unterschied {evil}", "choose": "{letter} ist besser"}
    _, opened = taking_part(texts, trials=1, prompt=evil + "{}", questions=[{"name": "overall", "text": evil}])
    tab = opened()
    tab.page.wait_for_selector("#choices button[aria-disabled=false]")
    assert tab.page.text_content("#prompt") == evil + "0"
    assert tab.page.text_content("#question") == evil
    assert [text.strip() for text in tab.page.locator("#choices span").all_text_contents()] == [
        "A ist besser",
        f"Kein Unterschied {evil}",
        "B ist besser",
    ]
    assert tab.page.get_attribute("html", "lang") == "de"


def test_the_open_link_leads_to_one_place_however_often_it_is_opened(study_folder, make_app, serving, open_page):
    folder = study_folder(participants=1, trials=1)
    app, _ = make_app(folder, invited=False, open_link=True)
    address = serving(app)
    page = open_page(address, expected="404")
    page.dblclick("#join")
    tab = Tab(page)
    tab.ready()
    again = Tab(page.context.new_page())
    again.page.goto(address)
    assert again.ready() == 0
    assert again.page.url == page.url
    other = open_page(address, expected="409")
    other.click("#join")
    other.wait_for_selector("#problem:has-text('has all its participants')")


def test_a_browser_that_keeps_nothing_says_so_until_all_is_saved(taking_part):
    folder, opened = taking_part(trials=2)
    tab = opened(expected="Failed to load resource")
    tab.page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('closed'); } });")
    tab.page.reload()
    tab.ready()
    tab.page.route("**/api/answers", lambda route: route.abort(), times=1)
    tab.press("1")
    tab.page.wait_for_selector("#problem:has-text('keeps nothing')")
    tab.page.wait_for_function("() => document.querySelector('#problem').textContent === ''")
    assert choices(folder) == [(0, "overall", 0)]
