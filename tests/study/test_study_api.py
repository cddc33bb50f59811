"""The API against its description: whatever schemathesis thinks of, no 5xx and nothing that isn't described."""

import json
from urllib.request import urlopen

import httpx2
import pytest
from hypothesis import Phase
from starlette.routing import Route

from fairhuman.study import app
from fairhuman.study.api import openapi_document
from helpers.api_attack import attack


@pytest.fixture
def described(study_folder, make_app, serving, monkeypatch):
    """Address, a token with consent, and the description as schemathesis reads it."""
    monkeypatch.setattr(app, "STRANGER_LIMIT", (10_000, 1.0))
    monkeypatch.setattr(app, "PARTICIPANT_LIMIT", (100_000, 1.0))
    made, tokens = make_app(study_folder(), open_link=True)
    address = serving(made)
    assert httpx2.post(f"{address}/p/{tokens[0]}/consent", headers={"origin": address}).status_code == 303
    with urlopen(f"{address}/api.json", timeout=30) as answer:
        return address, tokens[0], json.load(answer)


def attacked(described, examples: int, phases: tuple[Phase, ...]) -> int:
    """Send examples to every operation, most with a real link; how many were sent."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    address, token, description = described

    def with_link(case, number: int) -> None:
        if "token" in case.path_parameters and number % 4:
            case.path_parameters["token"] = token

    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    return attack(address, description, examples, phases, checks, with_link)


def test_no_example_breaks_the_api(described):
    assert attacked(described, 15, (Phase.generate,)) > 60


@pytest.mark.slow
def test_no_example_of_many_breaks_the_api(described):
    assert attacked(described, 400, tuple(Phase)) > 1000


def test_every_route_for_participants_is_described(study_folder, make_app):
    made, _ = make_app(study_folder())
    routes = {route.path for route in made.routes if isinstance(route, Route)}
    for_the_researcher = {"/admin/{token}", "/admin/{token}/places/{number}/free"}
    assert routes - {"/api.json", *for_the_researcher} == set(openapi_document("x")["paths"])
