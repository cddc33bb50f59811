"""Reviews as a view of the studio: the same pages and decisions as those of `data review`."""

import base64
import json
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient

from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review import ReviewSettings, apply_review, create_review_app
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.edits import EditsWriter
from fairhuman.studio.app import create_studio_app
from fairhuman.studio.cells import png_of
from fairhuman.studio.settings import StudioSettings
from helpers.study_tab import audit
from helpers.tiny_pictures import encoded, picture

HERE = "http://127.0.0.1:8000"


def made(folder: Path, *, metadata: bool = True) -> Path:
    """Four pictures with captions `person 0`, ..."""
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.png").write_bytes(encoded(picture(64, 48, i)))
    rows = [{"file_name": f"{i}.png", "caption": f"person {i}", "faces": [[4, 5, 20, 25]]} for i in range(4)]
    if metadata:
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def captions(folder: Path) -> dict[str, str]:
    return {each.key: each.caption for each in read_source(folder, (), SourceSettings(), LoadReport())}


def decide(studio, root: str, key: str, prompt: str | None = None, action: str = "keep"):
    body = {"reviewer": "Ada", "key": key, "action": action, "prompt": prompt}
    body |= {"reason": "unclear"} if action == "drop" else {}
    return studio.client.post(f"{root}/api/decisions", json=body, headers={"origin": HERE})


def test_a_review_is_begun_gone_on_with_and_applied_in_the_studio(opened, tmp_path):
    folder = made(tmp_path / "val")
    studio = opened(tmp_path)
    assert "of-reviews" not in studio.get("").text  # a data set that nobody reviews is no review
    assert f"{studio.root}/reviews?name=val" in studio.get("/data", name="val").text
    inside = studio.get("/reviews", name="val").url.path
    start = studio.client.get(inside).text
    assert all(text in start for text in ("fairhuman studio", "New run", "0 of 4 pictures are done"))
    assert decide(studio, inside, "0.png", "another prompt").json()["done"] == 1
    with TestClient(create_review_app(folder, ReviewSettings()), base_url=HERE) as alone:  # by the command
        root = alone.app.state.root
        assert "1 of 4 pictures are done" in alone.get(root).text
        assert alone.post(f"{root}/api/decisions", headers={"origin": HERE}, json={
            "reviewer": "Bo", "key": "3.png", "action": "drop", "reason": "unclear"}).json()["done"] == 2  # fmt: skip
    again = opened(tmp_path)  # pages that are open go on
    assert '<span class="soft">begun</span>' in again.get("").text
    progress = again.client.get(f"{inside}/progress").text
    assert ("2 of 4" in progress, "No decision is applied yet." in progress) == (True, True)
    left_out = "Undecided: 2; left out until they are decided and the review is applied again."
    assert (left_out in progress, "keep 1 of the 4 pictures" in progress) == (True, True)
    assert "2 of 4 pictures are done" in again.client.get(root).text
    applied = again.client.post(f"{inside}/apply", headers={"origin": HERE})
    assert "All decisions are applied" in applied.text
    assert left_out in applied.text
    assert captions(folder) == {"0.png": "another prompt"}


def test_the_address_for_reviewers_opens_the_review_alone(opened, tmp_path):
    made(tmp_path / "val")
    studio = opened(tmp_path)
    inside = studio.get("/reviews", name="val").url.path
    root = "/r/" + inside.rpartition("/r/")[2]
    assert root in studio.client.get(inside).text
    token = studio.root.removeprefix("/s/")
    for path in ("", "/progress", "/review?name=Ada"):
        page = studio.client.get(f"{root}{path}")
        assert (page.status_code, token in page.text) == (200, False)
    refused = [
        f"/s/{'A' * 43}{root}",
        f"{studio.root}/r/{'A' * 43}",
        f"/r/{'A' * 43}",
        f"/r/{token}",
        f"{studio.root}/reviews?name=../val",
    ]
    assert {studio.client.get(path).status_code for path in refused} == {404}
    assert studio.client.post(f"{inside}/apply", headers={"origin": "http://evil.example"}).status_code == 403
    assert studio.client.post(f"{root}/apply", headers={"origin": HERE}).status_code == 404
    locked = opened(tmp_path, read_only=True)
    assert {locked.client.get(path).status_code for path in (inside, root)} == {403}
    assert "/reviews" not in locked.get("").text + locked.get("/data", name="val").text


def test_rules_of_a_review_are_settings_of_the_studio(opened, tmp_path):
    made(tmp_path / "val")
    studio = opened(tmp_path, review={"reviews_per_picture": 2})
    inside = studio.get("/reviews", name="val").url.path
    assert decide(studio, inside, "0.png").json()["done"] == 0


