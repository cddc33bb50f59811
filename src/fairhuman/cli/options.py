"""Options that several commands share, and functions that parse them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from typer import Argument, Option, echo

from fairhuman.errors import DataError, RecipeError

if TYPE_CHECKING:  # `--help` doesn't need it
    from pydantic import BaseModel

    from fairhuman.models.settings import BaseSettings


_PAGES = (".html", ".htm")
_WRITTEN = (*_PAGES, ".json", ".csv")  # and numbers, tables
_SETTING = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")


def find_recipe(path: Path | None) -> Path | None:
    """The recipe of a command, or the one that ships with the package; which of them is told on standard error."""
    from fairhuman.config import shipped

    found = None if path is None else shipped(path)
    if found is not None:
        echo(f"{path}: the one that ships with fairhuman", err=True)
    return found or path


def new_folder(path: Path) -> Path:
    """A command's output folder.

    Raises:
        RecipeError: it is a setting, so that the folder was left out.
    """
    if _SETTING.match(str(path)) and not path.exists():
        raise RecipeError(f"the folder to write, OUT, is missing: {str(path)!r} in its place is a setting")
    return path


def written_file(path: Path | None) -> Path | None:
    """A file that a command writes. It may replace a file of its own kind; any other file, and a folder, stays.

    Raises:
        RecipeError: it is a folder, or a file that ends in something else than a page, numbers or a table.
    """
    if path is None:
        return None
    if path.is_dir():
        raise RecipeError(f"{path}: is a folder; give the name of a file in it")
    if path.exists() and path.suffix.lower() not in _WRITTEN:
        raise RecipeError(f"{path}: is there already, and isn't replaced, as it doesn't end in {', '.join(_WRITTEN)}")
    return path


def page_settings(overrides: list[str] | None) -> list[str] | None:
    """Settings of a command that writes a page.

    Raises:
        RecipeError: one of them is the page's name.
    """
    for text in overrides or ():
        if "=" not in text and Path(text).suffix.lower() in _PAGES:
            raise RecipeError(f"{text}: the name of the page goes with --out: --out {text}")
    return overrides


DryRun = Annotated[bool, Option("--dry-run", help="Check, show what would be done, and write nothing.")]
Full = Annotated[bool, Option("--full", help="With --dry-run on a terminal: print settings at their default too.")]
PageOverrides = Annotated[
    list[str] | None, Argument(callback=page_settings, help="Settings as key=value or section.key=value.")
]
Overrides = Annotated[list[str] | None, Argument(help="Settings as key=value or section.key=value.")]
Recipe = Annotated[Path | None, Option(callback=find_recipe, help="YAML file of settings.")]
NewFolder = Annotated[Path, Argument(callback=new_folder, help="New folder, or one that this command started.")]
Prompts = Annotated[Path | None, Option(help="Text file with one prompt per line, or a data set with captions.")]
ControlNets = Annotated[list[str] | None, Option("--controlnet", help="[CONDITIONS=]FOLDER[@STRENGTH]; repeatable.")]
Adapters = Annotated[list[str] | None, Option("--t2i-adapter", help="The same for a T2I-adapter.")]
Numbers = Annotated[Path | None, Option(callback=written_file, help="JSON file for all numbers.")]
Workers = Annotated[int | None, Option(min=1, help="Number of processes; one per core by default.")]
Host = Annotated[str, Option(help="Address to listen on; 0.0.0.0 accepts other machines.")]
ProxyHeaders = Annotated[str | None, Option(help="Address or network of a proxy; its X-Forwarded headers are trusted.")]
Port = Annotated[int, Option(help="Port to listen on; 0 picks a free one.")]

Vae = Annotated[str | None, Option(help="Folder, file or hub id of a VAE in place of the model's own.")]
Prediction = Annotated[str | None, Option(help="epsilon, v or auto: what the U-Net predicts.")]
ZeroSnr = Annotated[str | None, Option(help="true, false or auto: whether noise ends in zero SNR; needs v.")]
Quantize = Annotated[
    str | None, Option(help="int8, fp8 or nf4: bits of the linear layers of network and text encoders; less memory.")
]

SkipMemoryCheck = Annotated[
    bool, Option("--skip-memory-check", help="Start without a GPU even if main memory seems too small.")
]

SettingsT = TypeVar("SettingsT", bound="BaseModel")


def settings_of(
    kind: type[SettingsT],
    origin: str,
    overrides: Sequence[str] | None,
    recipe: Path | None = None,
    given: Mapping[str, object] | None = None,
) -> SettingsT:
    """Settings of a recipe, then of the options that were given (not None), then of the overrides.

    Raises:
        RecipeError: a wrong setting; `origin` names the command where there is no recipe.
    """
    from fairhuman import config

    values = {name: value for name, value in (given or {}).items() if value is not None}
    if recipe is None:
        return config.build(kind, values, overrides or (), origin)
    return config.load(kind, recipe, overrides or (), values)


def check_existing(*paths: Path | None) -> None:
    """Check that files and folders exist, before modules are imported that take seconds.

    Raises:
        DataError: names the first that doesn't exist.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise DataError(f"{path}: there is no such file or folder")


def base_of(
    vae: str | None, prediction: str | None, zero_snr: str | None, quantize: str | None = None, offload: bool = False
) -> "BaseSettings":
    """Settings of the base model from the options of a command.

    Raises:
        RecipeError: a wrong value.
    """
    from fairhuman.models.settings import BaseSettings

    given = {"vae": vae, "prediction": prediction, "zero_snr": zero_snr, "quantize": quantize, "offload": offload}
    return settings_of(BaseSettings, "base", None, given=given)


def named_folders(named: Sequence[str] | None, option: str = "--method") -> dict[str, Path]:
    """Folders by name, from `NAME=FOLDER` or `FOLDER`; errors are those of `named_places`."""
    return {name: Path(place) for name, place in named_places(named, option).items()}


def named_places(named: Sequence[str] | None, option: str = "--method") -> dict[str, str]:
    """Places by name, from `NAME=PLACE` or `PLACE`, which is named after its last part.

    Raises:
        RecipeError: two of one name, or an empty name or place.
    """
    places: dict[str, str] = {}
    for text in named or ():
        name, sign, place = text.partition("=")
        if not sign:
            name, place = Path(text).resolve().name, text
        if not name or not place:
            raise RecipeError(f"{option}: expected FOLDER or NAME=FOLDER, found {text!r}")
        if name in places:
            raise RecipeError(f"{option}: two are named {name!r}; give each a name, as in {option} A={place}")
        places[name] = place
    return places
