"""Fixtures that all tests share."""

import os

# Sums over other numbers of threads may have other bits, and some tests compare bytes with those of processes.
os.environ["OMP_NUM_THREADS"] = "1"
# Processes that tests start find `helpers` too.
os.environ["PYTHONPATH"] = f"{__file__.rpartition('/')[0]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch  # after OMP_NUM_THREADS is set
import uvicorn
from hypothesis import HealthCheck, settings
from starlette.applications import Starlette

from fairhuman.cli import main
from fairhuman.synth.body import Body
from helpers import warm
from helpers.places import ROOT

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
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


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        warm.share()


@pytest.fixture(autouse=True)
def _on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test that isn't marked `cuda` on the CPU, beside a GPU too: many compare bits."""
    if torch.cuda.is_available() and request.node.get_closest_marker("cuda") is None:
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and bad files beside the checkout; tests that need it skip where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the photos in {folder / 'data'}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run side by side, a process a core, on tensors too small to be worth sharing out."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def body() -> Body:
    """The body model; on a machine without it one process makes it in a minute or two, and the others wait."""
    return Body()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_base("sd3")` gives the folder of a tiny random pipeline of that base, built at its first use."""
    from helpers.tiny_bases import save_tiny

    folder = tmp_path_factory.mktemp("bases")

    def saved(name: str) -> Path:
        return folder / name if (folder / name).exists() else save_tiny(name, folder / name)

    return saved


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`typed("grid", folder)` runs `fairhuman grid FOLDER` here; exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["fairhuman", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def open_connections(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """`open_connections()` counts the connections to SQLite that SQLAlchemy made in this test and nobody closed."""
    made: list[sqlite3.Connection] = []

    class Noted(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

        def close(self) -> None:
            super().close()
            made.remove(self)

    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *args, **options: connect(*args, factory=Noted, **options))
    return lambda: len(made)


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
