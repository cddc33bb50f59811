"""`fairhuman` in a process that sees some of the installed packages alone.

`python hidden.py PACKAGE,PACKAGE ARGUMENTS ...` runs the command line, `python hidden.py PACKAGES -c CODE` runs code.
Other packages are neither found by `importlib.metadata` nor imported.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(packages: Iterable[str]) -> set[str]:
    """Packages and all that they require here, by canonical name."""
    from packaging.requirements import Requirement  # here, as the process below must not have imported it

    found: set[tuple[str, str]] = set()
    todo = [(canonical(name), "") for name in packages]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        try:
            requires = list(map(Requirement, metadata.requires(name) or []))
        except metadata.PackageNotFoundError:
            continue
        found.add((name, extra))
        for one in requires:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                todo += [(canonical(one.name), inner) for inner in ("", *one.extras)]
    return {name for name, _ in found}


def run_seeing(packages: Iterable[str], *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own."""
    command = [sys.executable, __file__, ",".join(packages), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


class SomeOf:
    """A finder of modules and distributions that finds none of those hidden."""

    def __init__(self, finder: Any, modules: set[str], packages: set[str]) -> None:
        self._finder, self._modules, self._packages = finder, modules, packages

    def find_spec(self, name: str, *arguments: Any) -> Any:
        return None if name.partition(".")[0] in self._modules else self._finder.find_spec(name, *arguments)

    def find_distributions(self, *arguments: Any) -> Iterator[metadata.Distribution]:
        for one in self._finder.find_distributions(*arguments):
            if canonical(one.metadata["Name"]) not in self._packages:
                yield one

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide_all_but(packages: set[str]) -> None:
    """From now on, in this process."""
    seen = {*packages, "fairhuman"}
    owners = {name: set(map(canonical, found)) for name, found in metadata.packages_distributions().items()}
    modules = {name for name, found in owners.items() if not found & seen}
    hidden = {canonical(one.metadata["Name"]) for one in metadata.distributions()} - seen
    sys.meta_path[:] = [
        SomeOf(finder, modules, hidden) if hasattr(finder, "find_distributions") else finder for finder in sys.meta_path
    ]


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    hide_all_but({canonical(name) for name in sys.argv[1].split(",")})
    if sys.argv[2:3] == ["-c"]:
        exec(sys.argv[3])
    else:
        sys.argv = ["fairhuman", *sys.argv[2:]]
        from fairhuman.cli import main

        main()
