"""`fairhuman doctor` on whole and on broken installations."""

import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from fairhuman.cli import doctor, packages
from fairhuman.cli.extras import EXTRAS
from helpers.hidden import run_seeing, with_requirements

CLI = EXTRAS["train"].keys() & EXTRAS["synth"].keys() & EXTRAS["web"].keys()
TORCH = with_requirements(["torch"])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Imports nothing, asks nobody on the net; the folder that caches are in."""

    def imported(modules: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        assert "torch" in modules
        return ["cpu: 1 threads"], {}

    monkeypatch.setattr(doctor, "imports", imported)
    for name in ("WARP_CACHE_PATH", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_what_is_installed_here_works(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "clashes", list)  # of this environment, see below
    (quick / "cache").mkdir()
    (quick / "cache" / "body").write_bytes(bytes(3 * 2**20))
    report = doctor.examine()
    assert report.problems == []
    sections = report.sections
    assert sections["commands"][0] == "ready: " + ", ".join(doctor.COMMANDS)
    assert sections["extras"][0] == "train: installed"
    assert "wandb: not installed: pip install 'fairhuman[wandb]'" in sections["extras"], "which is no problem"
    assert f"torch {metadata.version('torch')}".endswith(sections["torch"][0])
    assert sections["caches"][0].endswith("cache, 3 MiB")
    assert sections["caches"][1].endswith("hub, not made yet")
    assert "turned off" in sections["hub"][0]
    text = report.text()
    assert text.startswith("```text\nfairhuman: ")
    assert text.endswith("\nproblems: none\n```")


def test_this_environment_has_no_clashes() -> None:
    found = packages.clashes()
    assert found is not None
    assert not [line for line in found if not line.startswith("fairhuman ")], "its own change with the checkout"


def test_the_command_ends_with_1_where_something_is_broken(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cache whose place is a file; a root may write everywhere else."""
    (quick / "cache").write_text("a file")
    with pytest.raises(SystemExit) as stopped:
        doctor.main([])
    assert stopped.value.code == 1
    assert re.search(r"cache .*/cache can't be written: Not a directory", capsys.readouterr().out)


def test_a_cache_that_does_not_exist_yet_is_made_when_it_is_needed(tmp_path: Path) -> None:
    assert doctor.unwritable(tmp_path / "a" / "b") is None
    (tmp_path / "a").write_text("")
    assert doctor.unwritable(tmp_path / "a" / "b") == "Not a directory"


class Dist(metadata.Distribution):
    """An installed package that says what a test wants."""

    def __init__(self, name: str, version: str = "1", requires: Sequence[str] = (), requested: bool = False) -> None:
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
        self.files_ = {"METADATA": "Metadata-Version: 2.1\n" + "\n".join(lines) + "\n"}
        if requested:
            self.files_["REQUESTED"] = ""

    def read_text(self, filename: str) -> str | None:
        return self.files_.get(filename)

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Dist]:
    """Fill it with what is to be installed."""
    dists: list[Dist] = []

    def distribution(name: str) -> Dist:
        for one in dists:
            if packages._canonical(one.metadata["Name"]) == packages._canonical(name):
                return one
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distributions", lambda: dists)
    monkeypatch.setattr(packages, "distribution", distribution)
    monkeypatch.setattr(packages, "version", lambda name: distribution(name).version)
    monkeypatch.setattr(packages, "importable", lambda _: True)
    return dists


def states_of(installed: list[Dist], names: Sequence[str]) -> dict[str, bool]:
    installed[:] = [Dist("torch"), *map(Dist, names)]
    return {name: state.half for name, state in packages.extra_states().items()}


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_whole_extra_is_installed_and_no_other_one_is_half(extra: str, installed: list[Dist]) -> None:
    assert not any(states_of(installed, list(EXTRAS[extra])).values())
    assert packages.extra_states()[extra].missing == []


@pytest.mark.parametrize("extra", ["train", "synth", "data", "evaluate", "web"])
@pytest.mark.parametrize("lost", ["typer", "own"])
def test_half_an_extra(extra: str, lost: str, installed: list[Dist]) -> None:
    own = sorted(packages._signs(extra) - set(EXTRAS["detect"]))
    gone = own[0] if lost == "own" else lost
    halves = states_of(installed, [name for name in EXTRAS[extra] if name != gone])
    assert halves[extra]
    assert packages.extra_states()[extra].missing == [gone]


def test_packages_that_came_for_another_reason_are_no_half_extra(installed: list[Dist]) -> None:
    installed[:] = [
        Dist("torch"),
        *map(Dist, CLI),
        Dist("diffusers", requested=True),  # by the user's own pip install
        Dist("gradio", requires=["starlette<2,>=1", "uvicorn>=0.50 ; sys_platform != 'emscripten'"], requested=True),
        Dist("starlette"),
        Dist("uvicorn"),
    ]
    assert not any(state.half for state in packages.extra_states().values())


def test_versions_that_clash(installed: list[Dist]) -> None:
    installed[:] = [
        Dist("torch", "2.8"),
        Dist("torchvision", "0.29", ["torch>=2.14", "numpy", "scipy ; extra == 'scipy'"]),
        Dist("numpy", "2.1"),
        Dist("mediapipe", "0.10.21", ["numpy<2", "jax", "pywin32 ; sys_platform == 'win32'"]),
        Dist("fairhuman", "0.1", ["torch>=2.9", "mediapipe==0.10.21 ; extra == 'detect'", "anny ; extra == 'synth'"]),
    ]
    assert sorted(packages.clashes() or []) == [
        "fairhuman 0.1 needs torch>=2.9, and 2.8 is installed",
        "mediapipe 0.10.21 needs jax, which is not installed",
        "mediapipe 0.10.21 needs numpy<2, and 2.1 is installed",
        "torchvision 0.29 needs torch>=2.14, and 2.8 is installed",
    ]


def test_a_module_that_breaks_or_ends_the_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "works.py").write_text("print('a word')")
    (tmp_path / "breaks.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
    (tmp_path / "dies.py").write_text("import os; os._exit(139)")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *filter(None, sys.path)]))
    devices, broken = packages.imports(["torch", "works", "breaks", "dies"])
    assert devices[0].startswith("cpu: ")
    assert broken == {
        "breaks": "OSError: libGL.so.1: cannot open shared object file",
        "dies": "ended the process with code 139",
    }


def test_torch_alone_is_enough(tmp_path: Path) -> None:
    done = run_seeing(TORCH, "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  train: not installed: pip install 'fairhuman[train]'\n" in done.stdout
    assert "  ready: doctor\n" in done.stdout
    assert "  need train, synth, evaluate: demo, compare, reproduce\n" in done.stdout
    assert done.stdout.endswith("problems: none\n```\n")
    assert done.stderr == ""


def test_help_needs_no_typer() -> None:
    done = run_seeing(["none"], "doctor", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example: fairhuman doctor" in done.stdout
