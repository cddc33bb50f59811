"""A small folder to review, its events, and a browser."""

import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from tiny_pictures import encoded, picture

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def review_folder(tmp_path: Path) -> Callable[..., Path]:
    """`review_folder(n)` writes n pictures, p0 ... , with prompts `a person, number i`, a face, and hands or null."""

    def make(count: int, **more: Any) -> Path:
        root = tmp_path / "people"
        (root / "images").mkdir(parents=True)
        rows = []
        for i in range(count):
            (root / "images" / f"{i}.png").write_bytes(encoded(picture(64, 48, i)))
            hands = [[30, 30, 40, 44]] if i % 2 else None
            row = {"file_name": f"images/{i}.png", "caption": f"a person, number {i}", "key": f"p{i}"}
            rows.append({**row, "faces": [[4, 5, 20, 25, 0.9]], "hands": hands, "scene": "park", **more})
        (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return root

    return make


@pytest.fixture
def events() -> Callable[[Path], list[tuple]]:
    """`events(folder)` reads reviewer, key, action, prompt, reason of all events, as another process would."""

    def read(root: Path) -> list[tuple]:
        connection = sqlite3.connect(root / "review.sqlite")
        try:
            return connection.execute("SELECT reviewer, key, action, prompt, reason FROM event ORDER BY id").fetchall()
        finally:
            connection.close()

    return read


@pytest.fixture
def serving() -> Iterator[Callable[[Starlette], str]]:
    """`serving(app)` serves it from a thread until the test ends, and gives its address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Starlette) -> str:
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; where it is missing the test is skipped, on CI it fails."""
    if shutil.which(CHROMIUM) is None:
        message = f"needs Chromium at {CHROMIUM}: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(url, **context)` opens a page in a context of its own.

    A word in its console that isn't `expected` fails the test: a breach of the policy would be one.
    """
    contexts: list[Any] = []
    said: list[str] = []

    def heard(text: str, expected: str) -> None:
        if not expected or expected not in text:
            said.append(text)

    def opened(url: str, expected: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: heard(message.text, expected))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
