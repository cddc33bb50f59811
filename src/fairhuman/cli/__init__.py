"""The command line: one file per group of commands.

Importing this package takes the standard library alone: `main` loads the rest, and names the extra that is missing.
"""

import os
import sys


def main() -> None:
    """Run the command line: exit code 0, 1 for a failure, 2 for wrong usage, 128 + n after signal n."""
    try:
        _run(sys.argv[1:])
    except BrokenPipeError:  # nobody reads on, such as `| head`; Python flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["doctor"]:  # works without typer, and where an installation is broken
        from fairhuman.cli.doctor import main as doctor

        doctor(arguments[1:])
        return
    try:
        from fairhuman.cli.app import run

        run()
    except ModuleNotFoundError as error:
        from fairhuman.cli.extras import missing_extra

        line = missing_extra(error.name or "", arguments)
        if line is None:
            raise
        sys.exit(line)
