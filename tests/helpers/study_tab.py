"""A participant's page in a real browser, and what came of it."""

import sqlite3

from fairhuman.study.study import DATABASE
from helpers.places import ROOT

AXE = ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1280, "height": 800}}


class Tab:
    """A participant's page; each method waits until the page has done it."""

    def __init__(self, page) -> None:
        self.page = page

    def ready(self) -> int:
        """Look at all pictures until an answer is taken; the step that is shown, trial * questions + question."""
        self.shown()
        if self.locked():
            for part in self.page.locator(".frame, .zooms img").all():
                part.evaluate("part => part.scrollIntoView({ block: 'start' })")
                self.page.wait_for_timeout(50)
        self.page.wait_for_selector("#choices button[aria-disabled=false]")
        self.page.wait_for_timeout(320)  # a person takes longer; what is faster is taken for a slip
        return self.step()

    def shown(self) -> None:
        """Wait until the pictures are there."""
        self.page.wait_for_selector("#choices button[aria-disabled=false], #unseen:not(:empty)")

    def locked(self) -> bool:
        """Whether answers wait until all pictures were in view."""
        return self.page.text_content("#unseen") != ""

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


def stored(folder, table="answers"):
    connection = sqlite3.connect(folder / DATABASE)
    try:
        order = "trial, question" if table == "answers" else "id"
        return connection.execute(f"SELECT trial, question, choice, seconds FROM {table} ORDER BY {order}").fetchall()
    finally:
        connection.close()


def choices(folder):
    return [(trial, question, choice) for trial, question, choice, _ in stored(folder)]


def audit(page) -> None:
    """All rules of axe-core, through the debugger: the page's own policy lets no such script in."""
    client = page.context.new_cdp_session(page)
    client.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found = page.evaluate("axe.run().then(result => result.violations.map(each => [each.id, each.nodes[0].html]))")
    assert found == [], found
