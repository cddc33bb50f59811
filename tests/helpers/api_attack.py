"""Requests that schemathesis thinks of, against a server."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings


def attack(
    address: str,
    description: Mapping[str, Any],
    examples: int,
    phases: Sequence[Phase],
    checks: Sequence[Any],
    change: Callable[[Any, int], None] | None = None,
) -> int:
    """Send examples to every operation of an OpenAPI description; how many were sent.

    `change(case, number)` may change each of them. A check that fails ends it.
    """
    import schemathesis

    sent = 0
    for result in schemathesis.openapi.from_dict(description).get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=examples, phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        def check(case):
            nonlocal sent
            sent += 1
            if change is not None:
                change(case, sent)
            case.call_and_validate(base_url=address, headers={"Origin": address}, checks=checks, allow_redirects=False)

        check()
    return sent
