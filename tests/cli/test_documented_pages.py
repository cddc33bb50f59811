"""All commands of the pages of the first run, control, MoLE, regions, other bases and refinement, on small images."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.compare import jobs
from fairhuman.train.preflight import DISK, GPU, HUB_WEIGHTS
from helpers import warm
from helpers.figures import give_poses, write_figures
from helpers.places import ROOT

Typed = Callable[..., tuple[int, str, str]]
# What makes a command short; commands that nothing makes short enough here are only checked.
SHORT: dict[str, list[str]] = {
    "train": ["steps=1", "batch_size=1", "resolution=32", "validation.every=0", "preview.count=0"],
    "sample": ["--steps", "1", "--height", "32", "--width", "32"],
    "refine": ["steps=2", "attempts=1"],
    "grid": ["--count", "1"],
    "losses": ["timesteps=[0.4]"],
}
CHECKED = ("synth", "data build", "train recipes/controlnet-sdxl", "evaluate", "bench", "compare")
SMALLER = {
    "min_side=512": "min_side=4",
    "min_side=16": "min_side=4",
    "size=128": "size=32",
    "max_enlarge=4": "max_enlarge=32",
}


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def shortened(line: str) -> list[str]:
    program, *arguments = shlex.split(line.replace("MODEL", "small").replace("recipes/", f"{ROOT}/recipes/"))
    assert program == "fairhuman"
    arguments = [SMALLER.get(argument, argument) for argument in arguments]
    said = " ".join(shlex.split(line)[1:])
    if said.startswith("data build"):
        arguments[3] = "built"  # people are there
    if said.startswith("synth"):
        arguments[1] = "more"  # people are there
    if said.startswith(CHECKED):
        return [*arguments, "--dry-run"]
    short = SHORT.get(arguments[0], [])
    if any(argument.startswith("validation.") for argument in arguments):
        short = [setting for setting in short if setting != "validation.every=0"]
    return [*arguments, *short]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages take for granted: people, photos, poses, prompts."""
    write_figures(tmp_path / "people", 2, 64, seed=2)
    give_poses(tmp_path / "people")
    for name in ("PHOTOS", "PEOPLE"):
        shutil.copytree(tmp_path / "people", tmp_path / name)
    write_figures(tmp_path / "others", 2, 64, seed=3)
    (tmp_path / "prompts.txt").write_text("a hat\na red shirt\n", encoding="utf-8")
    (tmp_path / "POSES").mkdir()
    for number in range(2):
        points = [[10.0 + 20 * number, 2.0 * point, 1.0] for point in range(17)]
        pose = {"width": 64, "height": 64, "people": [points]}
        (tmp_path / "POSES" / f"{number}.json").write_text(json.dumps(pose), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "subprocess", warm)
    # It takes long to compute: see the tests of memory.
    monkeypatch.setattr("fairhuman.train.preflight._memory_of", lambda _: "not computed in this test")
    return tmp_path


def run_page(page: str, typed: Typed) -> None:
    for line in commands_of(page):
        code, said, error = typed(*shortened(line))
        missing = {text.split(":")[0] for text in said.splitlines() if code == 1 and text.startswith("missing")}
        elsewhere = bool(missing) and missing <= {f"missing {what}" for what in (GPU, HUB_WEIGHTS, DISK)}
        assert code == 0 or elsewhere, f"{line}\n{error}\n{said}"


def test_the_page_of_the_first_run(place: Path, typed: Typed) -> None:
    run_page("first-run.md", typed)
    assert (place / "runs" / "first" / "report.html").is_file()
    assert (place / "samples" / "first" / "00001-00.png").is_file()


def test_the_page_of_control(place: Path, typed: Typed) -> None:
    run_page("control.md", typed)
    assert (place / "figure4" / "grid.png").is_file()


def test_the_page_of_mole(place: Path, typed: Typed) -> None:
    run_page("mole.md", typed)
    assert (place / "out" / "00000-00.png").is_file()


def test_the_page_of_regions(place: Path, typed: Typed) -> None:
    run_page("regions.md", typed)
    assert not (place / "built").exists(), "dry runs"


def test_the_page_of_other_bases(place: Path, typed: Typed) -> None:
    run_page("bases.md", typed)
    assert (place / "samples" / "flow" / "00000-00.png").is_file()


def test_the_page_of_refinement(place: Path, typed: Typed) -> None:
    assert (
        typed(
            "train",
            f"{ROOT}/recipes/lora-sdxl.yaml",
            "model=small",
            "data=people",
            "out=runs/lora",
            "lora.rank=2",
            "precision=fp32",
            "source.workers=0",
            *SHORT["train"],
        )[0]
        == 0
    )
    assert typed("sample", "samples/base", "--prompts", "prompts.txt", *SHORT["sample"])[0] == 0
    run_page("refine.md", typed)
    assert (place / "samples" / "refined" / "report.html").is_file()
