"""What `make` does on machines with other Pythons, or without what the tests of the web pages need."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.places import ROOT

PYTHON = """#!/bin/sh
case $1 in
  -c) echo 3.12 ;;
  -m) mkdir -p .venv/bin; cp "$0" .venv/bin/python3.12; test -e ensurepip && cp "$0" .venv/bin/pip ;;
esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to run make in, with the only programs that it finds in `bin`."""
    (tmp_path / "bin").mkdir()
    for name in ("cp", "getconf", "id", "ls", "mkdir", "rm", "touch"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    (place / "bin" / name).write_text(text)
    (place / "bin" / name).chmod(0o755)


def make(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS", "PYTHON")}
    environment |= {"PATH": str(place / "bin"), **variables}
    command = [str(shutil.which("make")), "-f", str(ROOT / "Makefile"), *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


def test_the_first_python_that_is_there_is_taken(place: Path) -> None:
    for name in ("python3.13", "python3.12"):
        program(place, name, PYTHON)
        assert f"{place}/bin/{name} -m venv --clear .venv" in make(place, "-n", "demo").stdout
    assert "python3.13 -m venv" in make(place, "-n", "demo", "PYTHON=python3.13").stdout


def test_a_machine_without_python_is_told_so_where_one_is_needed(place: Path) -> None:
    done = make(place, "demo")
    assert done.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13 found" in done.stderr
    assert "make demo PYTHON=" in done.stderr
    done = make(place, "clean")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_environment_without_pip_is_made_anew(place: Path) -> None:
    """As on Debian before python3-venv is installed."""
    program(place, "python3.12", PYTHON)
    made = ".venv/.python-3.12"
    assert make(place, made).returncode != 0
    assert (place / ".venv" / "bin" / "python3.12").exists()
    (place / "ensurepip").touch()
    assert make(place, made).returncode == 0
    assert (place / ".venv" / "bin" / "pip").exists()


def test_packages_that_can_t_be_installed_are_named_and_stop_ci_alone(place: Path) -> None:
    program(place, "apt-get", "#!/bin/sh\nexit 100\n")
    done = make(place, "system-deps")
    assert done.returncode == 0
    assert "chromium can't be installed: the tests that need it are skipped" in done.stderr
    assert make(place, "system-deps", CI="true").returncode != 0
