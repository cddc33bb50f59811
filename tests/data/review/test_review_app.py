"""The pages and the API of a review: what is shown, what is rejected, and that a rejected request changes nothing."""

import html
import io
import json
import os
import re

import pytest
from PIL import Image
from sqlalchemy import event
from starlette.testclient import TestClient

from fairhuman.data.review import ReviewSettings, create_review_app, unread
from fairhuman.data.review import app as review_app
from fairhuman.data.review.app import serve_review
from fairhuman.data.review.events import open_review
from fairhuman.errors import DataError, FairHumanError
from fairhuman.record import region_column
from fairhuman.utils.files import cache_folder
from fairhuman.web import database
from fairhuman.web.app import page
from fairhuman.web.frame import Frame
from helpers.tiny_pictures import encoded, picture

HERE = "http://127.0.0.1:8000"
HTML = {"accept": "text/html"}


class Page:
    """A page as it is open in a browser: its client, the root of its addresses, its reviewer."""

    def __init__(self, client: TestClient, reviewer: str = "Ada") -> None:
        self.client, self.reviewer = client, reviewer
        self.root = client.app.state.root
        assert f'data-root="{self.root}"' in self.get("/review", name=reviewer).text

    def get(self, path="", **params):
        return self.client.get(f"{self.root}{path}", params=params or None)

    def ask(self, path, body=None, root=None, **headers):
        address = f"{self.root if root is None else root}/api/{path}"
        body = {"reviewer": self.reviewer, **(body or {})}
        return self.client.post(address, json=body, headers={"origin": HERE, **headers})

    def keep(self, key, **more):
        return self.ask("decisions", {"key": key, "action": "keep", **more})


@pytest.fixture
def opened():
    clients = []

    def make(folder, **settings) -> Page:
        client = TestClient(create_review_app(folder, ReviewSettings(**settings)), base_url=HERE)
        clients.append(client.__enter__())
        return Page(client)

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def test_a_page_gets_its_pictures_with_prompts_boxes_and_sizes(opened, review_folder):
    answer = opened(review_folder(3)).ask("work").json()
    assert answer["pictures"][0] == {
        "key": "p0",
        "prompt": "a person, number 0",
        "width": 64,
        "height": 48,
        "boxes": {"face": [[4, 5, 20, 25]], "hand": None},
    }
    assert answer["pictures"][1]["boxes"]["hand"] == [[30, 30, 40, 44]]
    assert {name: answer[name] for name in ("total", "done", "own", "elsewhere")} == {
        "total": 3,
        "done": 0,
        "own": 0,
        "elsewhere": 0,
    }


def test_decisions_are_on_disk_when_they_are_answered_and_survive_a_restart(opened, review_folder, events):
    folder = review_folder(3)
    page = opened(folder)
    assert page.keep("p0").json()["pictures"][0]["key"] == "p1"
    assert events(folder) == [("Ada", "p0", "keep", "a person, number 0", None)]
    page.ask("decisions", {"key": "p1", "action": "drop", "reason": "unclear"})
    again = opened(folder)
    assert again.root == page.root  # pages that are open go on
    assert again.ask("work").json()["pictures"][0]["key"] == "p2"
    undone = again.ask("undo").json()
    assert (undone["undone"], undone["pictures"][0]["key"]) == ({"key": "p1", "prompt": None}, "p1")
    assert [row[2] for row in events(folder)] == ["keep", "drop", "undo"]


def test_the_address_is_not_told_by_the_folder_which_is_private(opened, review_folder, tmp_path, monkeypatch):
    folder = review_folder(1)
    root = opened(folder).root
    assert (folder / "review.sqlite").stat().st_mode & 0o777 == 0o600
    assert (cache_folder() / "review.key").stat().st_mode & 0o777 == 0o600
    database = b"".join(file.read_bytes() for file in folder.glob("review.sqlite*"))
    assert root.removeprefix("/r/").encode() not in database
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path / "another user's"))
    assert opened(folder).root != root  # although the database came with the folder
    (cache_folder() / "review.key").write_bytes(b"short")
    with pytest.raises(DataError, match=r"review\.key: must hold 32 bytes, found 5; delete the file"):
        opened(folder)
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(folder / "metadata.jsonl"))
    with pytest.raises(FairHumanError, match=r"can't be written: .*FAIRHUMAN_CACHE to use another folder"):
        opened(folder)


