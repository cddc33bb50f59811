"""What the server shows and takes, what it refuses, and that a refusal changes nothing."""

import re
import sqlite3

import pytest
from starlette.testclient import TestClient

from fairhuman.errors import DataError
from fairhuman.study import app as study_app
from fairhuman.study.shown import load_shown
from fairhuman.study.study import CREATION, DATABASE, PICTURES, load_design, save_design
from fairhuman.study.texts import load_texts
from fairhuman.utils.digest import digests_of
from fairhuman.utils.files import write_json
from fairhuman.web.app import SECURITY_HEADERS
from helpers.damage import flip
from helpers.small_study import METHODS, write_study

HERE = "http://127.0.0.1:8000"
HTML = {"accept": "text/html"}
NOBODY = "A" * 43
GOOD = {"key": "0123456789abcdef", "trial": 0, "question": "overall", "choice": 1, "seconds": 2.5}


class Person:
    """A participant's browser, as far as requests go."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client, self.root = client, f"/p/{token}"

    def get(self, path: str = "", **headers: str):
        return self.client.get(self.root + path, headers=headers)

    def post(self, path: str, body=None, **headers: str):
        headers = {"origin": HERE, **headers}
        return self.client.post(self.root + path, json=body, headers=headers, follow_redirects=False)

    def consent(self):
        assert self.post("/consent").status_code == 303
        return self

    def answer(self, **changes):
        return self.post("/api/answers", {**GOOD, **changes})


@pytest.fixture
def opened(make_app):
    """`opened(folder)` gives a client and all participants, without consent yet."""
    clients = []

    def make(folder, **options):
        app, tokens = make_app(folder, **options)
        clients.append(TestClient(app, base_url=HERE, raise_server_exceptions=False))
        clients[-1].__enter__()
        return clients[-1], [Person(clients[-1], token) for token in tokens.values()]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def stored(folder, query="SELECT participant, trial, question, choice FROM answers ORDER BY 1, 2, 3"):
    connection = sqlite3.connect(folder / DATABASE)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_consent_comes_first_then_trials_then_answers_that_come_back(opened, study_folder):
    folder = study_folder()
    _, (ada, *_) = opened(folder)
    assert "I agree, start" in ada.get().text
    assert (ada.get("/api/trials").status_code, ada.answer().status_code) == (403, 403)
    ada.consent()
    assert "data-questions" in ada.get().text
    shown = ada.get("/api/trials").json()
    assert (len(shown["trials"]), shown["answers"]) == (4, [])
    design = load_design(folder)
    first = design.participants[0][0]
    assert shown["trials"][0] == {
        "prompt": "a person, number 0",
        "pictures": [design.items[0].pictures[method] for method in first.shown],
        "zooms": [list(design.items[0].zooms[method]) for method in first.shown],
    }
    assert ada.answer().json() == {"answered": 1}
    assert ada.answer().json() == {"answered": 1}
    assert ada.answer(key="f" * 16, question="regional", choice=None).json() == {"answered": 2}
    assert ada.get("/api/trials").json()["answers"] == [
        {"trial": 0, "question": "overall", "choice": 1},
        {"trial": 0, "question": "regional", "choice": None},
    ]
    assert stored(folder) == [(0, 0, "overall", 1), (0, 0, "regional", None)]


def test_a_prompt_is_shown_only_where_the_study_says_so(opened, study_folder):
    _, (ada, *_) = opened(study_folder(show_prompt=False))
    assert {trial["prompt"] for trial in ada.consent().get("/api/trials").json()["trials"]} == {None}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"trial": 4}, 422),
        ({"trial": -1}, 422),
        ({"trial": 2**40}, 422),
        ({"trial": "0"}, 422),
        ({"trial": True}, 422),
        ({"trial": 0.5}, 422),
        ({"question": "other"}, 422),
        ({"question": "'; DROP TABLE answers; --"}, 422),
        ({"question": "x" * 40}, 422),
        ({"question": "\x00"}, 422),
        ({"choice": 2}, 422),
        ({"choice": -1}, 422),
        ({"choice": "1"}, 422),
        ({"choice": METHODS[0]}, 422),
        ({"seconds": -1}, 422),
        ({"seconds": 1e9}, 422),
        ({"seconds": "1"}, 422),
        ({"key": "short"}, 422),
        ({"key": "x" * 65}, 422),
        ({"key": "' OR '1'='1' -- ----"}, 422),
        ({"participant": 1}, 422),
        ({"key": "x" * 100_000}, 413),
    ],
)
def test_bad_answers_are_told_and_change_nothing(opened, study_folder, changes, status):
    folder = study_folder()
    _, (ada, *_) = opened(folder)
    answer = ada.consent().answer(**changes)
    assert (answer.status_code, "message" in answer.json()) == (status, True), answer.text
    assert stored(folder) == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"[" * 30_000, "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b'{"seconds": NaN}', "application/json", 422),
        (b"key=1", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
    ],
)
def test_malformed_bodies(opened, study_folder, body, kind, status):
    client, (ada, *_) = opened(study_folder())
    ada.consent()
    headers = {"origin": HERE, "content-type": kind}
    assert client.post(f"{ada.root}/api/answers", content=body, headers=headers).status_code == status


def test_only_this_server_s_own_pages_can_send(opened, study_folder):
    folder = study_folder()
    client, (ada, *_) = opened(folder, invited=True, open_link=True)
    ada.consent()
    for origin in ("http://evil.example", "null", "", "http://127.0.0.1:8001"):
        assert ada.post("/api/answers", GOOD, origin=origin).status_code == 403
        assert ada.post("/consent", origin=origin).status_code == 403
        assert client.post("/api/join", json={"token": NOBODY}, headers={"origin": origin}).status_code == 403
    assert client.post(f"{ada.root}/api/answers", json=GOOD).status_code == 403
    assert ada.post("/api/answers", GOOD, host="evil.example", origin="http://evil.example").status_code == 400
    assert ada.get("/api/answers").status_code == 405
    assert stored(folder) == []


def test_others_answers_and_pictures_can_t_be_read_or_written(opened, tmp_path):
    folder = write_study(tmp_path / "study", participants=2, trials=4)
    design = load_design(folder)
    halves = tuple(trials[2 * i : 2 * i + 2] for i, trials in enumerate([design.participants[0]] * 2))
    save_design(type(design)(design.methods, design.items, halves), folder)
    client, (ada, bo) = opened(folder)
    ada.consent()
    bo.consent()
    ada.answer()
    assert bo.get("/api/trials").json()["answers"] == []
    bo.answer(choice=0)
    assert stored(folder) == [(0, 0, "overall", 1), (1, 0, "overall", 0)]
    own, foreign = (person.get("/api/trials").json()["trials"][0]["pictures"][0] for person in (ada, bo))
    assert (ada.get(f"/pictures/{own}").status_code, ada.get(f"/pictures/{foreign}").status_code) == (200, 404)
    for path in ("", "/api/trials", f"/pictures/{own}"):
        assert client.get(f"/p/{NOBODY}{path}").status_code == 404
    assert client.post(f"/p/{NOBODY}/api/answers", json=GOOD, headers={"origin": HERE}).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../design.json",
        "..%2fdesign.json",
        "%2e%2e/study.yaml",
        "..%5cstudy.yaml",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "design.json",
        "%00",
        "x" * 5000,
        "%2e%2e",
        "*.jpg",
    ],
)
def test_nothing_but_pictures_comes_out(opened, study_folder, name):
    client, (ada, *_) = opened(study_folder())
    for address in (f"{ada.root}/pictures/{name}", f"/pictures/{name}", f"/static/{name}", f"/{name}"):
        answer = client.get(address)
        assert answer.status_code in (400, 404), address
        assert b"our_method" not in answer.content


def test_wrong_links_are_slowed_down_and_right_ones_from_the_same_address_are_not(opened, study_folder, monkeypatch):
    monkeypatch.setattr(study_app, "STRANGER_LIMIT", (5, 0.001))
    client, (ada, *_) = opened(study_folder())
    found = [client.get(f"/p/{'a' * 42}{i}") for i in range(8)]
    assert [answer.status_code for answer in found] == [404] * 5 + [429] * 3
    assert int(found[-1].headers["retry-after"]) > 0
    assert client.get(f"/admin/{NOBODY}").status_code == 429
    assert (ada.get().status_code, client.get("/admin/admin-token-of-the-tests").status_code) == (200, 200)


def test_a_participant_who_asks_too_often_is_told_when_to_ask_again_and_others_go_on(opened, study_folder, monkeypatch):
    monkeypatch.setattr(study_app, "PARTICIPANT_LIMIT", (4, 0.001))
    _, (ada, bo, _) = opened(study_folder())
    assert [ada.get().status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert bo.get().status_code == 200


def test_the_open_link_gives_each_visitor_a_place_once_up_to_the_limit(opened, study_folder):
    folder = study_folder(participants=2)
    client, _ = opened(folder, invited=False, open_link=True)
    assert 'id="join"' in client.get("/").text

    def join(token):
        return client.post("/api/join", json={"token": token}, headers={"origin": HERE}).status_code

    assert [join(token * 43) for token in "abab"] == [200] * 4
    assert join("c" * 43) == 409
    assert [join(token) for token in ("", "a" * 42, "a" * 44, "ä" * 43, " " * 43)] == [422] * 5
    assert [Person(client, token * 43).answer().json() for token in "ab"] == [{"answered": 1}] * 2
    assert stored(folder) == [(0, 0, "overall", 1), (1, 0, "overall", 1)]


def test_new_visitors_of_one_address_have_a_limit(opened, study_folder, monkeypatch):
    monkeypatch.setattr(study_app, "JOIN_LIMIT", (1, 0.001))
    client, _ = opened(study_folder(), invited=False, open_link=True)
    tokens = [{"token": letter * 43} for letter in "ab"]
    found = [client.post("/api/join", json=token, headers={"origin": HERE}).status_code for token in tokens]
    assert found == [200, 429]


def test_without_an_open_link_nobody_joins(opened, study_folder):
    client, _ = opened(study_folder())
    assert "invitation" in client.get("/").text
    assert client.post("/api/join", json={"token": NOBODY}, headers={"origin": HERE}).status_code == 404


def test_the_admin_page_tells_progress_and_no_answers(opened, study_folder):
    client, (ada, *_) = opened(study_folder())
    ada.consent().answer()
    shown = client.get("/admin/admin-token-of-the-tests").text
    assert re.search(r"<dt>Consented</dt><dd>1</dd>", shown)
    assert "1 of 8" in shown
    assert not any(method in shown for method in METHODS)
    for wrong in (ada.root[3:], "", "admin-token-of-the-test", NOBODY):
        assert client.get(f"/admin/{wrong}").status_code == 404


def test_prompts_questions_titles_and_texts_are_data(opened, study_folder):
    evil = "</script><img src=x onerror=alert(1)>\"'&"
    questions = [{"name": "overall", "text": evil}]
    texts = {**load_texts(), "tie": evil, "consent_text": evil, "choose": "{letter}" + evil}
    folder = study_folder(prompt=evil + "{}", title=evil, questions=questions)
    client, (ada, *_) = opened(folder, texts=texts)
    before = ada.get().text
    ada.consent()
    for shown in (before, ada.get().text, client.get("/admin/admin-token-of-the-tests").text):
        assert "<img" not in shown
        assert "</script><" not in shown
    answer = ada.get("/api/trials")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["trials"][0]["prompt"] == evil + "0"


def test_all_answers_have_the_security_headers_and_set_no_cookies(opened, study_folder):
    client, (ada, *_) = opened(study_folder())
    name = ada.consent().get("/api/trials").json()["trials"][0]["pictures"][0]
    for path in ("/", ada.root, f"{ada.root}/api/trials", f"{ada.root}/pictures/{name}", "/nothing", "/api.json"):
        answer = client.get(path)
        wanted = {**SECURITY_HEADERS}
        if "pictures" in path:
            wanted["Cache-Control"] = "private, max-age=604800, immutable"
        assert {header: answer.headers[header] for header in wanted} == wanted
        assert "set-cookie" not in answer.headers


def test_a_picture_that_vanished_is_told(opened, study_folder):
    folder = study_folder()
    _, (ada, *_) = opened(folder)
    name = ada.consent().get("/api/trials").json()["trials"][0]["pictures"][0]
    (folder / PICTURES / name).unlink()
    assert ada.get(f"/pictures/{name}").status_code == 404


def test_a_picture_that_is_damaged_while_the_study_runs_is_not_shown(opened, study_folder, caplog):
    folder = study_folder()
    write_json(folder / CREATION, {"digests": digests_of(folder / PICTURES)})
    _, (ada, *_) = opened(folder)
    sound, name = ada.consent().get("/api/trials").json()["trials"][0]["pictures"]
    flip(folder / PICTURES / name)
    for _ in range(2):
        assert ada.get(f"/pictures/{name}").status_code == 404
        assert ada.get(f"/pictures/{sound}").status_code == 200
    (record,) = (record for record in caplog.records if "damaged" in record.getMessage())  # told once
    assert str(folder / PICTURES / name) in record.getMessage()


def test_a_study_whose_pictures_differ_from_outside_is_not_served(study_folder):
    folder = study_folder()
    name = load_design(folder).items[2].pictures[METHODS[1]]
    path = folder / PICTURES / name
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"item 2 must be alike .* 6000 bytes, .* 6001 bytes"):
        load_shown(folder)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}: the picture can't be read"):
        load_shown(folder)
