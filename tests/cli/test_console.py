"""What commands show while they work: a line that is rewritten on a terminal, lines now and then elsewhere."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fairhuman import config
from fairhuman.cli import app as command_line
from fairhuman.cli.console import SECONDS, ConsoleDisplay, clock
from fairhuman.errors import DataError
from fairhuman.models.settings import LoraSettings
from fairhuman.train.preflight import StartFinding
from fairhuman.train.recipe import TrainRecipe


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def test_without_a_terminal_a_stage_is_a_line_every_thirty_seconds(clocked: Clock) -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    display = ConsoleDisplay(console)
    for done in range(0, 1001, 10):
        clocked.now = done / 10
        display.progress("draw", done, 1000, "loss 1")
        display.progress("read", done, None)
    lines = console.export_text().splitlines()
    assert [line for line in lines if line.startswith("draw")] == [
        "draw 0/1000  0:00:00  loss 1",
        "draw 300/1000  0:00:30, 0:01:10 left  loss 1",
        "draw 600/1000  0:01:00, 0:00:40 left  loss 1",
        "draw 900/1000  0:01:30, 0:00:10 left  loss 1",
        "draw 1000/1000  0:01:40  loss 1",
    ]
    assert [line for line in lines if line.startswith("read")][:2] == ["read 0  0:00:00", "read 300  0:00:30"]


def test_a_status_is_a_line_after_thirty_silent_seconds(clocked: Clock) -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    display = ConsoleDisplay(console)
    display.status("not yet worth a line")
    clocked.now = SECONDS
    display.status("now")
    assert console.export_text() == "now\n"


def test_a_command_may_know_better_what_is_left_and_a_stage_may_begin_again(clocked: Clock) -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    display = ConsoleDisplay(console)
    display.progress("training", 7, 9, left=3700.4)
    display.progress("training", 9, 9)
    clocked.now = 3.0
    display.progress("training", 0, 9)
    lines = ["training 7/9  0:00:00, 1:01:40 left", "training 9/9  0:00:00", "training 0/9  0:00:00"]
    assert console.export_text().splitlines() == lines
    assert clock(36_061) == "10:01:01"


def test_the_clock_of_a_stage_stops_when_all_is_done(clocked: Clock) -> None:
    display = ConsoleDisplay(Console(file=io.StringIO()))
    display.progress("previews", 0, 9)
    clocked.now = 5.0
    display.progress("previews", 9, 9)
    clocked.now = 65.0
    assert display._stages["previews"].line() == "previews 9/9  0:00:05"


def test_the_times_of_a_long_run_survive_80_columns(clocked: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    display = ConsoleDisplay(Console(file=out, force_terminal=True, width=80))
    text = "loss 0.0612  12.3 pictures/s  global w 2.59  face 0.156 (w 0.22 in 100 %)"
    with display:
        clocked.now = 36_000.0
        display.progress("training", 12_345, 50_000, text, left=40_000.0)
    shown = out.getvalue()
    assert "training 12345/50000  0:00:00, 11:06:40 left  loss 0.0612  12.3 pictures/s" in shown
    assert "w 0.22 in 100 %)" in shown, "on a second line"


def test_on_a_terminal_stages_and_status_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("terminal", [False, True])
def test_a_dry_run_is_short_on_a_terminal_and_ends_with_a_verdict(terminal: bool) -> None:
    """Elsewhere all settings are printed; what is printed is read as the same settings, comment and all."""
    settings = LoraSettings(rank=3, title="a: b")
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=terminal, color_system=None)
    display = ConsoleDisplay(console)
    display.settings(settings, full=False)
    text, empty, _ = console.export_text(clear=False).partition("\n\n")
    assert (yaml.safe_load(text), empty) == (
        settings.model_dump(include={"rank", "title"}) if terminal else settings.model_dump(mode="json"),
        "\n\n",
    )
    assert ("--full prints all" in text) == terminal
    assert LoraSettings.model_validate(yaml.safe_load(text)) == settings
    missing = StartFinding("data", "missing", "nowhere")
    assert display.verdict([StartFinding("model", "ok", "small"), missing, missing]) == 1
    assert display.verdict([StartFinding("hours", "note", "unknown")]) == 0
    lines = console.export_text().splitlines()[-2:]
    assert (lines == ["can't start here, missing: data", "can start now"]) == terminal


def test_full_prints_all_on_a_terminal_too() -> None:
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    ConsoleDisplay(console).settings(LoraSettings(rank=3), full=True)
    assert yaml.safe_load(console.export_text())["dropout"] == 0


def test_settings_are_short_only_if_they_are_read_as_the_same() -> None:
    """One person isn't mirrored unless set: the default, once set, can't be left out."""
    recipe = TrainRecipe(data=Path("a"), out=Path("b"), steps=1, subject="person")
    short = config.to_short_yaml(recipe)
    assert short is not None
    assert config.build(TrainRecipe, yaml.safe_load(short)) == recipe
    set_again = TrainRecipe(data=Path("a"), out=Path("b"), steps=1, subject="person", view={"flip_probability": 0.5})
    assert config.to_short_yaml(set_again) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("a\x1b[2J.png: is\rbad\nsecond line"), "error: a\\x1b[2J.png: is\\rbad\nsecond line\n"),
        (OSError(2, "No such file", "a\x1b[2J\n.png"), "error: a\\x1b[2J\n.png: No such file\n"),
        (
            MemoryError(),
            "error: it takes more memory than there is; give smaller files, or a machine with more memory\n",
        ),
    ],
)
def test_an_error_tells_the_terminal_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", fail)
    with pytest.raises(SystemExit, match="1"):
        command_line.run()
    assert capsys.readouterr().err == said


def test_control_characters_of_names_reach_no_terminal() -> None:
    file = io.StringIO()
    display = ConsoleDisplay(Console(width=80, file=file))
    display.say("a\x1b]0;x\x07b\nnext\N{NO-BREAK SPACE}line")
    display.progress("reading", 1, 1, "c\x1b[2J")
    assert file.getvalue().splitlines() == [
        r"a\x1b]0;x\x07b",
        "next\N{NO-BREAK SPACE}line",
        r"reading 1/1  0:00:00  c\x1b[2J",
    ]


DISPLAY = """
from fairhuman.cli.console import ConsoleDisplay
display = ConsoleDisplay()
for _ in range(3):
    display.say("a line")
sys.stderr.write("done")
"""
DOCTOR = """
from fairhuman.cli import doctor, main
doctor.examine = lambda: doctor.Report({"devices": ["cpu"]})
sys.argv = ["fairhuman", "doctor"]
main()
"""


@pytest.mark.parametrize(("code", "ended"), [(DISPLAY, (0, "done")), (DOCTOR, (1, ""))])
def test_only_the_printing_ends_when_nobody_reads_on(code: str, ended: tuple[int, str]) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()\n" + code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate("")
    assert (process.returncode, said) == ended
