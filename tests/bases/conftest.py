"""Every test of this folder runs for every base: a new one is a line in `BUILD`, and one in `PUBLISHED`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.data.samples.batch import Batch
from helpers.base_cases import Case, batch_of, make_case
from helpers.tiny_bases import BUILD


@pytest.fixture(scope="session", params=BUILD)
def case(request: pytest.FixtureRequest, tiny_base: Callable[[str], Path]) -> Case:
    """Each base; tests change nothing of it but `.grad`."""
    return make_case(request.param, tiny_base(request.param))


@pytest.fixture(scope="session")
def batch() -> Batch:
    return batch_of(0, 1, 2)
