"""Parts that users' own packages add by entry points: known by name, imported when a recipe names them."""

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fairhuman.errors import PluginError

STRATEGIES = "fairhuman.strategies"
SOURCES = "fairhuman.sources"
METRICS = "fairhuman.metrics"
DETECTORS = "fairhuman.detectors"
LEFT_OUT = {"torchjd:FAMO": "FAMO is left out on purpose, as it needs the losses once more after each step"}
_NOUNS = {STRATEGIES: "strategy", SOURCES: "source", METRICS: "metric", DETECTORS: "detector"}


def plugin_names(group: str) -> list[str]:
    """Names in a group of entry points; nothing is imported."""
    return sorted({one.name for one in entry_points(group=group)})


def check_name(name: str, known: Iterable[str], group: str) -> str:
    """Return a name that is known here or in a group of entry points.

    Raises:
        ValueError: it is neither; names the nearest one.
    """
    names = [*known, *plugin_names(group)]
    if name in names:
        return name
    if name in LEFT_OUT:
        raise ValueError(LEFT_OUT[name])
    near = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {near[0]!r}? It " if near else ""
    others = f"a {_NOUNS[group]} of an installed package (see fairhuman doctor)"
    raise ValueError(f"{hint}must be one of {', '.join(names)}, or {others}")


def plugin_package(group: str, name: str) -> str:
    """Name and version of the package that a part comes from; nothing is imported.

    Raises:
        PluginError: no package has it, or several have.
    """
    return _package(_entry_point(group, name))


@cache
def load_plugin(group: str, name: str) -> Any:
    """Import a part.

    Raises:
        PluginError: no package has it, or several have; or its module can't be imported. Names the package.
    """
    point = _entry_point(group, name)
    try:
        return point.load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise PluginError(f"{_shown(group, name)} of {_package(point)} can't be loaded: {why}") from error


def misfit(group: str, name: str, expected: str, found: object) -> PluginError:
    """The error for a plug-in that isn't what its group requires."""
    package = plugin_package(group, name)
    return PluginError(f"{_shown(group, name)} of {package} must be {expected}, found {found!r}")


def _entry_point(group: str, name: str) -> EntryPoint:
    found = tuple(entry_points(group=group, name=name))
    if len(found) == 1:
        return found[0]
    if not found:
        raise PluginError(f"no installed package has {_shown(group, name)}")
    packages = " and ".join(map(_package, found))
    raise PluginError(f"{_shown(group, name)} is in several packages, {packages}: uninstall all but one")


def _shown(group: str, name: str) -> str:
    return f"the {_NOUNS[group]} {name!r}"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
