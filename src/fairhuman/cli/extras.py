"""Packages of each extra, and extras that each command needs. Imports only the standard library."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import requires
from importlib.util import find_spec

# Modules whose name isn't that of the package in lower case with _ for -.
MODULES: Mapping[str, str] = {
    "open-clip-torch": "open_clip",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "warp-lang": "warp",
}
_REQUIREMENT = re.compile(r"""([\w.-]+)(?:\[([^\]]*)\])?.*\bextra\s*==\s*["']([^"']+)["']""")


def packages_of(extra: str) -> dict[str, str]:
    """Package to module, for an extra and the extras it includes, from the metadata of the installed fairhuman."""
    found: dict[str, str] = {}
    matches = map(_REQUIREMENT.match, requires("fairhuman") or ())
    for package, included, needed_by in (match.groups() for match in matches if match is not None):
        if needed_by == extra and package == "fairhuman":
            for inner in included.split(","):
                found |= packages_of(inner.strip())
        elif needed_by == extra:
            found[package] = MODULES.get(package, package.lower().replace("-", "_"))
    return found


OF_COMMANDS = ("train", "synth", "data", "evaluate", "web", "cluster")
NAMES = (*OF_COMMANDS, "detect", "official", "balancers", "eightbit", "wandb", "postgresql", "cli")
EXTRAS: Mapping[str, Mapping[str, str]] = {name: packages_of(name) for name in NAMES}

# A command whose needs differ from those of its group is listed by its full name.
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
    "merge": ("train",),
    "evaluate": ("evaluate",),
    "losses": ("train",),
    "grid": ("train",),
    "compare": ("train", "synth", "evaluate"),
    "reproduce": ("train", "synth", "evaluate"),
    "cost": ("train",),
    "paper": ("train",),
    "bench": ("train",),
    "studio": ("web", "data"),
    "settings": ("cli",),
}


def command_of(arguments: Sequence[str]) -> str | None:
    """The key of `COMMANDS` that a command line refers to; None if there is none."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), None)


def missing_extra(module: str, arguments: Sequence[str]) -> str | None:
    """One line that says which extra a command lacks; None if no extra has the missing module.

    Args:
        module: the module that could not be imported, as in `ModuleNotFoundError.name`.
        arguments: of the command line.
    """
    top = module.partition(".")[0]
    if importable(top):  # then a submodule is missing, which no extra provides
        return None
    providing = [extra for extra, packages in EXTRAS.items() if top in packages.values()]
    command = command_of(arguments)
    if command is None and providing:
        extras = ", ".join(OF_COMMANDS)
        return f"fairhuman's commands come with its extras ({extras}), such as pip install 'fairhuman[train]'"
    needed = COMMANDS[command or "doctor"]
    if providing and not set(providing) & set(needed):
        needed = providing[:1]  # an optional feature of the command, such as tracking with wandb
    lacking = [extra for extra in needed if missing(extra)]
    if not lacking:
        return None
    named = ", ".join(f"'{extra}'" for extra in lacking)
    extras = "extra" if len(lacking) == 1 else "extras"
    return f"fairhuman {command} needs the {named} {extras}: pip install 'fairhuman[{','.join(lacking)}]'"


def missing(extra: str) -> list[str]:
    """Packages of an extra that can't be imported."""
    return [package for package, module in EXTRAS[extra].items() if not importable(module)]


def importable(module: str) -> bool:
    """Whether a module can be found; imports nothing."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # sys.modules holds None or a module without a spec
        return False
