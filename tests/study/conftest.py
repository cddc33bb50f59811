"""A study that is served here or by a process of its own, and databases of both kinds."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from starlette.applications import Starlette

from fairhuman.study.app import Access, create_study_app
from fairhuman.study.links import participant_tokens
from fairhuman.study.shown import load_shown
from fairhuman.study.store import open_store
from fairhuman.study.study import DATABASE
from helpers.launched import free_port
from helpers.small_study import ADMIN, write_study
from helpers.study_tab import Tab


@pytest.fixture
def study_folder(tmp_path: Path) -> Callable[..., Path]:
    """`study_folder(participants=3, trials=4, ...)` writes a study; see `write_study`."""
    return lambda **values: write_study(tmp_path / "study", **values)


@pytest.fixture
def make_app() -> Iterator[Callable[..., tuple[Starlette, dict[int, str]]]]:
    """`make_app(folder)` gives an app and the tokens of its participants; its connections close with the test."""
    with ExitStack() as stores:
        yield partial(_make_app, stores)


def _make_app(
    stores: ExitStack,
    folder: Path,
    database: Path | str | None = None,
    invited: bool = True,
    texts: Any = None,
    **access: Any,
) -> tuple[Starlette, dict[int, str]]:
    study = load_shown(folder)
    store = open_store(study, database or folder / DATABASE)
    stores.callback(store.close)
    tokens = store.invite(participant_tokens(folder, range(len(study.participants)))) if invited else {}
    return create_study_app(study, store, Access(ADMIN, **access), texts), tokens


class Servers:
    """Processes of `fairhuman study serve`, and others."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, folder: Path, *options: str, port: int = 0) -> tuple[str, subprocess.Popen[str]]:
        """Serve; the address without a slash at its end, and the process."""
        command = [sys.executable, "-m", "fairhuman.cli", "study", "serve", str(folder), "--port", str(port)]
        command += ["--admin-token", ADMIN, *options]
        process = self.run(command)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http"), line
        return line.split()[0].rstrip("/"), process

    def run(self, command: list[str]) -> subprocess.Popen[str]:
        """Any process that has to end with the test."""
        self._running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self._running[-1]

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    """`servers.start(folder, "--option", ...)`; all end with the test."""
    running = Servers()
    yield running
    running.end()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of these tests, without a database's name."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        message = "needs PostgreSQL in /usr/lib/postgresql: apt-get install postgresql"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    binaries = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="study-postgresql-"))  # pytest's own folders are closed to other users
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    port = free_port()
    data = folder / "data"
    initdb = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "tests", "-A", "trust", "-E", "UTF8", "-N"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
    server = [*as_user, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    process = subprocess.Popen([*server, "-c", "listen_addresses=127.0.0.1"], stderr=subprocess.DEVNULL, cwd=folder)
    try:
        url = f"postgresql://tests@127.0.0.1:{port}/"
        _wait_for_database(url)
        yield url
    finally:
        process.send_signal(signal.SIGQUIT)  # at once, without writing down what is thrown away
        process.wait()
        shutil.rmtree(folder)


def _wait_for_database(url: str) -> None:
    engine = create_engine(f"{url}postgres")
    for attempt in range(600):
        try:
            engine.connect().close()
            break
        except Exception:
            assert attempt < 599
            time.sleep(0.1)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'answers.sqlite'}"
        return
    server = request.getfixturevalue("postgresql")
    admin = create_engine(f"{server}postgres", isolation_level="AUTOCOMMIT")
    name = f"study_{time.time_ns()}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    yield f"{server}{name}"


@pytest.fixture
def taking_part(study_folder: Any, make_app: Any, serving: Any, open_page: Any) -> Callable[..., Any]:
    """`taking_part(participants=1, ...)` gives the folder, and what opens a participant's page after consent."""

    def start(texts=None, **values):
        folder = study_folder(**values)
        app, tokens = make_app(folder, texts=texts)
        address = serving(app)

        def opened(number=0, expected="", **options) -> Tab:
            page = open_page(f"{address}/p/{tokens[number]}", expected, **options)
            page.click("main button")
            return Tab(page)

        return folder, opened

    return start
