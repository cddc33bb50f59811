"""Which packages are installed, whether their versions are compatible, and whether they can be imported."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions, version
from typing import Any

from fairhuman.cli.extras import EXTRAS, importable

SECONDS = 300  # time limit for importing all packages
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class ExtraState:
    """Which packages of an extra are installed.

    Attributes:
        packages: the installed ones.
        missing: the others.
        half: whether the extra was installed in part: some packages are missing, and some can only come from it.
    """

    packages: Sequence[str]
    missing: Sequence[str]
    half: bool


def extra_states() -> dict[str, ExtraState]:
    """The state of every extra; nothing is imported."""
    explained = _explained()
    states = {}
    for name, packages in EXTRAS.items():
        there = [package for package, module in packages.items() if _there(package, module)]
        missing = [package for package in packages if package not in there]
        signs = [package for package in _signs(name) if package in there and _canonical(package) not in explained]
        states[name] = ExtraState(there, missing, bool(missing and signs))
    return states


def _signs(name: str) -> set[str]:
    """Packages of an extra that are in no other extra, except in extras that include all of it."""
    own = EXTRAS[name].keys()
    return set(own).difference(*(other.keys() for other in EXTRAS.values() if not own <= other.keys()))


def _there(package: str, module: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return importable(module)


def _explained() -> set[str]:
    """Canonical names of packages that are installed for another reason than an extra of fairhuman.

    Either another package requires them, or they were installed by name, which installers note in `REQUESTED`.
    """
    names = set()
    for one in distributions():
        name = _canonical(one.metadata["Name"] or "")
        if one.read_text("REQUESTED") is not None:
            names.add(name)
        if name != "fairhuman":
            names.update(_canonical(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in one.requires or [])
    return names


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def clashes() -> list[str] | None:
    """Requirements of torch, fairhuman and packages of its extras that the installed versions don't meet.

    A requirement of one of fairhuman's extras counts only if its package is installed. None if requirements can't be
    parsed, as neither packaging nor pip, which has a copy, is installed.
    """
    reader = _requirements_reader()
    if reader is None:
        return None
    problems = []
    for name in dict.fromkeys(["fairhuman", "torch", *(p for packages in EXTRAS.values() for p in packages)]):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for text in found.requires or []:
            problem = _unmet(found, reader(text), own=name == "fairhuman")
            if problem is not None:
                problems.append(problem)
    return list(dict.fromkeys(problems))


def _requirements_reader() -> Any:
    """The class `Requirement` of packaging, or of the copy inside pip; None if there is neither."""
    for name in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            return importlib.import_module(name).Requirement
        except ImportError:
            continue
    return None


def _unmet(found: Distribution, requirement: Any, own: bool) -> str | None:
    marker = str(requirement.marker or "")
    optional = _EXTRA.search(marker)
    if optional is not None and not own:
        return None
    extra = optional.group(1) if optional is not None else ""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return None
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        who = f"{found.metadata['Name']} {found.version}"
        return None if optional is not None else f"{who} needs {requirement.name}, which is not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    return f"{found.metadata['Name']} {found.version} needs {wanted}, and {installed} is installed"


def imports(modules: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Import modules in a separate process.

    Returns:
        A line for each device that torch can use; and each module that can't be imported, with the error.
    """
    command = [sys.executable, "-m", "fairhuman.cli.probe", *modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
        output, ending = done.stdout, f"ended the process with code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ending = (error.stdout or b"").decode(errors="replace"), f"took more than {SECONDS} s"
    devices: list[str] = []
    errors: dict[str, str] = {}
    began: str | None = None
    for line in map(_parsed, output.splitlines()):
        devices = line.get("devices", devices)
        began = line.get("start", began)
        if "module" in line:
            began = None
            if line["error"] is not None:
                errors[line["module"]] = line["error"]
    if began is not None:
        errors[began] = ending
    return devices, errors


def _parsed(line: str) -> Mapping[str, Any]:
    """A line of the probe; {} for output of a library."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
