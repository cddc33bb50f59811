"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and bad files beside the checkout; tests that need it skip where it is missing."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the photos in {folder / 'data'}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Results must not depend on the number of cores, and two test runs must fit one machine."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
