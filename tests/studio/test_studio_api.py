"""Every address of the studio against whatever schemathesis thinks of: no 5xx but 503 while a data set is read."""

import inspect
from pathlib import Path

import pytest
from hypothesis import Phase

from fairhuman.studio.app import create_studio_app
from fairhuman.studio.settings import StudioSettings
from helpers.api_attack import attack
from helpers.run_folder import make_run
from helpers.tiny_pictures import encoded, picture

VALUES = ["mpd", "photos", "0", "-1", "9" * 30, "kept", "has", "../..", "\0", "\ud7ff"]
QUERY = ("name", "run", "number", "points", "first", "file", "group", "state", "below", "of", "like", "draw", "key")
STARTS = ("/api/start", "/api/resume", "/api/plan")  # processes


def described(app, review: str) -> dict:
    """An OpenAPI description of the app's routes, at its own secrets; any answer conforms to it."""
    query = [
        {"name": name, "in": "query", "schema": {"anyOf": [{"enum": VALUES}, {"type": "string"}]}} for name in QUERY
    ]
    secrets = {"token": app.state.root.removeprefix("/s/"), "review": review}
    paths = {}
    for route in app.routes:
        if not getattr(route, "path", "").startswith(("/s/", "/r/")) or route.path.endswith(STARTS):
            continue
        operation = {"responses": {"default": {"description": "any"}}}
        if "POST" in route.methods:
            kind = inspect.getclosurevars(inspect.unwrap(route.endpoint)).nonlocals.get("kind")
            if kind is not None:
                content = {"application/json": {"schema": kind.model_json_schema()}}
                operation["requestBody"] = {"required": True, "content": content}
        else:
            operation["parameters"] = query
        method = "post" if "POST" in route.methods else "get"
        paths.setdefault(route.path.format(**secrets), {})[method] = operation
    return {"openapi": "3.0.3", "info": {"title": "studio", "version": "1"}, "paths": paths}


@pytest.fixture
def served(tmp_path: Path, serving):
    """Address of a studio with a run and a data set under review, and the description of its routes."""
    make_run(tmp_path / "mpd", steps=20)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0.png").write_bytes(encoded(picture(64, 48, 0)))
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png", "caption": "a person", "faces": [[4, 5, 20, 25]]}')
    app = create_studio_app([tmp_path], StudioSettings())
    address = serving(app)
    import httpx2

    opened = httpx2.get(f"{address}{app.state.root}/reviews?name=photos")
    return address, described(app, opened.headers["location"].rpartition("/r/")[2])


def attacked(served, examples: int, phases: tuple[Phase, ...]) -> int:
    from schemathesis.checks import not_a_server_error

    def no_server_error(context, response, case):
        """No 5xx but the answer to come back when the data set is read."""
        reading = response.status_code == 503 and response.headers.get("retry-after") == ["1"]
        assert not reading or "still being read" in response.text
        return reading or not_a_server_error(context, response, case)

    return attack(*served, examples, phases, [no_server_error])


def test_no_example_breaks_the_studio(served):
    assert attacked(served, 2, (Phase.generate,)) > 60


@pytest.mark.slow
def test_no_example_of_many_breaks_the_studio(served):
    assert attacked(served, 150, tuple(Phase)) > 4000
