"""The cache: made once, whole or not at all, by one process at a time; errors say what to do."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fairhuman.errors import FairHumanError
from fairhuman.synth.cache import cached_folder
from fairhuman.utils.files import cache_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder: Path) -> None:
    (folder / "model").write_text("whole", encoding="utf-8")


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRHUMAN_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("FAIRHUMAN_CACHE")
    assert cache_folder() == Path("/b/fairhuman")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fairhuman"


def test_it_is_filled_once(cache: Path) -> None:
    first = cached_folder("thing", fill, pytest.fail)
    assert (first / "model").read_text() == "whole"
    assert cached_folder("thing", pytest.fail, pytest.fail) == first == cache / "thing"


def test_an_interrupted_cache_entry_is_rebuilt(cache: Path) -> None:
    (cache / ".thing.partial").mkdir(parents=True)
    (cache / ".thing.partial" / "rest").touch()

    def fail(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cached_folder("thing", fail, pytest.fail)
    assert not (cache / "thing").exists()
    assert [path.name for path in cached_folder("thing", fill, pytest.fail).iterdir()] == ["model"]


def test_of_two_processes_one_fills_and_the_other_waits(cache: Path) -> None:
    """The second starts while the first is at work, is told so, and never fills."""
    started, go_on, told = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        started.set()
        assert go_on.wait(60)
        fill(folder)

    def say(text: str) -> None:
        told.append(text)
        go_on.set()

    first = threading.Thread(target=cached_folder, args=("thing", slow, pytest.fail))
    first.start()
    assert started.wait(60)
    folder = cached_folder("thing", pytest.fail, say)
    first.join()
    assert (folder / "model").read_text() == "whole"
    assert told == ["another process is building the body model: waiting for it"]


def test_a_cache_that_can_t_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below", Path("/proc/cache")):
        monkeypatch.setenv("FAIRHUMAN_CACHE", str(place))
        with pytest.raises(FairHumanError, match=f"the cache {place} must be a writable folder .*FAIRHUMAN_CACHE"):
            cached_folder("thing", fill, pytest.fail)


def test_a_full_disk_is_named(cache: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(FairHumanError, match=r"with 1 GB free .*, found: No space left on device"):
        cached_folder("thing", full, pytest.fail)
    assert not (cache / "thing").exists()


SCRIPT = """
from fairhuman.synth.cast import Caster, compile_kernel
import numpy as np
compile_kernel()
corners = np.array([[-1, 2, -1], [1, 2, -1], [0, 2, 2]], np.float32)
caster = Caster(corners, np.tile(np.float32([0, -1, 0]), (3, 1)), np.array([[0, 1, 2]]))
directions = np.array([[0, 1, 0], [0, -1, 0]], np.float32)
hits = caster.cast(np.zeros(3), directions, np.array([0.0, -1.0, 0.0]))
print(hits.face.tolist(), hits.distance.tolist(), hits.lit.tolist(), round(float(hits.weights[0].sum()), 5))
"""


@pytest.mark.slow
def test_warp_starts_quietly_and_compiles_once_into_our_cache(cache: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "WARP_CACHE_PATH"}
    command = [sys.executable, "-c", SCRIPT]
    kernels = []
    for _ in range(2):
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert run.stdout == "[0, -1] [2.0, 0.0] [True, False] 1.0\n"
        assert run.stderr == ""
        kernels.append([(path, path.stat().st_mtime_ns) for path in sorted((cache / "warp").rglob("*.o"))])
    assert len(kernels[0]) == 1
    assert kernels[0] == kernels[1]
