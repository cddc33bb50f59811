"""The commands of docs/validation.md as they stand there: from unfit and fit pictures, by a review, to a table."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review import ReviewSettings, create_review_app
from fairhuman.data.sources import SourceSettings, read_source
from helpers.places import ROOT, TESTS

PEOPLE, SIDE = 4, 128
FEW = ["--count", "9", "--allow-fewer", "filters.min_side=100", "filters.min_clarity=1.5"]
FEW += ["filters.min_clarity_percentile=null"]


def documented() -> list[list[str]]:
    """The words of the page's first block, without reviewing, which is done here."""
    block = re.search(r"```console\n(.*?)```", (ROOT / "docs/validation.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = [shlex.split(line.removeprefix("$ ").partition("#")[0]) for line in block.group(1).splitlines()]
    assert lines[1] == ["fairhuman", "data", "review", "val"]
    return [words[1:] for words in lines]


def write_source(folder: Path) -> None:
    """Rendered people, of whom nothing is annotated; a picture without people, a blurred one and a small one."""
    folder.mkdir()
    people = read_source(TESTS / "begun" / "people", (), SourceSettings(), LoadReport())[:PEOPLE]
    pictures = {f"person-{number}": decode(record.image).picture for number, record in enumerate(people)}
    pictures["blurred"] = pictures["person-0"].filter(ImageFilter.GaussianBlur(12))
    pictures["small"] = pictures["person-1"].resize((64, 64))
    noise = np.random.default_rng(0).integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    pictures["nobody"] = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    rows = []
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
        rows.append({"file_name": f"{name}.png", "caption": f"a person, {name}, on a street"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.slow  # half a minute: real detectors, a browser, pictures of the small model
def test_from_pictures_to_a_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: Callable[..., tuple[int, str, str]],
    serving: Callable[..., str],
    open_page: Callable[..., Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path / "cache"))
    write_source(tmp_path / "SOURCE")
    validation, _, apply, first, second, table = documented()

    def run(words: list[str]) -> str:
        code, output, errors = typed(*words)
        assert code == 0, output + errors
        return output

    run([*validation, *FEW])
    rejected = [json.loads(line) for line in (tmp_path / "val" / "rejected.jsonl").read_text().splitlines()]
    assert {row["key"]: row["reason"] for row in rejected} == {
        "small.png": "shorter side below 100 pixels",
        "blurred.png": "clarity below 1.5 grey levels²",
        "nobody.png": "number of faces and hands below 1",
    }
    app = create_review_app(tmp_path / "val", ReviewSettings())
    page = open_page(f"{serving(app)}{app.state.root}/review?name=Ada")
    for done, key in enumerate(("2", "e", "k", "k"), start=1):  # unclear; another prompt; as it is
        page.wait_for_function("() => document.querySelector('#canvas img')?.naturalWidth")
        page.keyboard.press(key)
        if key == "e":
            page.keyboard.type(", waving")
            page.keyboard.press("Control+Enter")
        counted = "start => document.querySelector('#counts')?.textContent.startsWith(start)"
        page.wait_for_function(counted, arg=f"{done} of {PEOPLE}")
    run(apply)
    prompts = [record.caption for record in read_source(tmp_path / "val", (), SourceSettings(), LoadReport())]
    assert len(prompts) == PEOPLE - 1
    assert prompts[0].endswith(", waving")
    small = ["--model", "small", "--steps", "1", "--height", "32", "--width", "32"]
    run([*[word.replace("MODEL", "small") for word in first], *small])
    run([*second[: second.index("--model")], *small, "--seed", "1"])
    for name in ("base", "mpd"):
        assert len(list((tmp_path / "samples" / name).glob("*.png"))) == len(prompts)
    output = run([*table, "metrics=[efficientnet]"])
    assert "samples" in output
    rows = json.loads((tmp_path / "samples" / "base-evaluation" / "metrics.json").read_text())["metrics"]
    assert {row["method"] for row in rows} == {"base", "MPD"}
    assert {row["n"] for row in rows} == {len(prompts)}
