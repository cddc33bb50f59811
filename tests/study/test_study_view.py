"""How the participant's page looks and is used: zoom, phone, keyboard, accessibility, other words."""

import pytest

from fairhuman.study.texts import load_texts
from helpers.study_tab import DESK, PHONE, Tab, audit, choices


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


@pytest.mark.slow
def test_two_fingers_zoom_and_one_moves_on_a_phone(taking_part):
    folder, opened = taking_part(trials=2)
    tab = opened(**PHONE)
    tab.ready()
    client = tab.page.context.new_cdp_session(tab.page)
    box = tab.page.locator(".frame").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind, *points):
        if kind == "touchEnd":
            tab.page.wait_for_timeout(
                300
            )  # a finger that leaves while it moves flings, and the next tap only stops that
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
    tab.page.wait_for_selector("#question:has-text('Which picture has')")
    tab.saved()
    assert choices(folder) == [(0, "overall", None)]


TURNED = {"viewport": {"width": 740, "height": 360}, "has_touch": True, "is_mobile": True}
ENLARGED_DARK = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2, "color_scheme": "dark"}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        pytest.param(PHONE, 2, id="phone"),
        pytest.param(PHONE, 4, id="phone-4", marks=pytest.mark.slow),
        pytest.param(TURNED, 2, id="phone-turned", marks=pytest.mark.slow),
        pytest.param(DESK, 2, id="desk", marks=pytest.mark.slow),
        pytest.param(ENLARGED_DARK, 3, id="zoom-200-dark-3", marks=pytest.mark.slow),
    ],
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


def test_every_choice_says_its_key(taking_part):
    page = taking_part(trials=1, shown=5)[1]().page
    Tab(page).ready()
    assert page.locator("#choices kbd").all_text_contents() == ["1", "2", "3", "4", "5", "T"]


@pytest.mark.slow
def test_a_phone_shows_no_keys_and_the_start_keeps_off_its_edges(study_folder, make_app, serving, open_page):
    app, tokens = make_app(study_folder(trials=1))
    page = open_page(f"{serving(app)}/p/{tokens[0]}", **PHONE)
    card = page.locator("main.sheet").bounding_box()
    assert card["x"] >= 8
    assert card["x"] + card["width"] <= PHONE["viewport"]["width"] - 8
    page.click("main button")
    Tab(page).ready()
    assert page.locator("kbd").count() > 0
    assert not any(key.is_visible() for key in page.locator("kbd, .hint, #shortcuts").all())


REGIONAL = [{"name": "regional", "text": "Which picture has better faces and hands?", "zoom": True}]
LOW_PHONE = {"viewport": {"width": 390, "height": 560}, "has_touch": True, "is_mobile": True}


def test_on_a_phone_answers_wait_until_all_pictures_were_in_view(taking_part):
    folder, opened = taking_part(trials=2, size=(64, 96), questions=REGIONAL)
    tab = opened(**LOW_PHONE)
    tab.shown()
    tab.page.wait_for_timeout(320)
    buttons = tab.page.locator("#choices button")
    assert buttons.evaluate_all("all => all.map(each => each.ariaDisabled)") == ["true"] * 3
    assert "all pictures" in tab.page.text_content("#unseen")
    audit(tab.page)
    for _ in range(6):  # two pictures with two close-ups each
        if tab.locked():
            tab.page.keyboard.press("1")  # no answer: it shows what wasn't in view
            tab.page.wait_for_timeout(100)
    assert buttons.evaluate_all("all => all.map(each => each.ariaDisabled)") == ["false"] * 3
    assert not tab.locked()
    assert tab.page.evaluate("scrollY") > 0
    tab.saved()
    assert choices(folder) == []
    tab.page.tap("#choices button >> nth=2")
    tab.page.wait_for_function("() => document.querySelector('#counts').textContent.startsWith('2')")
    tab.shown()
    assert tab.locked()  # each pair anew
    tab.saved()
    assert choices(folder) == [(0, "regional", 1)]


@pytest.mark.slow
def test_where_all_fits_answers_are_taken_at_once(taking_part):
    _, opened = taking_part(trials=1, size=(64, 96), questions=REGIONAL)
    tab = opened(**DESK)
    tab.shown()
    assert not tab.locked()
    assert tab.page.evaluate("scrollY") == 0
    for part in tab.page.locator(".frame, .zooms img").all():
        box = part.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= tab.page.locator("#answering").bounding_box()["y"]


@pytest.mark.slow
def test_axe_finds_nothing_on_the_other_pages_and_would_find_something(study_folder, make_app, serving, open_page):
    app, tokens = make_app(study_folder(trials=1), open_link=True)
    address = serving(app)
    for path in ("/", f"/p/{tokens[0]}", "/admin/admin-token-of-the-tests"):
        page = open_page(address + path, expected="403")  # the open link asks whether it knows this browser
        audit(page)
    page.evaluate("document.documentElement.removeAttribute('lang')")
    with pytest.raises(AssertionError, match="html-has-lang"):
        audit(page)


@pytest.mark.slow
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
    assert [name for name in reached if name] == ["0", "null", "1", "zoom", "smaller", "larger", "shortcuts"][
        : len(reached)
    ]
    for _ in range(2):
        tab.ready()
        tab.page.locator("#choices button").nth(2).focus()
        tab.page.keyboard.press("Enter")
    tab.done()
    assert choices(folder) == [(0, "overall", 1), (0, "regional", 1)]


def test_prompts_and_texts_are_shown_as_they_are(taking_part):
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
