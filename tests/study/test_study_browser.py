"""The participant's page in a real browser: a whole session, back, reload, no network, two tabs."""

import pytest

from fairhuman.study.study import load_design
from helpers.small_study import ADMIN, METHODS
from helpers.study_tab import Tab, choices, stored

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


@pytest.mark.slow
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


@pytest.mark.slow
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
    tab.page.wait_for_function("() => document.querySelector('#status').textContent.includes('to be sent: 4')")
    assert len(stored(folder)) == 1
    tab.page.context.set_offline(False)
    tab.saved()
    assert choices(folder) == [(0, "overall", 0), (0, "regional", 1), (1, "overall", None), (1, "regional", 1)]
    assert [row[2] for row in stored(folder, "events")] == [0, 1, None, 0, 1]


def leave_without_a_network(taking_part, trials):
    """Answer a trial that can't be sent and close the page; the folder and where to come back."""
    folder, opened = taking_part(trials=trials)
    tab = opened(expected="Failed to load resource")
    tab.ready()
    tab.page.route("**/api/answers", lambda route: route.abort())
    tab.press("2")
    tab.press("t")
    context, url = tab.page.context, tab.page.url
    tab.page.close()
    assert stored(folder) == []
    return folder, Tab(context.new_page()), url


@pytest.mark.slow
def test_a_browser_closed_without_a_network_sends_its_answers_when_it_comes_back(taking_part):
    folder, again, url = leave_without_a_network(taking_part, trials=3)
    again.page.goto(url)
    assert again.ready() == 2
    again.saved()
    assert choices(folder) == [(0, "overall", 1), (0, "regional", None)]


@pytest.mark.slow
def test_answers_that_are_sent_while_the_page_loads_are_not_asked_again(taking_part):
    folder, again, url = leave_without_a_network(taking_part, trials=3)

    def load(route):
        response = route.fetch()
        again.saved()
        route.fulfill(response=response, json=response.json() | {"answers": []})  # as if it had been asked before

    again.page.route("**/api/trials", load)
    again.page.goto(url)
    assert again.ready() == 2
    assert choices(folder) == [(0, "overall", 1), (0, "regional", None)]


@pytest.mark.slow
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


def refused_once(taking_part, status: int):
    """A tab whose first of two answers the server refused; and the study's folder."""
    folder, opened = taking_part(trials=2)
    tab = opened(expected=str(status))
    tab.ready()
    tab.page.route("**/api/answers", lambda route: route.fulfill(status=status, json={"message": "no"}), times=1)
    tab.press("2")
    tab.press("1")
    tab.saved()
    return folder, tab


@pytest.mark.slow
def test_an_answer_that_the_server_refuses_is_told_and_the_next_ones_are_sent(taking_part):
    folder, tab = refused_once(taking_part, 422)
    assert "could not be saved" in tab.page.text_content("#problem")
    assert choices(folder) == [(0, "regional", 0)]
    assert tab.page.evaluate("Object.keys(localStorage).filter(name => name.startsWith('refused:')).length") == 1


@pytest.mark.slow
def test_a_change_beyond_the_limit_is_told_kindly_and_with_the_limit(taking_part):
    folder, tab = refused_once(taking_part, 409)
    said = tab.page.text_content("#problem")
    assert (
        said == "An answer can be changed 20 times. This was one more, so your choice before it stays. You can go on."
    )
    assert choices(folder) == [(0, "regional", 0)]


@pytest.mark.slow
def test_two_tabs_of_one_participant_double_nothing(taking_part):
    folder, opened = taking_part(trials=3)
    one = opened()
    one.ready()
    two = Tab(one.page.context.new_page())
    two.page.goto(one.page.url)
    assert two.ready() == 0
    one.press("1")
    two.page.wait_for_function("() => document.querySelector('#question').textContent.startsWith('Which picture has')")
    assert two.ready() == 1  # it moved on by itself
    two.press("2")
    for tab in (one, two):
        assert tab.ready() == 2
        tab.saved()
    assert choices(folder) == [(0, "overall", 0), (0, "regional", 1)]
    assert len(stored(folder, "events")) == 2


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_picture_that_fails_is_asked_for_again_and_no_answer_is_taken_before(taking_part):
    folder, opened = taking_part(trials=2)
    name = load_design(folder).items[1].pictures[METHODS[1]]
    tab = opened(expected="ERR_FAILED")
    tab.page.route(f"**/{name}", lambda route: route.abort())
    tab.page.reload()
    tab.press("t")
    tab.ready()
    tab.page.keyboard.press("t")
    tab.page.wait_for_selector("#problem:has-text('Trying again automatically')")
    tab.page.keyboard.press("1")
    tab.page.unroute(f"**/{name}")
    assert tab.ready() == 2
    assert tab.page.text_content("#problem") == ""
    tab.saved()
    assert len(stored(folder)) == 2


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
    other.wait_for_selector("#problem:has-text('already has enough participants')")


def test_who_lost_a_place_is_told_and_joins_again_without_the_answers_to_other_pictures(
    study_folder, make_app, serving, open_page
):
    folder = study_folder(participants=6, trials=2)
    app, _ = make_app(folder, invited=False, open_link=True)
    address = serving(app)
    page = open_page(address, expected="404")
    page.click("#join")
    tab = Tab(page)
    tab.ready()
    first = page.url
    page.request.post(f"{address}/admin/{ADMIN}/places/0/free", headers={"origin": address})
    other = open_page(address)
    other.click("#join")
    Tab(other).ready()
    page.keyboard.press("1")
    page.wait_for_selector("#problem:has-text('This link has ended')")
    assert page.is_hidden("#comparing")
    waiting = f"study:{first.removeprefix(address)}:1-again"  # of another tab, without a network
    answer = {"key": "k" * 20, "trial": 0, "question": "overall", "choice": 0, "seconds": 2.0}
    page.evaluate("([name, answer]) => localStorage.setItem(name, JSON.stringify(answer))", [waiting, answer])
    page.goto(address)
    page.click("#join")
    assert tab.ready() == 0
    assert page.url != first
    again = Tab(page.context.new_page())
    again.page.goto(address)
    assert again.ready() == 0
    assert again.page.url == page.url
    names = page.evaluate("Object.keys(localStorage).filter(name => name.includes('/p/')).sort()")
    assert len(names) == 2
    assert all(name.startswith(f"refused:study:{first.removeprefix(address)}:") for name in names)
    assert stored(folder) == []


@pytest.mark.slow
def test_a_browser_that_keeps_nothing_says_so_until_all_is_saved(taking_part):
    folder, opened = taking_part(trials=2)
    tab = opened(expected="Failed to load resource")
    tab.page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('closed'); } });")
    tab.page.reload()
    tab.ready()
    tab.page.route("**/api/answers", lambda route: route.abort(), times=1)
    tab.press("1")
    tab.page.wait_for_selector("#problem:has-text('store answers')")
    tab.page.wait_for_function("() => document.querySelector('#problem').textContent === ''")
    assert choices(folder) == [(0, "overall", 0)]