def test_a_folder_whose_name_is_no_utf_8_is_shown(opened, review_folder):
    folder = review_folder(1)
    page = opened(folder.rename(folder.with_name(os.fsdecode(b"bad\xff"))))
    for path in ("", "/review?name=Ada", "/progress"):
        answer = page.client.get(f"{page.root}{path}")
        assert (answer.status_code, "bad\\udcff" in answer.text) == (200, True)


def test_a_database_that_is_a_link_is_refused(opened, review_folder, tmp_path):
    folder = review_folder(1)
    (folder / "review.sqlite").symlink_to(tmp_path / "mine.sqlite")
    with pytest.raises(DataError, match=r"review\.sqlite: must be a file, but is a link"):
        opened(folder)
    assert not (tmp_path / "mine.sqlite").exists()


KEEP = {"key": "p0", "action": "keep"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({**KEEP, "key": "p9"}, 404, "no such picture"),
        ({**KEEP, "key": "../../etc/passwd"}, 404, "no such picture"),
        ({**KEEP, "key": None}, 422, "key"),
        ({"action": "keep"}, 422, "key"),
        ({**KEEP, "action": "undo"}, 422, "action"),
        ({**KEEP, "prompt": "x" * 1001}, 422, "the limit is 1000"),
        ({**KEEP, "prompt": "x" * 100_000}, 413, "at most"),
        ({**KEEP, "prompt": "  "}, 422, "is empty"),
        ({**KEEP, "prompt": 7}, 422, "prompt"),
        ({**KEEP, "reason": "other"}, 422, "reasons"),
        ({"key": "p0", "action": "drop"}, 422, "reasons"),
        ({"key": "p0", "action": "drop", "reason": "'; DROP TABLE event; --"}, 422, "reasons"),
        ({**KEEP, "reviewer": ""}, 422, "1 to 60 characters"),
        ({**KEEP, "reviewer": "x" * 61}, 422, "1 to 60 characters"),
        ({**KEEP, "reviewer": "a\u0000"}, 422, "control character"),
        ({**KEEP, "admin": True}, 422, "admin"),
    ],
)
def test_invalid_decisions_are_rejected_and_change_nothing(opened, review_folder, events, body, status, said):
    folder = review_folder(1)
    answer = opened(folder).ask("decisions", body)
    assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.text
    assert events(folder) == []


@pytest.mark.parametrize("path", ["work", "decisions", "undo"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"root": "/r/wrong"}, 404),
        ({"root": "/r/"}, 404),
        ({"root": "/r/%C3%A9"}, 404),
        ({"root": ""}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 400),
        ({"content-type": "text/plain"}, 415),
    ],
)
def test_only_pages_of_this_review_are_accepted(opened, review_folder, events, path, headers, status):
    folder = review_folder(1)
    page = opened(folder)
    assert page.ask(path, KEEP if path == "decisions" else {}, **headers).status_code == status
    assert page.get(f"/api/{path}").status_code == 405
    assert events(folder) == []


def test_a_late_decision_is_rejected_and_names_the_reviewer_who_decided(opened, review_folder, events):
    folder = review_folder(1)
    ada = opened(folder)
    bo = Page(ada.client, "Bo")
    ada.keep("p0")
    answer = bo.ask("decisions", {"key": "p0", "action": "drop", "reason": "other"})
    assert (answer.status_code, "decided by Ada" in answer.json()["message"]) == (409, True)
    assert len(events(folder)) == 1


def test_several_reviews_a_picture_reach_the_progress_page(opened, review_folder):
    ada = opened(review_folder(2), reviews_per_picture=2)
    bo = Page(ada.client, "Bo")
    ada.keep("p0")
    assert bo.keep("p0").json()["done"] == 1
    ada.keep("p1")
    bo.ask("decisions", {"key": "p1", "action": "drop", "reason": "anatomy"})
    shown = ada.get("/progress").text
    assert re.search(r"1 of the 2 pictures.*\(50 %\)", shown, re.DOTALL)
    assert "2 of 2" in shown


