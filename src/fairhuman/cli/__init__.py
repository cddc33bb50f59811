"""The command line, a file a group of commands.

Importing this package takes the standard library alone: `main` loads the rest, and names the extra that is missing.
"""


def main() -> None:
    """Run the command line: exit code 0, 1 for a failure, 2 for wrong usage, 128 + n after signal n."""
    from fairhuman.cli.app import run

    run()
