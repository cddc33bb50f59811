"""The API against its description: whatever schemathesis thinks of, no 5xx and nothing that isn't described."""

import json
from urllib.request import urlopen

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.routing import Route

from fairhuman.study import app
from fairhuman.study.api import openapi_document


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


def attack(described, examples: int, phases: tuple[Phase, ...]) -> int:
    """Send examples to every operation, half with a real link; how many were sent."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    address, token, description = described
    schema = schemathesis.openapi.from_dict(description)
    sent = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=examples, phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        def check(case):
            nonlocal sent
            sent += 1
            if "token" in case.path_parameters and sent % 4:
                case.path_parameters["token"] = token
            case.call_and_validate(base_url=address, headers={"Origin": address}, checks=checks, allow_redirects=False)

        check()
    return sent


def test_no_example_breaks_the_api(described):
    assert attack(described, 15, (Phase.generate,)) > 60


@pytest.mark.slow
def test_no_example_of_many_breaks_the_api(described):
    assert attack(described, 400, tuple(Phase)) > 1000


def test_every_route_for_participants_is_described(study_folder, make_app):
    made, _ = make_app(study_folder())
    routes = {route.path for route in made.routes if isinstance(route, Route)}
    for_the_researcher = {"/admin/{token}", "/admin/{token}/places/{number}/free"}
    assert routes - {"/api.json", *for_the_researcher} == set(openapi_document("x")["paths"])
