"""Render a data set of synthetic people and show the progress."""

from pathlib import Path

from fairhuman.synth.people import missing_tables, write_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.synth.summary import summarize_people
from fairhuman.utils.display import Display


def render_people(out: Path, settings: SynthSettings, display: Display, workers: int | None = None) -> None:
    """Render the missing pictures of a set with `workers` processes (default: one per core), and print a summary.

    Raises:
        DataError, FairHumanError: as for `write_people`.
    """
    missing = sum(map(len, missing_tables(out, settings).values()))
    if 0 < missing < settings.count:
        display.say(f"{out}: resuming, {settings.count - missing} pictures are finished")
    with display:
        write_people(
            out, settings, workers, lambda done: display.progress("rendering", done, settings.count), display.say
        )
    for line in summarize_people(out).lines():
        display.say(line)
    display.say(f"done: {out}")
