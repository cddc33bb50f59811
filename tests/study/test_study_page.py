"""The commands of docs/study.md as they stand there, from two folders of pictures to a report by three participants."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.demo.run import TITLES
from fairhuman.demo.settings import DemoSettings
from fairhuman.generate.sample import save_png
from fairhuman.study.study import load_design
from helpers import warm
from helpers.places import ROOT
from helpers.study_tab import Tab

PAGE = ROOT / "docs/study.md"
PAIRS, PARTICIPANTS = 4, 3


def documented() -> dict[str, list[str]]:
    """By verb, the words of the page's first block."""
    block = re.search(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert block is not None
    lines = [line.removeprefix("$ ").partition("#")[0] for line in block.group(1).splitlines()]
    commands = [shlex.split(line) for line in lines]
    assert all(words[:2] == ["fairhuman", "study"] for words in commands)
    return {words[2]: words[1:] for words in commands}


def shortened(words: list[str], **values: float) -> list[str]:
    """The words with other numbers behind their options, all of which must be there."""
    short = list(words)
    for name, value in values.items():
        short[short.index(f"--{name}") + 1] = str(value)
    return short


def run(folder: Path, words: list[str]) -> str:
    command = [sys.executable, "-m", "fairhuman.cli", *words]
    done = warm.run(command, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_pictures(folder: Path, shade: int) -> None:
    noise = np.random.default_rng(shade)
    for number in range(PAIRS + 2):
        pixels = noise.integers(shade, shade + 50, (48, 64, 3), dtype=np.uint8)
        texts = {"prompt": f"person {number}", "prompt_index": str(number), "picture_index": "0", "seed": "0"}
        save_png(Image.fromarray(pixels), folder / f"{number:05d}-00.png", texts)


def test_the_demo_s_pictures_are_where_the_page_says():
    (command,) = re.findall(r"`(fairhuman study create demo-study .*?)`", PAGE.read_text(encoding="utf-8"))
    folders = re.findall(r"--method (\w+)=runs/demo/samples/(\w+)", command)
    assert {name: TITLES[folder] for name, folder in folders} == {"LS": "LS", "MPD": "MPD"}
    assert int(shlex.split(command)[-1]) <= DemoSettings.model_fields["samples"].default


@pytest.mark.slow
def test_the_documented_way_from_pictures_to_a_report(tmp_path, servers, open_page):
    commands = documented()
    assert list(commands) == ["power", "create", "serve", "report"]
    fewest = run(tmp_path, [*shortened(commands["power"], pairs=100, difference=0.5), "simulations=100"])
    assert "detect a difference of 0.5 with a power of" in fewest
    write_pictures(tmp_path / "samples/base", 20)
    write_pictures(tmp_path / "samples/mpd", 180)
    run(tmp_path, shortened(commands["create"], pairs=PAIRS, participants=PARTICIPANTS))
    folder = tmp_path / commands["serve"][2]
    design = load_design(folder)

    address, server = servers.start(folder)
    links = run(tmp_path, ["study", "links", str(folder), "--url", address])
    rows = list(csv.DictReader(links.splitlines()))
    assert len(rows) == PARTICIPANTS
    for row in rows:
        page = open_page(row["link"])
        page.click("main button")
        tab = Tab(page)
        for trial in design.participants[int(row["participant"])]:
            best = design.items[trial.item].better or "MPD"
            for _ in range(2):
                tab.press(str(1 + trial.shown.index(best)))
        tab.done()
    server.terminate()
    server.wait()

    run(tmp_path, commands["report"])
    results = json.loads((folder / "report/results.json").read_text(encoding="utf-8"))
    for question in ("overall", "regional"):
        found = results["everybody"][question]
        assert (found["votes"], found["participants"], found["items"]) == (PAIRS * PARTICIPANTS, PARTICIPANTS, PAIRS)
        assert {name: score["value"] for name, score in found["scores"].items()} == {"base": 0.0, "MPD": 1.0}
    assert (folder / "report/report.html").stat().st_size > 10_000