def test_what_sdxl_does_not_read_of_a_prompt_is_told_and_may_be_kept(opened, review_folder):
    page = opened(review_folder(1))
    long = "a person waving, " * 18 + "in a park with tall old trees, at noon"
    assert page.ask("unread", {"prompt": long}).json() == {
        "unread": "This prompt has 84 tokens, and SDXL reads 77: what begins with “with tall old trees, at noon” "
        "isn't read. You may keep it so."
    }
    assert page.ask("unread", {"prompt": "a person waving"}).json() == {"unread": ""}
    assert page.ask("unread", {"prompt": "a\x00person"}).json() == {"unread": ""}, "the decision refuses it"
    assert page.keep("p0", prompt=long).status_code == 200


def test_without_a_tokenizer_words_are_counted(monkeypatch):
    def missing():
        raise ImportError

    monkeypatch.setattr(unread, "_budget", missing)
    assert unread.unread_text("person " * 55) == ""
    assert unread.unread_text("person " * 56).startswith("This prompt has 56 words, and SDXL reads 77 tokens, about 55")


def test_names_are_data(opened, review_folder):
    name = "<script>alert('1')</script> & Söhne 👩‍🔬"
    escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; Söhne 👩‍🔬"
    page = Page(opened(review_folder(2)).client, name)
    assert page.keep("p0").status_code == 200
    for path in ("", "/progress", "/review"):
        shown = page.get(path, name=name).text
        assert "<script>alert" not in shown
        assert escaped in shown
    link = re.search(r'href="(/r/[^"]+/review\?name=[^"]+)"', page.get().text).group(1)
    assert escaped in page.client.get(link).text


def test_names_are_normalised_and_invalid_ones_are_requested_again(opened, review_folder):
    page = opened(review_folder(1))
    assert page.get("/review", name="  Ada   B ").url.params["name"] == "Ada B"
    for name in ("", "   ", "x" * 61, "a\x00b"):
        answer = page.get("/review", name=name)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text


def test_titles_and_keys_are_data(opened, tmp_path):
    folder = tmp_path / "<b>people & co"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(picture(40, 30)))
    rows = [
        {"file_name": "a.png", "key": "<img src=x onerror=alert(1)>", "prompt": "</script><b>", "faces": [[1, 1, 9, 9]]}
    ]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    page = opened(folder)
    assert "<b>" not in page.get("/review", name="Ada").text
    answer = page.ask("work")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["pictures"][0]["prompt"] == "</script><b>"


def shown(page, key):
    return page.get("/picture", key=key)


