"""The frame of every page: headers, hosts, foreign pages, bodies, errors."""

import re
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from fairhuman.config import Settings
from fairhuman.web import app as web
from fairhuman.web import database
from fairhuman.web.app import MAX_BODY, SECURITY_HEADERS, RefusedError, create_app, page, read_json

HERE = "http://127.0.0.1:8000"
WEB = Path(web.__file__).parent
HTML = {"accept": "text/html,*/*"}


class Answer(Settings):
    number: int


async def count(request):
    return JSONResponse({"twice": 2 * (await read_json(request, Answer)).number})


def refuse(request):
    raise RefusedError(409, "Too late for <you>.")


def break_down(request):
    raise RuntimeError("secret detail")


def lose_database(request):
    raise OperationalError("SELECT secret", {}, sqlite3.OperationalError("database is locked"))


def lose_remote_database(request):
    raise OperationalError("SELECT 1", {}, Exception("user secret at host secret: refused"))


def hello(_):
    return PlainTextResponse("hello")


@pytest.fixture
def client():
    routes = [
        Route("/", hello),
        Route("/count", count, methods=["POST"]),
        Route("/refuse", refuse),
        Route("/break", break_down),
        Route("/database", lose_database),
        Route("/remote", lose_remote_database),
    ]
    app = create_app(routes, hosts=["review.lab"])
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client


def test_the_end_of_the_app_closes_what_it_holds():
    closed = []
    with TestClient(create_app([], close=lambda: closed.append(True))):
        assert closed == []
    assert closed == [True]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/health", 200), ("/nothing", 404), ("/refuse", 409), ("/break", 500), ("/database", 503)],
)
def test_all_answers_have_the_security_headers(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_errors_are_pages_for_people_and_json_for_scripts(client):
    assert client.get("/refuse").json() == {"message": "Too late for <you>."}
    shown = client.get("/refuse", headers=HTML)
    assert shown.status_code == 409
    assert "Too late for &lt;you&gt;." in shown.text
    shown = client.get("/nothing", headers=HTML).text
    assert "no such page" in shown
    assert "<a " not in shown  # no address leads on from every error: an app's own may end in a secret
    assert client.get("/count").headers["allow"] == "POST"


@pytest.mark.parametrize("headers", [{}, HTML])
def test_what_goes_wrong_inside_is_said_without_its_details(client, headers):
    assert "secret" not in client.get("/break", headers=headers).text
    database = client.get("/database", headers=headers).text
    assert "database is locked" in database
    assert "nothing was saved" in database
    assert "secret" not in database
    assert "secret" not in client.get("/remote", headers=headers).text


def test_an_outage_of_the_database_is_logged_once(client, caplog):
    for outages in (1, 2):
        database._outage.clear()  # as a new connection does
        for _ in range(3):
            assert client.get("/remote").status_code == 503
        assert caplog.messages == ["the database can't be used: user secret at host secret: refused"] * outages


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "192.168.1.5", "review.lab:80"]
)
def test_own_hosts(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "localhost.evil",
        "x@y:z",
        "x@localhost",
        "localhost:80:90",
        "localhost:",
        "localhost:99999",
        "localhost/",
        "localhost#",
        "[127.0.0.1",
        "::1",
    ],
)
def test_foreign_hosts_are_refused(client, host):
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 400
    assert "hello" not in answer.text


def test_a_body_arrives_from_an_own_page(client):
    assert client.post("/count", json={"number": 4}, headers={"origin": HERE}).json() == {"twice": 8}


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "http://evil.example",
        "http://127.0.0.1:8001",
        "http://127.0.0.1",
        "https://127.0.0.1:8000",
        "ftp://127.0.0.1:8000",
        "127.0.0.1:8000",
        "://127.0.0.1:8000",
    ],
)
def test_other_pages_can_t_change_anything(client, origin):
    headers = {} if origin is None else {"origin": origin}
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = client.request(method, "/count", json={"number": 4}, headers=headers)
        assert (answer.status_code, answer.json()) == (
            403,
            {"message": "The request must come from a page of this server."},
        )


