"""Every extra has wheels for Linux, macOS and Windows on each Python: uv asks the package index."""

import os
import shutil
import subprocess
import tomllib

import pytest

from helpers.places import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13")
ELSEWHERE = {"dev"}  # work on this repository: what it tests with needn't be there on Windows
AT_MOST = {"official": "3.12"}  # MediaPipe 0.10.21 has no wheels for later ones


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - ELSEWHERE))
def test_an_extra_has_wheels(extra: str, system: str, python: str) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv: pip install uv")
    options = ["--extra", extra, "--python-platform", system, "--python-version", python]
    command = [uv, "pip", "compile", "pyproject.toml", *options, "--only-binary", ":all:", "--quiet"]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # the least that bitsandbytes has wheels for
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if "Failed to fetch" in done.stderr:
        pytest.skip(f"needs the package index: {done.stderr.splitlines()[0]}")
    expected = PYTHONS.index(python) <= PYTHONS.index(AT_MOST.get(extra, PYTHONS[-1]))
    assert (done.returncode == 0) == expected, done.stderr
