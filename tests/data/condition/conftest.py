"""A depth model on disk, made once."""

import pytest

from helpers.tiny_depth import save_depth_model


@pytest.fixture(scope="session")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_depth_model(tmp_path_factory.mktemp("depth"))