@pytest.mark.parametrize(
    ("site", "host", "origin", "status"),
    [
        ("https://lab.example", "lab.example", "https://lab.example", 200),
        ("https://lab.example:443", "lab.example", "https://lab.example", 200),
        ("https://Lab.example", "lab.example:443", "https://lab.example", 200),
        ("https://lab.example", "lab.example", "http://lab.example", 403),
        ("https://lab.example", "lab.example:8443", "https://lab.example:8443", 403),
        ("https://lab.example:8443", "lab.example:8443", "https://lab.example:8443", 200),
        ("https://lab.example", "127.0.0.1", "http://127.0.0.1", 200),
        ("http://lab.example", "lab.example:80", "http://lab.example", 200),
    ],
)
def test_pages_of_the_public_address_have_its_scheme(site, host, origin, status):
    """As where a proxy ends TLS and doesn't tell the scheme."""
    app = create_app([Route("/count", count, methods=["POST"])], hosts=["lab.example"], site=site)
    with TestClient(app, base_url=HERE) as client:
        answer = client.post("/count", json={"number": 4}, headers={"host": host, "origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"number": 4}', "text/plain", 415),
        (b'{"number": 4}', "", 415),
        (b"number=4", "application/json", 422),
        (b"", "application/json", 422),
        (b"[" * 10_000, "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b'{"number": "\\ud800"}', "application/json", 422),
        (b'{"number": NaN}', "application/json", 422),
        (b'{"number": 4, "other": 1}', "application/json", 422),
        (b"{}", "application/json; charset=utf-8", 422),
        (b'{"number": 1' + b" " * MAX_BODY + b"}", "application/json", 413),
    ],
)
def test_bad_bodies(client, body, kind, status):
    answer = client.post("/count", content=body, headers={"origin": HERE, "content-type": kind})
    assert answer.status_code == status
    assert answer.json()["message"]


def test_static_files_are_kept_by_their_content_and_nothing_else_is_served(client):
    address = re.search(r'"(/static/style\.css\?v=[0-9a-f]{16})"', client.get("/nothing", headers=HTML).text).group(1)
    assert "immutable" in client.get(address).headers["cache-control"]
    assert client.get("/static/style.css").headers["cache-control"] == "no-cache"
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert client.get(path).status_code == 404


def test_templates_take_no_unknown_name_and_escape_all():
    assert "&lt;b&gt;" in page("error.html", message="<b>").body.decode()
    with pytest.raises(Exception, match="message"):
        page("error.html")


@pytest.mark.parametrize("template", sorted((WEB / "templates").glob("*.html")), ids=lambda path: path.name)
def test_no_template_has_what_the_policy_forbids(template):
    text = re.sub(r"\{#.*?#\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?:|\|\s*safe|autoescape", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def colours(css: str) -> dict[str, str]:
    return {
        name: value if len(value) == 7 else "#" + "".join(c * 2 for c in value[1:])
        for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]+);", css)
    }


def contrast(a: str, b: str) -> float:
    """WCAG 2.2, relative luminance: (L1 + 0.05) / (L2 + 0.05)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_edges_can_be_seen_in_light_and_dark():
    light, dark = re.findall(r":root \{(.*?)\}", (WEB / "static" / "style.css").read_text(encoding="utf-8"), re.DOTALL)
    for scheme in (colours(light), {**colours(light), **colours(dark)}):
        for ground in ("ground", "paper", "over"):
            for text in ("ink", "soft", "accent", "bad"):
                if (text, ground) not in (("accent", "over"), ("bad", "over")):
                    assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
            assert contrast(scheme["edge"], scheme[ground]) >= 3, ("edge", ground)
            assert contrast(scheme["focus"], scheme[ground]) >= 3, ("focus", ground)
        for button in ("accent", "accent-over"):
            assert contrast(scheme["on-accent"], scheme[button]) >= 4.5
