"""Reports that commands write here have no curves, which take a second a run to draw: `tests/report` draws them."""

import pytest


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairhuman.report.html.to_svg", lambda _: b"<svg/>")
