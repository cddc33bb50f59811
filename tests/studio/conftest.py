"""A run's folder, and the studio that shows it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fairhuman.studio.app import create_studio_app
from fairhuman.studio.settings import StudioSettings
from helpers.run_folder import make_run

HERE = "http://127.0.0.1:8000"


class Client:
    """A browser without a page: what the addresses below the studio's secret answer."""

    def __init__(self, client: TestClient) -> None:
        self.client, self.root = client, client.app.state.root

    def get(self, path: str = "", **params):
        return self.client.get(f"{self.root}{path}", params=params or None)

    def post(self, path: str, body: object, **headers):
        return self.client.post(f"{self.root}{path}", json=body, headers={"origin": HERE, **headers})


@pytest.fixture(autouse=True)
def _secret_of_a_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor make the secret of the user who runs them."""
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "mpd")


@pytest.fixture
def opened() -> Iterator[Callable[..., Client]]:
    """`opened(path, ..., **settings)` opens the studio of these paths."""
    clients: list[TestClient] = []

    def make(*paths: Path, **settings) -> Client:
        client = TestClient(create_studio_app(paths, StudioSettings(**settings)), base_url=HERE)
        clients.append(client.__enter__())
        return Client(client)

    yield make
    for client in clients:
        client.__exit__(None, None, None)
