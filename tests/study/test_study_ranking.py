"""Ranking pictures in a real browser: with the keyboard, by touch, and with an axe at hand."""

import sqlite3

import pytest

from fairhuman.study.study import DATABASE
from helpers.study_tab import DESK, PHONE, Tab, audit


def ranks_in(folder):
    connection = sqlite3.connect(folder / DATABASE)
    try:
        query = "SELECT trial, question, choice, ranks FROM answers ORDER BY trial, question"
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def order(page):
    return page.text_content("#order")


def test_digits_rank_one_picture_after_the_other(taking_part):
    folder, opened = taking_part(trials=2, shown=4, ranks=True)
    tab = opened()
    page = tab.page
    tab.ready()
    assert page.get_attribute("#next", "aria-disabled") == "true"
    for key, shown in (("3", "A"), ("1", "B > A"), ("1", "B = C > A"), ("9", "B = C > A"), ("4", "B = C > A > D")):
        page.keyboard.press(key)
        assert order(page) == shown
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("2")  # C, after all
    assert order(page) == "B > C > A > D"
    tab.press("Enter")
    tab.press("t")  # all are equal
    tab.saved()
    assert ranks_in(folder) == [(0, "overall", 1, "3|1|2|4"), (0, "regional", None, "1|1|1|1")]


def test_an_answer_is_shown_again_and_can_be_changed(taking_part):
    folder, opened = taking_part(trials=1, shown=3, ranks=True)
    tab = opened()
    tab.ready()
    for key in ("1", "2", "3"):
        tab.page.keyboard.press(key)
    tab.press("Enter")
    tab.ready()
    tab.page.keyboard.press("b")
    tab.page.wait_for_function("() => document.querySelector('#order').textContent === 'A > B > C'")
    tab.ready()
    tab.page.click(".ranks >> nth=2 >> button >> nth=0")
    assert order(tab.page) == "A = C > B"
    tab.press("Enter")
    tab.page.reload()
    tab.saved()
    assert ranks_in(folder) == [(0, "overall", None, "1|2|1")]


@pytest.mark.parametrize(
    ("options", "shown"), [(PHONE, 4), (PHONE, 7), (DESK, 7)], ids=["phone-4", "phone-7", "desk-7"]
)
def test_ranks_are_within_reach_and_axe_finds_nothing_to_object_to(taking_part, options, shown):
    folder, opened = taking_part(trials=1, shown=shown, ranks=True, zooms=1)
    page = opened(**options).page
    tab = Tab(page)
    tab.ready()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for button in page.locator(".ranks button").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 24
    audit(page)
    press = page.tap if options is PHONE else page.click
    page.locator("#next").dispatch_event("click")  # says what is missing
    assert "every picture" in page.text_content("#unseen")
    for place in range(shown):
        press(f".ranks >> nth={place} >> button >> nth={place // 2}")
    assert order(page).startswith("A = B > C = D")
    before = tab.words()
    press("#next")
    page.wait_for_function("([question]) => document.querySelector('#question').textContent !== question", arg=before)
    tab.saved()
    expected = "|".join(str(1 + place // 2) for place in range(shown))
    assert ranks_in(folder) == [(0, "overall", None, expected)]