def test_pictures_are_given_as_they_are_and_only_by_key(opened, review_folder):
    folder = review_folder(1)
    page = opened(folder)
    answer = shown(page, "p0")
    assert (answer.content, answer.headers["content-type"]) == ((folder / "images/0.png").read_bytes(), "image/png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    for key in ("", "images/0.png", "../people/images/0.png", str(folder / "images/0.png"), "metadata.jsonl"):
        assert shown(page, key).status_code == 404
    (folder / "images/0.png").unlink()
    assert "file does not exist" in shown(page, "p0").json()["message"]
    assert page.ask("decisions", {"key": "p0", "action": "drop", "reason": "other"}).status_code == 200


def test_pictures_are_shown_as_training_sees_them(opened, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = picture(40, 30).convert("RGBA")
    clear.putalpha(0)
    files = {
        "turned.jpg": encoded(picture(40, 30), "JPEG", exif=turned),
        "scan.tif": encoded(picture(40, 30), "TIFF"),
        "clear.png": encoded(clear),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    page = opened(tmp_path)
    images = {}
    for name in files:
        answer = shown(page, name)
        assert answer.headers["content-type"] == "image/jpeg"
        images[name] = Image.open(io.BytesIO(answer.content))
    assert images["turned.jpg"].size == (30, 40)
    assert images["turned.jpg"].getexif().get(0x0112) is None
    assert images["clear.png"].getpixel((5, 5)) == (255, 255, 255)


def test_a_locked_database_is_reported_and_nothing_is_saved(opened, review_folder, events, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    folder = review_folder(1)
    page = opened(folder)
    other = open_review(folder)
    with database.transaction(other):
        answer = page.keep("p0")
    other.dispose()
    assert (answer.status_code, "locked" in answer.json()["message"]) == (503, True)
    assert events(folder) == []
    assert page.keep("p0").status_code == 200


def test_a_full_disk_is_reported_and_nothing_is_saved(review_folder, events):
    folder = review_folder(40)
    app = create_review_app(folder, ReviewSettings())
    engine = next(route for route in app.routes if route.path == "/").endpoint.__self__.store.engine
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
    engine.dispose()
    with TestClient(app, base_url=HERE) as client:
        page = Page(client)
        answers = [page.keep(f"p{i}", prompt="x" * 999) for i in range(40)]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert "full" in answers[-1].json()["message"]
    assert len(events(folder)) == sum(answer.status_code == 200 for answer in answers)


def test_what_can_t_be_reviewed_is_named(tmp_path, review_folder):
    with pytest.raises(DataError, match="no such file"):
        create_review_app(tmp_path / "nowhere", ReviewSettings())
    with pytest.raises(DataError, match=r"no picture in .*, which is empty"):
        create_review_app(tmp_path, ReviewSettings())
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="this is parquet"):
        create_review_app(tmp_path, ReviewSettings())


def test_a_review_that_ends_before_it_is_served_closes_its_database(review_folder, open_connections):
    folder = review_folder(1)
    with pytest.raises(FairHumanError, match="url must be like"):
        create_review_app(folder, ReviewSettings(url="nowhere"))
    with pytest.raises(FairHumanError, match=r"port must be in 0\.\.65535"):
        serve_review(folder, ReviewSettings(), "127.0.0.1", -1, print)
    assert open_connections() == 0
    engine = open_review(folder)
    assert open_connections() == 1, "so it counts"
    engine.dispose()
    (cache_folder() / "review.key").write_bytes(b"short")
    with pytest.raises(DataError, match=r"review\.key: must hold 32 bytes"):
        create_review_app(folder, ReviewSettings())
    assert open_connections() == 0


def test_skipped_records_are_reported(review_folder, monkeypatch):
    folder = review_folder(9)
    (folder / "images/3.png").write_bytes(b"")
    told = []

    def serve(_, host, port, say, proxy, *, locked, root):
        say(f"{host}:{port}")
        assert (proxy, locked, len(root) > 40) == (None, True, True)

    monkeypatch.setattr(review_app, "serve", serve)
    serve_review(folder, ReviewSettings(), "127.0.0.1", 5, told.append)
    assert told == [f"{folder}: skipped 1: file is empty (0 bytes)", "127.0.0.1:5"]


def test_texts_with_surrogates_become_valid_unicode(opened, review_folder):
    folder = review_folder(1)
    path = folder / "metadata.jsonl"
    path.write_text(
        path.read_text().replace('"p0"', '"p\\ud800"').replace('"caption"', '"prompt"').replace("park", "\\ud800")
    )
    page = opened(folder)
    (shown,) = page.ask("work").json()["pictures"]
    assert shown["prompt"] == "a person, number 0"
    assert page.keep(shown["key"]).status_code == 200
    assert page.ask("decisions", {"key": shown["key"], "action": "keep", "prompt": None}).status_code == 200


def test_the_page_finds_regions_whose_names_html_would_change():
    """HTML turns CR into LF and drops NUL, so names in `id` would not be those of a picture's boxes."""
    names = ["face", "a\rb", "a\0b", "<i>"]
    shown = page("review.html", title="", reviewer="", root="", reasons={}, regions=dict.fromkeys(names, "#000"),
                 region_column=region_column, max_prompt=9, frame=Frame("review", ""))  # fmt: skip
    text = shown.body.decode()
    assert re.findall(r'id="count-([^"]*)"', text) == ["0", "1", "2", "3"]
    assert json.loads(html.unescape(re.search(r'data-regions="([^"]*)"', text)[1])) == names
