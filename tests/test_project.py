"""The project's own files: what an install needs."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OPTIONAL = {"wandb", "bitsandbytes"}  # the user's choice; nothing here is tested with them


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+", line)]
    assert not wrong, "constraints.txt holds names and versions alone"
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_every_direct_dependency_is_pinned_within_its_range_and_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    wanted += [Requirement(text) for extra in project["optional-dependencies"].values() for text in extra]
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    pinned = pins()
    for requirement in wanted:
        if requirement.name == project["name"]:
            continue  # one extra names another
        assert re.search(rf"\b{re.escape(requirement.name)}\b", explained), requirement.name
        if requirement.name not in OPTIONAL:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_every_folder_of_tests_is_looked_into(request: pytest.FixtureRequest) -> None:
    """By default pytest leaves out those named `build`, without a word."""
    patterns = request.config.getini("norecursedirs")
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    names = {part for folder in folders for part in folder.relative_to(ROOT).parts}
    assert "build" in names
    assert not [name for name in names for pattern in patterns if fnmatch.fnmatch(name, pattern)]


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Else one of the two is not collected, which shows only where both are run at once."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)


def test_the_readme_s_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
