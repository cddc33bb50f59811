"""What commands say; apart, so that commands which start fast can say it too."""

from collections.abc import Mapping

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a text as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def say_counts(console: Console, counts: Mapping[str, Mapping[str, int]], before: str = "") -> None:
    """Print how often what was done to the data, and why: `LoadReport.counts`, a line a reason."""
    for action, reasons in counts.items():
        for reason, number in reasons.items():
            say(console, f"{before}{action}: {reason} ({number})")
