"""What commands show while they work: bars on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from fairhuman.cli.console import PARTS, ConsoleDisplay


def test_without_a_terminal_a_stage_is_a_line_for_each_twentieth() -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    with ConsoleDisplay(console) as display:
        for done in range(0, 1001, 10):
            display.progress("draw", done, 1000, "loss 1")
            display.progress("read", done, None)
        display.status("not yet worth a line")
    lines = console.export_text().splitlines()
    assert lines[0] == "draw: 0/1000  loss 1"
    assert lines[-1] == "draw: 1000/1000  loss 1"
    assert [line for line in lines if line.startswith("read")] == ["read: 0"]
    assert len(lines) == PARTS + 2


def test_on_a_terminal_bars_and_status_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with ConsoleDisplay(console) as display:
        display.progress("draw", 3, 7)
        display.status("running [one]")
        display.say("a line [as it is]")
        with display:
            display.progress("write", 1, 2)
    shown = out.getvalue()
    assert all(text in shown for text in ("3/7", "running", "a line [as it is]", "1/2"))
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 3, "the cursor is shown again after each"
