"""Comparing and starting runs in a real browser."""

import pytest

from fairhuman.studio.app import create_studio_app
from fairhuman.studio.settings import StudioSettings
from helpers.run_folder import make_run
from helpers.study_tab import audit
from helpers.tiny_pictures import encoded, picture

TRANSFORMS = "[...document.querySelectorAll('.compared img')].map(image => image.style.transform)"


@pytest.mark.slow
def test_runs_are_compared_with_one_zoom_stars_stay_and_modes_change(serving, open_page, tmp_path):
    for name in ("ls", "mpd"):
        make_run(tmp_path / name)
    app = create_studio_app([tmp_path], StudioSettings())
    address = f"{serving(app)}{app.state.root}/compare"
    page = open_page(address, viewport={"width": 1280, "height": 800})
    audit(page)
    for box in page.locator("input[name=name]").all():
        box.check()
    page.click("button.primary")
    page.wait_for_selector(".compared img")
    audit(page)
    touch = "getComputedStyle(document.querySelector('.frame')).touchAction"
    page.hover(".frame")
    page.mouse.wheel(0, 100)
    page.wait_for_function("() => scrollY > 0")  # the page, as a finger does
    assert (page.evaluate(touch), page.evaluate(TRANSFORMS)[0].split()[-1]) == ("pan-y", "scale(1)")
    page.keyboard.press("+")
    assert page.evaluate(touch) == "none"
    page.keyboard.press("Shift+ArrowRight")
    transforms = page.evaluate(TRANSFORMS)
    assert len(set(transforms)) == 1
    assert "scale(1.4)" in transforms[0]
    page.keyboard.press("s")
    page.wait_for_function("() => document.querySelector('#saved').textContent === 'Saved.'")
    page.keyboard.press("3")
    page.locator("#share").fill("30")
    assert (
        page.locator(".compared").last.locator(".frame").evaluate("one => one.style.clipPath")
        == "inset(0px 0px 0px 30%)"
    )
    edges = "one => [one.getBoundingClientRect().x, one.getBoundingClientRect().width]"
    (x, width), (left, _) = (page.locator(one).last.evaluate(edges) for one in (".frame", ".split"))
    assert left + 1.5 == pytest.approx(x + 0.3 * width, abs=1)
    page.mouse.move(left + 1, page.locator(".split").bounding_box()["y"] + 40)
    page.mouse.down()
    page.mouse.move(x + 0.6 * width, 300)
    page.mouse.up()
    assert page.input_value("#share") == "60"
    assert page.evaluate(TRANSFORMS) == transforms, "the pictures stay where they are"
    page.keyboard.press("2")
    page.wait_for_function("() => document.querySelectorAll('.compared.away').length === 1")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#row').value === '2'")
    page.keyboard.press("<")
    page.wait_for_function("() => document.querySelector('#row').value === '1'")
    page.reload()
    page.wait_for_selector(".compared img")
    page.check("#stars")
    assert page.text_content("#of") == "of 1"
    assert "★" in page.text_content("#star")


class Ended:
    """A process that has ended."""

    def poll(self):
        return 0


@pytest.mark.slow
def test_the_form_of_a_new_run_shows_what_a_dry_run_says(serving, open_page, tmp_path, monkeypatch):
    make_run(tmp_path / "ls")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded(picture(8, 8, 1)))
    (tmp_path / "photos" / "metadata.jsonl").write_text('{"file_name": "a.png", "logo": [[1, 1, 4, 4]]}')
    asked = []

    def dry_run(words):
        asked.append(words[3:])
        return {"ready": len(asked) > 1, "findings": ["missing data: nowhere"], "command": " ".join(words)}

    monkeypatch.setattr("fairhuman.studio.start_pages.dry_run", dry_run)
    monkeypatch.setattr("fairhuman.studio.starts.start", lambda words, _: asked.append(words) or Ended())
    app = create_studio_app([tmp_path], StudioSettings())
    page = open_page(f"{serving(app)}{app.state.root}/start", viewport={"width": 390, "height": 800})
    page.wait_for_selector("#findings li.missing")
    assert page.is_disabled("#start")
    assert page.get_attribute("#set-learning_rate", "placeholder") == "0.003"
    page.select_option("#recipe", "recipes/photos-small.yaml")
    assert page.get_attribute("#set-learning_rate", "placeholder") == "0.0003"
    page.fill("#set-steps", "7")
    page.wait_for_function("() => !document.querySelector('#start').disabled")
    assert "steps=7" in asked[-1]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.check("#set-regions\\.names ~ .ticks input[value=logo]")
    assert page.input_value("#set-regions\\.names") == "face, hand, logo"
    page.fill("#set-regions\\.names", "[logo]")
    assert page.locator(".ticks input:checked").first.get_attribute("value") == "logo"
    page.select_option("#set-strategy", "nash")
    page.click("summary")
    page.fill("#search", "lora.rank")
    audit(page)
    page.click("#start")
    page.wait_for_function("() => document.querySelector('#state').textContent.startsWith('Started')")
    assert asked[-1][:2] == ["fairhuman", "train"]
