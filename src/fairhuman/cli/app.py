"""The commands of `fairhuman`, and its exit codes. No command imports torch before it runs."""

import errno
import sys
from typing import Annotated

from typer import Exit, Option, Typer, echo

from fairhuman import __version__
from fairhuman.cli.bench import bench
from fairhuman.cli.compare import compare, cost, grid, paper, reproduce
from fairhuman.cli.data import data_app
from fairhuman.cli.demo import demo
from fairhuman.cli.doctor import doctor
from fairhuman.cli.evaluate import evaluate, losses
from fairhuman.cli.merge import merge
from fairhuman.cli.refine import refine
from fairhuman.cli.sample import sample
from fairhuman.cli.settings import settings
from fairhuman.cli.studio import studio
from fairhuman.cli.study import study_app
from fairhuman.cli.synth import synth
from fairhuman.cli.train import train
from fairhuman.errors import FairHumanError, RecipeError
from fairhuman.utils.parse import escape_control

FULL = (errno.ENOSPC, errno.EDQUOT)  # without a file's name where one was written on and on

app = Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")
for command in (
    train,
    sample,
    synth,
    demo,
    refine,
    merge,
    evaluate,
    losses,
    grid,
    compare,
    reproduce,
    cost,
    paper,
    bench,
    studio,
    settings,
    doctor,
):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        echo(f"fairhuman {__version__}")
        raise Exit


@app.callback()
def _root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Fine-tune SDXL, SD 3.5, Z-Image, FLUX, Qwen-Image or Lumina so that faces and hands come out right.

    The rest of the picture isn't spoiled.
    """


def _say_error(text: str) -> None:
    """Print an error; names of files and values in it may hold sequences that a terminal obeys."""
    echo(escape_control(f"error: {text}", keep="\n"), err=True)


def run() -> None:
    """Run the command line: exit code 0, 1 for a failure, 2 for wrong usage, 128 + n after signal n."""
    try:
        app()
    except FairHumanError as error:
        _say_error(str(error))
        sys.exit(2 if isinstance(error, RecipeError) else 1)
    except MemoryError:
        _say_error("it takes more memory than there is; give smaller files, or a machine with more memory")
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        _say_error(f"{where}{error.strerror or error}")
        sys.exit(1)