@pytest.mark.parametrize("metadata", [True, False])
def test_of_a_change_by_hand_and_a_decision_the_later_one_counts(opened, tmp_path, metadata):
    folder = made(tmp_path / "val", metadata=metadata)
    mask_hw = np.zeros((48, 64), dtype=bool)
    mask_hw[3:9, 4:20] = True
    mask = base64.b64encode(png_of(mask_hw)).decode()
    with EditsWriter(folder) as writer:
        writer.add("0.png", {"caption": "by hand", "at": "2020-02-02T02:02:02+00:00"})
        writer.add("0.png", {"region": "hand", "boxes": [[4, 3, 20, 9]], "mask": mask})
    studio = opened(folder)
    inside = studio.get("/reviews", name="val").url.path
    shown = studio.client.post(f"{inside}/api/work", json={"reviewer": "Ada"}, headers={"origin": HERE}).json()
    assert (shown["pictures"][0]["prompt"], shown["pictures"][0]["boxes"]["hand"]) == ("by hand", [[4, 3, 20, 9]])
    decide(studio, inside, "0.png", "of the reviewer")
    apply_review(folder)
    assert captions(folder) == {"0.png": "of the reviewer"}
    [record] = read_source(folder, ("hand",), SourceSettings(), LoadReport())
    assert np.array_equal(np.asarray(decode_mask(record.masks["hand"])) > 127, mask_hw)
    row = json.loads((folder / "reviewed.jsonl").read_text())
    (folder / "reviewed.jsonl").write_text(json.dumps({**row, "reviewed_at": "2020-01-01T00:00:00.000+00:00"}) + "\n")
    assert captions(folder) == {"0.png": "by hand"}


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("alone", [False, True])
def test_a_caption_corrected_while_a_review_is_open_is_decided_on_as_corrected(opened, tmp_path, metadata, alone):
    folder = made(tmp_path / "val", metadata=metadata)
    with ExitStack() as ended:
        if alone:
            client = ended.enter_context(TestClient(create_review_app(folder, ReviewSettings()), base_url=HERE))
            root = client.app.state.root
        else:
            studio = opened(folder)
            client, root = studio.client, studio.get("/reviews", name="val").url.path

        def ask(path: str, **body):
            answer = client.post(f"{root}/api/{path}", json={"reviewer": "Ada", **body}, headers={"origin": HERE})
            return answer.status_code, answer.json()

        shown = ask("work")[1]["pictures"][0]["prompt"]
        change = {"caption": "by hand", "at": "2020-02-02T02:02:02+00:00"}
        ended.enter_context(EditsWriter(folder)).add("0.png", change)
        for action in ({"action": "keep"}, {"action": "drop", "reason": "prompt"}):
            said = "The prompt was changed meanwhile, to “by hand”. Your decision was not saved."
            assert ask("decisions", key="0.png", shown=shown, **action) == (409, {"message": said})
        [first, _] = ask("work")[1]["pictures"]
        assert first["prompt"] == "by hand"
        assert ask("decisions", key="0.png", shown="by hand", action="keep")[0] == 200
        assert ask("undo")[0] == 200
        assert ask("decisions", key="0.png", action="keep")[0] == 200  # a page of before says nothing of the prompt
        edits = (folder / "edits.jsonl").read_text()
        (folder / "edits.jsonl").write_text(f"{edits}nothing\n")
        status, refused = ask("work")
        assert (status, refused["message"].count("This data set can't be reviewed: ")) == (409, 1)
        (folder / "edits.jsonl").write_text(edits)
    apply_review(folder)
    assert captions(folder) == {"0.png": "by hand"}


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_from_a_data_set_to_its_review_and_back_in_a_browser(serving, open_page, tmp_path, width):
    folder = made(tmp_path / "val")
    app = create_studio_app([tmp_path], StudioSettings())
    page = open_page(f"{serving(app)}{app.state.root}/data?name=val", viewport={"width": width, "height": 740})

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        audit(page)

    cards = "number => document.querySelectorAll('.card img').length === number"
    page.wait_for_function(cards, arg=4)
    page.click("text=Review")
    page.wait_for_selector("#name")
    check()
    page.fill("#name", "Ada")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#canvas img')?.naturalWidth")
    check()
    page.click("#keep")
    page.wait_for_function("() => document.querySelector('#counts').textContent.startsWith('1 of 4')")
    page.click("text=Progress")
    check()
    page.click("text=Apply")
    page.wait_for_selector("text=All decisions are applied")
    assert captions(folder) == {"0.png": "person 0"}
    asked = []
    page.route("**/data/thumb?*", lambda route: (asked.append(route.request.url), route.continue_()))
    page.click("text=Data")
    page.wait_for_function(cards, arg=1)
    page.wait_for_function("() => document.querySelector('.card img').complete")
    assert {parse_qs(urlsplit(url).query)["number"][0] for url in asked} == {"0"}, "no picture that is gone"
    page.click("text=Overview")
    page.wait_for_selector("#of-reviews")
    check()
