"""Every page fits onto a phone without hiding anything, and can be read in light and dark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairhuman.report.html import render
from helpers.every_page import every_page
from helpers.places import ROOT

AXE = (ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
# Text that lies outside the window, or that its own box cuts off; pictures of class `wide` say that they are scrolled.
HIDDEN = """
[...document.querySelectorAll("body *")].filter((one) => {
  const style = getComputedStyle(one);
  const outside = one.getBoundingClientRect().right > innerWidth + 1;
  const cut = one.scrollWidth > one.clientWidth + 1 && style.overflowX !== "visible";
  return (outside || cut) && one.checkVisibility() && !one.closest(".wide, svg") && style.position !== "absolute";
}).map((one) => one.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_page(tmp_path_factory.mktemp("pages"))


def test_pages_fit_onto_a_phone_and_can_be_read(pages: dict[str, Path], open_page: Callable[..., Any]) -> None:
    page = open_page("about:blank", viewport={"width": 390, "height": 800})
    client = page.context.new_cdp_session(page)  # a page's own policy lets no such script in
    found: dict[str, Any] = {}
    for name, path in pages.items():
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        client.send("Runtime.evaluate", {"expression": AXE})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            objections = page.evaluate(
                "axe.run().then((all) => all.violations.flatMap((one) => one.nodes.map((node) => [one.id, node.html])))"
            )
            found |= {f"{name}, {scheme}": objections} if objections else {}
        hidden = page.evaluate(HIDDEN)
        found |= {f"{name}, 390 px": hidden} if hidden else {}
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found[f"{name}, page"] = "is wider than the window"
    assert found == {}


def test_print_shows_what_is_folded_and_a_cell_of_several_columns_has_no_head_of_one(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    folded = "<details><summary>more</summary><p>folded</p></details>"
    row = '<tr><td>world</td><td colspan="2">left out</td></tr>'
    table = f"""<table class="cards" style="--c2: 'face'"><tbody>{row}</tbody></table>"""
    (tmp_path / "page.html").write_text(render("page.html", title="a").replace("<main>", f"<main>{folded}{table}"))
    page = open_page((tmp_path / "page.html").as_uri(), viewport={"width": 390, "height": 800})
    shown = "document.querySelector('p').checkVisibility()"
    assert page.evaluate("getComputedStyle(document.querySelector('[colspan]'), '::before').content") == "none"
    assert not page.evaluate(shown)
    page.emulate_media(media="print")
    assert page.evaluate(shown)


@pytest.mark.parametrize("name", ["training", "refinement", "grid"])
def test_an_enlarged_picture_closes_with_esc_and_with_a_click(
    name: str, pages: dict[str, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page(pages[name].as_uri(), viewport={"width": 390, "height": 800})
    button, enlarged = page.locator(".zoom button").first, page.locator(":popover-open")
    box = button.bounding_box()
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.mouse.click(200, 400)):
        button.click()
        shown = enlarged.bounding_box()
        assert enlarged.count() == 1
        assert shown["x"] == 0 == round(shown["width"] - 390)
        close()
        assert enlarged.count() == 0
        assert button.evaluate("(one) => one === document.activeElement")
        assert button.bounding_box()["height"] == box["height"]


@pytest.mark.parametrize("name", ["training", "evaluation", "refinement", "study", "data show"])
def test_a_menu_shows_what_it_leads_to(name: str, pages: dict[str, Path], open_page: Callable[..., Any]) -> None:
    page = open_page(pages[name].as_uri())
    for link in page.locator("nav a").all():
        link.click()
        assert page.locator(link.get_attribute("href")).is_visible()
