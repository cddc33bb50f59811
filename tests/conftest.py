"""Fixtures that all tests share."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairhuman.cli import main


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and bad files beside the checkout; tests that need it skip where it is missing."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the photos in {folder / 'data'}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run side by side, a process a core, on tensors too small to be worth sharing out."""
    torch.set_num_threads(1)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`typed("grid", folder)` runs `fairhuman grid FOLDER` here; exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["fairhuman", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        return code, *capsys.readouterr()

    return run
