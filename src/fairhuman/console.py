"""What commands say; apart, so that commands which start fast can say it too."""

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a text as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
