"""Mistakes on the command line are told before torch is imported, which takes seconds."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from fairhuman.models.registry import DTYPES
from fairhuman.models.settings import PRECISIONS
from helpers.places import ROOT

RECIPE = "recipes/lora-small.yaml"
WRONG: list[tuple[int, str, str]] = [
    (2, "did you mean 'mpd'?", f"train {RECIPE} strategy=mdp"),
    (
        2,
        "recipes/lora-smal.yaml: no such recipe; did you mean recipes/lora-small.yaml?",
        "train recipes/lora-smal.yaml",
    ),
    (2, "did you mean recipes/lora-small.yaml?", "train lora-smal"),
    (2, "recipes at hand are recipes/cell.yaml, recipes/lora-small.yaml", "train recipes/xyz.yaml"),
    (2, "unknown setting 'lora.rnak'; did you mean 'lora.rank'?", f"train {RECIPE} lora.rnak=3"),
    (2, "unknown setting 'rank'; did you mean 'lora.rank' or 'mole.rank'?", f"train {RECIPE} rank=3"),
    (2, "No such option: --dryrun", f"train {RECIPE} --dryrun"),
    (2, "expected a size such as 12GB, found 'much'", f"train {RECIPE} --dry-run --device-memory much"),
    (2, "--device-memory is what a dry run compares with", f"train {RECIPE} --device-memory 12GB"),
    (2, "Missing argument", "train"),
    (
        2,
        "recipes/photos-small.yaml: the one that ships with fairhuman error: ",
        "train recipes/photos-small.yaml strategy=mdp",
    ),
    (1, "nowhere: there is no such file or folder", f"train {RECIPE} data=nowhere"),
    (1, "run `fairhuman data build photos photos-people min_side=null` first", f"train {RECIPE} data=photos"),
    (1, "model 'nowhere': expected 'small'", f"train {RECIPE} data=people model=nowhere"),
    (2, "no prompt: give --prompt TEXT or --prompts FILE", "sample out"),
    (2, "--precision must be one of auto, fp32, bf16, fp16, found 'fp17'", "sample out --prompt a --precision fp17"),
    (1, "model 'nowhere': expected 'small'", "sample out --prompt a --model nowhere"),
    (2, "CONDITIONS are pose or depth", "sample out --prompt a --controlnet edges=nowhere"),
    (1, "control 'nowhere': expected a folder or a hub id", "sample out --prompt a --controlnet nowhere"),
    (2, "--control: give --controlnet FOLDER", "sample out --prompt a --control pose=none"),
    (2, "expected pose=PLACE or depth=PLACE", "sample out --prompt a --controlnet photos --control edges=photos"),
    (1, "there is no such file or folder", "sample out --prompt a --controlnet photos --control pose=nowhere"),
    (2, "expected 0 <= start < end <= 1", "sample out --prompt a --controlnet photos --control-start 2"),
    (1, "LoRA 'nowhere': expected a file", "sample out --prompt a --lora nowhere"),
    (2, "No such option: --promt", "sample out --promt a"),
    (1, "nowhere: there is no such file or folder", "refine nowhere --out out"),
    (2, "did you mean 'strength'?", "refine photos --out out strenght=1"),
    (1, "nowhere: there is no such file or folder", "evaluate nowhere"),
    (2, "did you mean 'metrics'?", "evaluate photos metrcs=fid"),
    (2, "no model: give --model NAME=MODEL", "losses people"),
    (1, "nowhere: there is no such file or folder", "losses nowhere --model small"),
    (2, "no method: give --method", "grid out"),
    (1, "a model needs --prompts FILE", "grid out --method a=nowhere"),
    (2, "recipes/none.yaml: no such recipe", "compare recipes/none.yaml"),
    (2, "cells", f"compare {RECIPE}"),
    (2, "did you mean 'steps'?", "cost out stpes=3"),
    (2, "no results given", "paper out"),
    (2, "did you mean 'steps'?", "bench stpes=3"),
    (2, "nowhere.yaml: no such recipe", "bench --recipe nowhere.yaml"),
    (1, "model 'nowhere': expected 'small'", "demo out --model nowhere"),
    (2, "count", "synth out --count -1"),
    (1, "nowhere: there is no such file or folder", "data build nowhere out"),
    (2, "did you mean 'min_side'?", "data build photos out min_sid=3"),
    (2, "OUT, is missing: 'min_side=256' in its place is a setting", "data build photos min_side=256"),
    (2, "people.html: the name of the page goes with --out: --out people.html", "data show people people.html"),
    (1, "nowhere.txt: there is no such file or folder", "sample out --prompts nowhere.txt"),
    (1, "nowhere: there is no such file or folder", "data check nowhere"),
    (1, "nowhere: there is no such file or folder", f"data cache {RECIPE} data=nowhere"),
    (1, "nowhere: there is no such file or folder", "studio nowhere"),
    (2, "did you mean 'read_only'?", "studio photos read_onyl=true"),
    (2, "settings: train has no setting 'lorra'; did you mean 'lora'?", "settings train lorra"),
    (2, "settings: merge has options, not settings: fairhuman merge --help", "settings merge"),
    (
        1,
        "expected 'small', a pipeline's folder (model_index.json) of SDXL, Stable Diffusion 3.5,",
        "sample out --prompt a --model nowhere",
    ),
    (
        2,
        "--model: two are named 'small'; give each a name, as in --model A=small",
        "losses people --model small --model small",
    ),
    (2, "No such command 'trian'", "trian"),
]
# Runs all command lines in one process, as a user's shell runs each of them: torch must not come in with any.
SCRIPT = """
import contextlib, io, json, shlex, sys
from fairhuman.cli import main
for line in json.load(sys.stdin):
    sys.argv, said, code = ["fairhuman", *shlex.split(line)], io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    print(json.dumps([code, said.getvalue(), "torch" in sys.modules]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, bool]]:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "recipes").mkdir()
    for name in ("lora-small", "cell"):
        text = (ROOT / "recipes" / "lora-small.yaml").read_text(encoding="utf-8")
        (folder / "recipes" / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name in ("photos", "people"):
        (folder / name).mkdir()
        Image.new("RGB", (32, 32)).save(folder / name / "a.png")
    row = {"file_name": "a.png", "caption": "a", "faces": [[1, 2, 9, 9]], "hands": []}
    (folder / "people" / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    lines = [line for _, _, line in WRONG]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, input=json.dumps(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))
    assert sorted(path.name for path in folder.iterdir()) == ["people", "photos", "recipes"], "nothing is left behind"
    return found


@pytest.mark.parametrize(("code", "message", "line"), WRONG, ids=[line for _, _, line in WRONG])
def test_a_mistake_is_told_without_torch(
    answers: dict[str, tuple[int, str, bool]], code: int, message: str, line: str
) -> None:
    found, said, with_torch = answers[line]
    assert message in " ".join(said.split())
    assert (found, with_torch) == (code, False)
    assert "Traceback" not in said


def test_the_names_of_precisions_are_those_of_the_table() -> None:
    assert tuple(DTYPES) == PRECISIONS
