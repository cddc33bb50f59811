"""Which packages each extra brings, and which extras each command needs. Imports the standard library alone."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import requires
from importlib.util import find_spec

# Modules that are named otherwise than their package in lower case, with _ for -.
MODULES: Mapping[str, str] = {"open-clip-torch": "open_clip", "pillow": "PIL", "pyyaml": "yaml", "warp-lang": "warp"}
_REQUIREMENT = re.compile(r"""([\w.-]+)(?:\[([^\]]*)\])?.*\bextra\s*==\s*["']([^"']+)["']""")


def packages_of(extra: str) -> dict[str, str]:
    """Package to module for an extra and those that it includes, from the metadata of the installed fairhuman."""
    found: dict[str, str] = {}
    matches = map(_REQUIREMENT.match, requires("fairhuman") or ())
    for package, included, needed_by in (match.groups() for match in matches if match is not None):
        if needed_by == extra and package == "fairhuman":
            for inner in included.split(","):
                found |= packages_of(inner.strip())
        elif needed_by == extra:
            found[package] = MODULES.get(package, package.lower().replace("-", "_"))
    return found


NAMES = ("train", "synth", "data", "evaluate", "web", "cluster", "detect", "eightbit", "wandb")
EXTRAS: Mapping[str, Mapping[str, str]] = {name: packages_of(name) for name in NAMES}

# A command of a group that needs something else than the group stands under its whole name.
COMMANDS: Mapping[str, Sequence[str]] = {
    "doctor": (),
    "data": ("data",),
    "data review": ("web",),
    "study": ("web",),
    "train": ("train",),
    "sample": ("train",),
    "synth": ("synth",),
    "demo": ("train", "synth", "evaluate"),
    "refine": ("train", "detect"),
    "evaluate": ("evaluate",),
    "losses": ("train",),
    "grid": ("train",),
    "compare": ("train", "synth", "evaluate"),
    "cost": ("train",),
    "paper": ("train",),
    "bench": ("train",),
}


def command_of(arguments: Sequence[str]) -> str | None:
    """The key of `COMMANDS` that a command line names; None if there is none."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), None)


def missing_extra(module: str, arguments: Sequence[str]) -> str | None:
    """One line that says which extra a command lacks; None where a missing module is no question of extras.

    `module` could not be imported; it is named as in `ModuleNotFoundError.name`.
    """
    top = module.partition(".")[0]
    if importable(top):  # then a part of it is missing, which no extra brings
        return None
    bringing = [extra for extra, packages in EXTRAS.items() if top in packages.values()]
    command = command_of(arguments)
    if command is None and bringing:
        extras = ", ".join(extra for extra, packages in EXTRAS.items() if "typer" in packages)
        return f"fairhuman's commands come with its extras ({extras}), such as pip install 'fairhuman[train]'"
    needed = COMMANDS[command or "doctor"]
    if bringing and not set(bringing) & set(needed):
        needed = bringing[:1]  # a part of the command that not everybody uses, such as tracking with wandb
    lacking = [extra for extra in needed if missing(extra)]
    if not lacking:
        return None
    named = ", ".join(f"'{extra}'" for extra in lacking)
    extras = "extra" if len(lacking) == 1 else "extras"
    return f"fairhuman {command} needs the {named} {extras}: pip install 'fairhuman[{','.join(lacking)}]'"


def missing(extra: str) -> list[str]:
    """Packages of an extra that are not there."""
    return [package for package, module in EXTRAS[extra].items() if not importable(module)]


def importable(module: str) -> bool:
    """Whether a module is there; imports nothing."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # of sys.modules, where somebody has put None or a module without a spec
        return False
