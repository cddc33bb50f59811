"""`fairhuman doctor`: check the installation, and list what each command lacks. Needs no extra."""

import argparse
import os
import platform
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from urllib.parse import urlsplit

from fairhuman import __version__
from fairhuman.cli.extras import COMMANDS, EXTRAS
from fairhuman.cli.packages import ExtraState, clashes, extra_states, imports
from fairhuman.utils.files import cache_folder, unwritable
from fairhuman.utils.plugins import DETECTORS, METRICS, SOURCES, STRATEGIES

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "safari")
MIB, GIB = 2**20, 2**30


@dataclass
class Report:
    """The result: lines by section title, and a line for each installed thing that is broken."""

    sections: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The report as a code block in Markdown."""
        lines = []
        for title, found in [*self.sections.items(), ("problems", self.problems or ["none"])]:
            lines.append((" " if len(found) == 1 else "\n  ").join([f"{title}:", *found]))
        return "\n".join(["```text", *lines, "```"])


def doctor() -> None:
    """Check the installation and list what each command lacks, ready to paste into a bug report.

    The exit code is 1 if something that is installed is broken. What isn't installed is listed but is no error.

    Example: fairhuman doctor
    """
    report = examine()
    print(report.text(), flush=True)
    if report.problems:
        raise SystemExit(1)


def main(arguments: Sequence[str]) -> None:
    """Run the command without typer, which may be missing."""
    parser = argparse.ArgumentParser(
        "fairhuman doctor", description=doctor.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    doctor()


def examine() -> Report:
    """Examine Python, packages, devices, memory, browser, hub and caches."""
    report = Report()
    states = extra_states()
    modules = dict.fromkeys(EXTRAS[name][package] for name, state in states.items() for package in state.packages)
    devices, broken = imports(["torch", *modules])
    sections, problems = report.sections, report.problems
    sections["fairhuman"] = [f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"]
    sections["torch"] = [_version("torch")]
    sections["devices"] = devices or ["none that works"]
    sections["memory"] = [_memory()]
    sections["extras"] = [f"{name}: {_state(name, state)}" for name, state in states.items()]
    sections["packages"] = [_packages(states)]
    sections["commands"] = _commands(states)
    sections["plug-ins"] = _plugins() or ["none"]
    sections["browser"] = [_browser()]
    sections["hub"] = [_hub()]
    sections["caches"] = []
    for name, folder in _caches().items():
        sections["caches"].append(f"{name}: {_shown(folder)}, {_size(folder)}")
        if problem := unwritable(folder):
            problems.append(f"cache {_shown(folder)} can't be written: {problem}")
    problems += [f"{module} can't be imported: {error}" for module, error in broken.items()]
    versions = clashes()
    if versions is None:
        sections["versions"] = ["not checked against each other, which needs packaging or pip"]
    problems += versions or []
    for name, state in states.items():
        if state.half:
            problems.append(
                f"half of the extra {name} is installed, {', '.join(state.missing)} missing: "
                f"pip install 'fairhuman[{name}]'"
            )
    return report


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _state(name: str, state: ExtraState) -> str:
    if not state.missing:
        return "installed"
    if state.half:
        return f"half installed, without {', '.join(state.missing)}"
    return f"not installed: pip install 'fairhuman[{name}]'"


def _packages(states: dict[str, ExtraState]) -> str:
    there = dict.fromkeys(package for state in states.values() for package in state.packages)
    return ", ".join(f"{package} {_version(package)}" for package in sorted(there, key=str.lower)) or "none"


def _commands(states: dict[str, ExtraState]) -> list[str]:
    """A line of the commands that are ready, then a line for each set of missing extras."""
    lacking = {name: [extra for extra in needed if states[extra].missing] for name, needed in COMMANDS.items()}
    lines = ["ready: " + ", ".join(name for name, extras in lacking.items() if not extras)]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, extras in lacking.items():
        if extras:
            groups.setdefault(tuple(extras), []).append(name)
    return [*lines, *(f"need {', '.join(extras)}: {', '.join(names)}" for extras, names in groups.items())]


def _plugins() -> list[str]:
    """Plug-ins of installed packages; none is loaded."""
    return [
        f"{point.name} of {point.group}, {point.dist.name} {point.dist.version}" if point.dist else point.name
        for group in (STRATEGIES, SOURCES, METRICS, DETECTORS)
        for point in entry_points(group=group)
    ]


def _memory() -> str:
    try:
        from fairhuman.utils.memory import available_bytes, main_memory_bytes

        whole = main_memory_bytes()
    except (ImportError, AttributeError, ValueError, OSError):  # not a Unix
        return "not known"
    free = available_bytes()
    available = "" if free is None else f", {free / GIB:.1f} GiB available"
    return f"{whole / GIB:.1f} GiB{available}; {os.cpu_count()} CPU cores"


def _browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return found or "none found here: reports are files that any browser opens"


def _hub() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "turned off by HF_HUB_OFFLINE: models come from folders and the cache alone"
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    host, port = address.hostname or "huggingface.co", address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return f"{host} can't be reached ({error}): models come from folders and the cache alone"
    return f"{host} can be reached"


def _caches() -> dict[str, Path]:
    """Folders in which fairhuman and its libraries keep files."""
    user = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    hub = Path(os.environ.get("HF_HOME", user / "huggingface")) / "hub"
    caches = {"fairhuman": cache_folder(), "models of the hub": Path(os.environ.get("HF_HUB_CACHE", hub))}
    if "WARP_CACHE_PATH" in os.environ:
        caches["warp"] = Path(os.environ["WARP_CACHE_PATH"])
    return caches


def _shown(path: Path) -> str:
    """A path without the user's name, as the report may be posted in public."""
    home = Path.home()
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "not made yet"
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 a cache may have a million files
            except OSError:  # gone in the meantime
                continue
    return f"{total / MIB:.0f} MiB"


if __name__ == "__main__":
    main(sys.argv[1:])
