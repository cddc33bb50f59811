"""The body model, loaded once; on a machine that hasn't it, one process makes it (a minute or two), the others wait."""

import pytest

from fairhuman.synth.body import Body


@pytest.fixture(scope="session")
def body() -> Body:
    return Body()
