"""The package and its extras have wheels for Linux, macOS and Windows on each Python: the versions that
are tested together where Python is a tested one, any that fit elsewhere.

uv asks the index that pip is set up to ask.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from helpers.pins import pins
from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where all resolve together, each does alone.
CHOICES = {
    "none": [],
    "all but official": sorted(PROJECT["optional-dependencies"].keys() - {"official"}),
    "official": ["official"],
}
CLASSIFIER = "Programming Language :: Python :: "
TESTED = [each.removeprefix(CLASSIFIER) for each in PROJECT["classifiers"] if each.startswith(CLASSIFIER)]
NEWEST = "3.14"  # that the pinned torch has wheels for; it isn't tested, but `requires-python` admits it
# What doesn't resolve, by extra and Python, and what uv says of it.
EXCEPTIONS = {
    ("official", "3.13"): "mediapipe==0.10.21 has no wheels with a matching Python ABI tag",
    ("official", "3.14"): "mediapipe==0.10.21 has no wheels with a matching Python ABI tag",
}
Asked = subprocess.CompletedProcess[str]


def index_of_pip() -> Mapping[str, str]:
    """The index that pip asks, as uv is told of it; none where pip asks its usual one."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^[^.]*\.index-url='(.+)'$", listed, re.MULTILINE)  # the environment's comes first
    return {} if found is None else {"UV_DEFAULT_INDEX": found[1]}


@pytest.fixture(scope="module")
def resolve() -> Callable[..., Asked]:
    """`resolve(file, "--option", ...)` runs `uv pip compile`; where no index answers tests skip, on CI they fail."""
    from uv import find_uv_bin

    # The least macOS that torch and bitsandbytes have wheels for.
    environment = {**index_of_pip(), **os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}

    def ask(*arguments: str) -> Asked:
        command = [find_uv_bin(), "pip", "compile", *arguments, "--only-binary", ":all:", "--quiet", "--no-header"]
        return subprocess.run(
            command, cwd=ROOT, env=environment, input="packaging", capture_output=True, text=True, check=False
        )

    reached = ask("-")
    if "Failed to fetch" in reached.stderr:
        message = f"needs the package index: {reached.stderr.strip().splitlines()[-1].strip()}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    assert reached.returncode == 0, reached.stderr
    return ask


@pytest.mark.slow
@pytest.mark.parametrize("python", [*TESTED, NEWEST])
@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
@pytest.mark.parametrize("choice", CHOICES)
def test_extras_have_wheels(
    resolve: Callable[..., Asked], tmp_path: Path, choice: str, system: str, python: str
) -> None:
    pinned = pins("constraints.txt") if python in TESTED else {}
    pinned |= pins("constraints-official.txt") if choice == "official" else {}
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()), encoding="utf-8")
    extras = [option for extra in CHOICES[choice] for option in ("--extra", extra)]
    target = ["--python-platform", system, "--python-version", python]
    done = resolve("pyproject.toml", *extras, *target, "--constraints", str(constraints))
    if (choice, python) in EXCEPTIONS:
        assert EXCEPTIONS[choice, python] in " ".join(done.stderr.split())
    assert (done.returncode != 0) == ((choice, python) in EXCEPTIONS), done.stderr
