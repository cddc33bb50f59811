"""The paper's tables and figures by one command, tiny: all of its parts, resumed, and a failure."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from fairhuman import config
from fairhuman.compare import jobs
from fairhuman.compare.jobs import Command
from fairhuman.compare.paper import drawing
from fairhuman.compare.paper import reproduce as reproducing
from fairhuman.compare.paper.recipe import ReproduceRecipe
from fairhuman.compare.paper.reproduce_page import setup
from fairhuman.compare.plan import findings, forward_flops, plan_of
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import CompareRecipe
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.evaluate.run import EvaluationInputs
from fairhuman.generate.control_inputs import read_control_inputs
from fairhuman.generate.record import read_record
from fairhuman.generate.sample import save_png
from fairhuman.report.changes import Series
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import load_recipe
from fairhuman.utils.display import Display
from fairhuman.utils.files import alone
from helpers import warm
from helpers.figures import give_poses, write_figures
from helpers.places import RECIPES

Typed = Callable[..., tuple[int, str, str]]
METRIC = "official hand confidence"
STRATEGIES = ["ls", "dwa", "uw", "rlw", "si", "nash", "mpd"]
PEOPLE = {"count": 3, "size": 64}
VALUES: dict[str, Any] = {
    "people": {name: {**PEOPLE, "seed": seed} for seed, name in enumerate(("train", "tune", "test", "shown"))},
    "train": {"model": "small-untrained", "data": "train", "steps": 1, "resolution": 64, "preview": {"count": 0}},
    "cells": {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}},
    "against": "LS",
    "seeds": [1],
    "tuning": {"data": "tune", "learning_rates": [1.0e-3]},
    "test": "test",
    "sampling": {
        "data": "shown",
        "lora_weights": [0.3, 1.0],
        "steps": 1,
        "guidance": 1.0,
        "prompt_suffix": ", 8k",
        "negative_prompt": "blue",
    },
    "evaluate": {"metrics": ["efficientnet"]},
    "cost": {"model": "small-untrained", "rank": 2, "size": 64, "steps": 1, "repeats": 1},
    "tables": {"Table 2": ["LS", "MPD"], "Table 3": ["MPD"]},
    "figure_rows": 2,
}
VALUES["train"]["lora"] = {"rank": 2}
FRONT = {"rival": "LS", "untuned": {"cell": "MPD", "learning_rate": 1.0e-3}}


def recipe_file(folder: Path, **values: object) -> Path:
    path = folder / "reproduce.yaml"
    path.write_text(yaml.safe_dump({**VALUES, "out": str(folder / "out"), **values}), encoding="utf-8")
    return path


def closed_pictures(folder: Path) -> Path:
    """Two pictures of a closed method with their captions, in an order that isn't that of the letters."""
    folder.mkdir()
    for number, caption in ((2, "a hat"), (10, "two hands")):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption, encoding="utf-8")
    return folder


class Faked:
    """Training, sampling and measuring without models: what they leave behind, and how often they were asked."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.measured: list[str] = []
        self.parts: list[Mapping[str, Sequence[str]]] = []
        self.controls: list[list[str]] = []  # hashes of the conditions of each command that has some
        self.broken = ""
        self.seeds: dict[str, list[int]] | None = None  # of the finished runs; None: all

    def compare(self, recipe: CompareRecipe, *_: object) -> ComparisonRuns:
        rates = dict.fromkeys(recipe.cells, None if recipe.tuning is None else 1e-3)
        sums = {
            name: (np.full((len(recipe.seeds), 4), 2.0), np.ones((len(recipe.seeds), 4))) for name in ("global", "face")
        }
        if self.seeds is not None and recipe.tuning is not None:
            return ComparisonRuns()
        seeds = dict.fromkeys(recipe.cells, recipe.seeds) if self.seeds is None else self.seeds
        cut = {
            cell: {name: (e[: len(of)], a[: len(of)]) for name, (e, a) in sums.items()} for cell, of in seeds.items()
        }
        series = {cell: Series(tuple("abcd"), one, one) for cell, one in cut.items()}
        return ComparisonRuns(series, seeds, {}, rates)

    def run(self, commands: Sequence[Command], _: object, __: int, ended: Callable[..., object]) -> None:
        for job in commands:
            if job.done() == 1.0:
                continue
            out, prompts = Path(job.arguments[1]), Path(job.arguments[3]).read_text(encoding="utf-8").splitlines()
            self.drawn.append(job.name)
            given = [str(place) for option, place in pairwise(job.arguments) if option == "--control"]
            self.controls += [read_control_inputs([place], len(prompts)).hashes(len(prompts)) for place in given]
            if self.broken and self.broken in job.name:
                ended(job, FairHumanError("no memory"))
                continue
            for number, prompt in enumerate(prompts):
                texts = {"prompt": prompt, "prompt_index": str(number), "picture_index": "0"}
                save_png(Image.new("RGB", (32, 32), (number, 9, 9)), out / f"{number:05d}-00.png", texts)
            ended(job, None)

    def evaluate(self, inputs: EvaluationInputs, _: object, out: Path, __: object) -> bool:
        self.measured.append(out.name)
        self.parts.append(inputs.parts)
        rows = [
            {
                "method": name,
                "key": file.relative_to(folder).as_posix(),
                "prompt": file.name,
                METRIC: float(name == "MPD"),
            }
            for name, folder in inputs.methods.items()
            for file in sorted(folder.rglob("*.png"))
        ]
        out.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / "per_image.parquet")
        plain = {"name": METRIC, "better": "higher", "value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
        others = [name for name in inputs.methods if name != inputs.against]
        differences = [
            {**plain, "method": name, "p": 0.01, "p_holm": 0.02 if name == "MPD" else 1.0} for name in others
        ]
        metrics = [{**plain, "method": name} for name in inputs.methods]
        (out / "metrics.json").write_text(json.dumps({"metrics": metrics, "differences": differences}))
        return True


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Faked:
    fake = Faked()
    monkeypatch.setattr(reproducing, "run_comparison", fake.compare)
    monkeypatch.setattr(reproducing, "evaluate", fake.evaluate)
    monkeypatch.setattr(drawing, "run_jobs", fake.run)
    return fake


def recipe_of(folder: Path, **values: object) -> ReproduceRecipe:
    write_figures(folder / "shown", 3, 64, seed=2)
    sampling = {**VALUES["sampling"], "data": str(folder / "shown")}
    given = {**VALUES, "out": str(folder / "out"), "sampling": sampling, "people": {}, "cost": None, "seeds": [1, 2]}
    return config.build(ReproduceRecipe, {**given, **values}, origin="recipe")


def test_all_parts_are_joined_and_nothing_is_done_twice(tmp_path: Path, faked: Faked) -> None:
    sampling = {**VALUES["sampling"], "data": str(tmp_path / "shown"), "lora_weights": [0.3]}
    closed = {"HanDiffuser": str(closed_pictures(tmp_path / "closed"))}
    recipe = recipe_of(tmp_path, sampling=sampling, closed=closed, figure_rows=1)
    done = reproducing.reproduce(recipe, Display())
    assert isinstance(done, reproducing.Reproduction)
    assert done.failed == {}
    assert len(faked.drawn) == 1 + 2 * 2 * 2 + 3, "base; rules x cells x seeds; Figure 1 by the first seed"
    assert faked.measured == [
        f"{table}-{rates}-weight-0.3"
        for table in ("table-2", "table-3")
        for rates in ("one-learning-rate", "own-learning-rates")
    ]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    part = results["tables"][0]
    assert (part["table"], part["reference"], part["rates"], part["lora weight"]) == (
        *("Table 2", "LS", "one learning rate", 0.3),
    )
    mpd = next(one for one in part["numbers"] if one["method"] == "MPD")
    assert (mpd["value"]["value"], mpd["difference"]["value"], mpd["over_seeds"]) == (1.0, 1.0, True)
    page = done.page.read_text()
    assert "1 of 1 differences to LS have p &lt; 0.05 after Holm&#39;s correction: MPD better in" in page
    assert "<td>94.03</td><td>100</td>" in page, "published and ours, in columns of their own"
    assert page.count("Its published columns stay empty") == 1
    assert "Not measured: the recipe has no section cost." in page
    assert "No pictures given. HyperHuman is closed" in page
    for link in re.findall(r'href="((?:figure-|losses-report/)[^"]+)"', page):
        assert (tmp_path / "out" / link).is_file(), link
    assert [file.parent for file in (tmp_path / "out").rglob("results.json")] == [tmp_path / "out"], "numbers are once"
    grid = (tmp_path / "out" / "figure-1" / "grid.html").read_text()
    assert grid.index("a hat") < grid.index("two hands"), "2.png comes before 10.png"
    asked = (len(faked.drawn), len(faked.measured))
    assert isinstance(reproducing.reproduce(recipe, Display()), reproducing.Reproduction)
    assert (len(faked.drawn), len(faked.measured)) == asked


@pytest.mark.slow
def test_pictures_that_fail_cost_their_seed_alone(tmp_path: Path, faked: Faked) -> None:
    faked.broken = "one-learning-rate/weight-1/mpd/seed-2"
    recipe = recipe_of(tmp_path, tuning=None, tables={})
    done = reproducing.reproduce(recipe, Display())
    assert isinstance(done, reproducing.Reproduction)
    assert done.failed == {"pictures one-learning-rate/weight-1/mpd/seed-2": "no memory"}
    assert "no memory" in done.page.read_text()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    over = {
        (part["lora weight"], one["method"]): one["over_seeds"] for part in results["tables"] for one in part["numbers"]
    }
    assert (over[0.3, "MPD"], over[1.0, "MPD"], over[1.0, "LS"]) == (True, False, True)
    both = ["seed-1", "seed-2"]
    assert faked.parts == [{"base": [], "LS": both, "MPD": both}, {"base": [], "LS": both, "MPD": ["seed-1"]}]
    assert [part["interim"] for part in results["tables"]] == [False, True]
    faked.broken = ""
    measured = len(faked.measured)
    half = recipe.out / "samples" / "half.png"
    save_png(Image.new("RGB", (32, 32)), half, {})
    [unfinished] = recipe.out.glob("samples/*/one-learning-rate/weight-1/mpd")
    (unfinished / "seed-2").mkdir()
    half.rename(unfinished / "seed-2" / "00000-00.png")
    reproducing.reproduce(recipe, Display(), "report")
    assert len(faked.measured) == measured, "pictures of a seed that isn't whole change nothing"
    done = reproducing.reproduce(recipe, Display())
    assert isinstance(done, reproducing.Reproduction)
    assert done.failed == {}
    assert len(faked.measured) == measured + 1, "the other weight's pictures were measured"


@pytest.mark.slow
def test_a_report_shows_what_is_finished(tmp_path: Path, faked: Faked) -> None:
    sampling = {**VALUES["sampling"], "data": str(tmp_path / "shown"), "lora_weights": [1.0]}
    recipe = recipe_of(tmp_path, sampling=sampling)
    with pytest.raises(DataError, match=r"out: there is no such folder, so no run is finished; start without --from"):
        reproducing.reproduce(recipe, Display(), "report")
    recipe.out.mkdir()
    faked.seeds = {}
    with pytest.raises(FairHumanError, match=r"out: no training run is finished; start without --from"):
        reproducing.reproduce(recipe, Display(), "report")
    faked.seeds = {"LS": [1, 2], "MPD": [1]}
    losses_alone = reproducing.reproduce(recipe, Display(), "report")
    assert isinstance(losses_alone, reproducing.Reproduction)
    assert (faked.drawn, faked.measured, losses_alone.failed) == ([], [], {})
    assert [str(one) for one in losses_alone.finished] == [
        "3 of 4 training runs at one learning rate",
        "0 of 4 training runs at own learning rates",
        "0 of 9 sets of pictures",
    ]
    page = losses_alone.page.read_text()
    assert "<b>In part:</b> finished so far are 3 of 4 training runs at one learning rate, 0 of 4 training" in page
    assert "<td>MPD <small>1 of 2 seeds</small></td>" in page
    assert "<td>94.03</td><td>-</td>" in page, "published numbers stand there before ours do"
    drawn = reproducing.reproduce(recipe, Display(), "pictures")
    assert isinstance(drawn, reproducing.Reproduction)
    assert (str(drawn.finished[-1]), len(faked.measured)) == ("4 of 9 sets of pictures", 2)
    page = drawn.page.read_text()
    assert page.count("<td>MPD <small>1 of 2 seeds</small></td>") == 2 + 1, "tables, losses"
    assert page.count("<th>MPD<br><small>1 of 2 seeds</small></th>") == 2, "all metrics"
    assert page.count("higher is better; interval over prompts alone") == 1, "of Table 3, in which MPD is alone"
    assert "interim, 3 of 4 sets of pictures; differences are tested when all are measured." in page
    tables = json.loads((recipe.out / "results.json").read_text())["tables"]
    assert all(one["p"] is None for part in tables if part["interim"] for one in part["numbers"]), "of no interim p"
    assert [part["interim"] for part in tables] == [True, True]
    assert not re.search("Holm&#39;s correction: |<small>p ", page)
    faked.seeds, faked.broken = None, "mpd/seed-2"
    assert isinstance(reproducing.reproduce(recipe, Display()), reproducing.Reproduction)
    faked.broken = ""
    done = reproducing.reproduce(recipe, Display())
    assert isinstance(done, reproducing.Reproduction)
    assert all(one.finished == one.of for one in done.finished)
    assert not re.search("In part:|of 2 seeds|interim", done.page.read_text())
    assert (
        "1 of 1 differences to LS have p &lt; 0.05 after Holm&#39;s correction: MPD better in" in done.page.read_text()
    )


def test_the_first_prompts_are_drawn_with_their_own_conditions(tmp_path: Path, faked: Faked) -> None:
    cells = {kind: {"kind": kind, kind: {"conditions": ["depth", "pose"]}} for kind in ("controlnet", "t2i_adapter")}
    train = {name: value for name, value in VALUES["train"].items() if name != "lora"}
    sampling = {**VALUES["sampling"], "data": str(tmp_path / "shown"), "lora_weights": [1.0], "count": 2}
    values = {"cells": cells, "train": train, "against": None, "tuning": None, "tables": {}, "seeds": [1]}
    recipe = recipe_of(tmp_path, sampling=sampling, **values)
    depth = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    depth.save(tmp_path / "shown" / "depth.png")
    give_poses(tmp_path / "shown", without=1, depth="depth.png", depth_kind="metric")
    done = reproducing.reproduce(recipe, Display())
    assert isinstance(done, reproducing.Reproduction)
    assert done.failed == {}
    whole = [read_control_inputs([f"{name}={tmp_path / 'shown'}"], 3).hashes(3) for name in ("depth", "pose")]
    assert faked.controls == [one[:2] for one in whole] * 2
    assert (recipe.results_folder / "figure-4" / "one-learning-rate-weight-1" / "grid.html").is_file()


def test_prompts_need_captions_alone(tmp_path: Path, faked: Faked) -> None:
    recipe = recipe_of(tmp_path, tuning=None)
    metadata = tmp_path / "shown" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    rows = [{name: row[name] for name in ("file_name", "caption")} for row in rows]
    metadata.write_text("\n".join(map(json.dumps, rows)))
    done = reproducing.reproduce(recipe, Display())
    assert isinstance(done, reproducing.Reproduction)
    assert done.failed == {}


def test_a_report_beside_a_command_that_goes_on_takes_what_was_measured(tmp_path: Path, faked: Faked) -> None:
    sampling = {**VALUES["sampling"], "data": str(tmp_path / "shown"), "lora_weights": [1.0]}
    recipe = recipe_of(tmp_path, tuning=None, sampling=sampling)
    reproducing.reproduce(recipe, Display())
    shutil.rmtree(recipe.out / "evaluation" / "table-3-one-learning-rate-weight-1")
    measured = len(faked.measured)
    with alone(recipe.out / ".lock", "busy"):
        with pytest.raises(
            DataError, match="another command is at work on it; --from report shows what it has finished"
        ):
            reproducing.reproduce(recipe, Display(), "pictures")
        beside = reproducing.reproduce(recipe, Display(), "report")
    assert isinstance(beside, reproducing.Reproduction)
    tables = json.loads((recipe.out / "results.json").read_text())["tables"]
    assert [one["table"] for one in tables] == ["Table 2"]
    assert len(faked.measured) == measured


@pytest.mark.slow
def test_tables_and_figures_in_one_command(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "subprocess", warm)
    closed = {"HanDiffuser": str(closed_pictures(tmp_path / "closed"))}
    file, out = recipe_file(tmp_path, closed=closed), tmp_path / "out"
    code, said, errors = typed("reproduce", file)
    assert code == 0, said + errors
    drawn = {path: path.stat().st_mtime_ns for path in (out / "samples").rglob("*.png")}
    assert len(drawn) == 3 * (1 + 2 * 2 * 2) + 2 * (1 + 2), "base; 2 rules x 2 weights x 2 cells; Figure 1"
    record = read_record(next(path for path in drawn if "weight-0.3" in str(path) and "seed-1" in str(path))) or {}
    assert (record["lora"]["weight"], record["prompt_suffix"], record["negative_prompt"]) == (0.3, ", 8k", "blue")

    results = json.loads((out / "results.json").read_text())
    assert [(one["table"], one["reference"], one["rates"], one["lora weight"]) for one in results["tables"]] == [
        (table, reference, rates, weight)
        for table, reference in (("Table 2", "LS"), ("Table 3", "MPD"))
        for rates in ("one learning rate", "own learning rates")
        for weight in (0.3, 1.0)
    ]
    numbers = {one["method"]: one for one in results["tables"][0]["numbers"]}
    assert set(numbers) == {"base", "LS", "MPD"}
    assert numbers["LS"]["difference"] is None
    assert set(numbers["MPD"]["difference"]) >= {"value", "low", "high"}
    assert set(results["held-out losses"]) == {"one learning rate", "own learning rates"}
    assert results["failed"] == {}

    page = (out / "report.html").read_text()
    for text in (
        "2,607.7",
        "1,417.5",
        "708.8",
        "not on SDXL&#39;s shape",
        "46.11",
        "× 1.4",
        "No pictures given. HyperHuman",
    ):
        assert text in page
    assert page.count("Its published columns stay empty") == 1, "Table 3"
    links = {link for link in page.split('href="') if link.startswith(("figure-", "costs/", "losses-report/"))}
    for link in links:
        assert (out / link.partition('"')[0]).is_file(), link
    assert "figure-1/grid.html" in page
    grid = (out / "figure-1" / "grid.html").read_text()
    assert grid.index("a hat") < grid.index("two hands"), "2.png comes before 10.png"

    shutil.rmtree(out / "runs" / "test" / "mpd-seed-1")
    assert typed("reproduce", file)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn, "what is there is kept"


@pytest.mark.slow
def test_cells_with_control_are_figure_4(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "subprocess", warm)
    kinds = {
        "LoRA": {"kind": "lora", "lora": {"rank": 2}},
        "ControlNet": {"kind": "controlnet", "controlnet": {"conditions": ["pose"]}},
        "T2I": {"kind": "t2i_adapter", "t2i_adapter": {"conditions": ["pose"]}},
    }
    people = tmp_path / "people"
    write_figures(people, 3, 64)
    give_poses(people)
    data: dict[str, Any] = {
        "people": {},
        "train": {**{name: value for name, value in VALUES["train"].items() if name != "lora"}, "data": str(people)},
        "test": str(people),
        "sampling": {**VALUES["sampling"], "data": str(people)},
    }
    against = {"LoRA": ["ControlNet"]}  # losses of a T2I-adapter, not zero at its start, are of another base
    values = {"cells": kinds, "against": against, "tuning": None, "cost": None, "tables": {}}
    file, out = recipe_file(tmp_path, **data, **values), tmp_path / "out"
    code, said, errors = typed("reproduce", file)
    assert code == 0, said + errors
    drawn = {path: path.stat().st_mtime_ns for path in (out / "samples").rglob("*.png")}
    assert len(drawn) == 3 * (1 + 2 + 1 + 1), "base; LoRA at two weights; each control once, it has no weight"
    controls = {kind: next(path for path in drawn if kind in path.parts) for kind in ("controlnet", "t2i_adapter")}
    for kind, path in controls.items():
        (used,) = (read_record(path) or {})["controls"]
        assert (used["kind"], used["strength"]) == (kind, 1.0)
    results = json.loads((out / "results.json").read_text())
    assert all({one["method"] for one in table["numbers"]} == {"base", *kinds} for table in results["tables"])
    for weight in ("0.3", "1"):
        figures = {
            n: (out / f"figure-{n}" / f"one-learning-rate-weight-{weight}" / "grid.html").read_text() for n in (3, 4)
        }
        columns = {n: re.findall('<th scope="col">([^<]+)</th>', text) for n, text in figures.items()}
        assert columns == {3: ["base", "LoRA"], 4: ["pose", "base", "ControlNet", "T2I"]}

    code, said, errors = typed("reproduce", file, f"out={out}", "--from", "report")
    assert code == 0, said + errors
    assert "finished:" not in said
    shutil.rmtree(out / "runs" / "test")
    assert typed("reproduce", file, "cells.ControlNet.steps=2")[0] == 0
    again = {path for path, before in drawn.items() if path.stat().st_mtime_ns != before}
    assert {path.parts[-3] for path in again} == {"controlnet"}, "pictures of other weights are drawn anew"
    assert len(again) == 3


@pytest.mark.slow
def test_a_cell_that_fails_costs_itself_alone(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "subprocess", warm)
    values = {"cost": None, "tuning": None, "tables": {}}
    cells = {**VALUES["cells"], "rank 1": {"lora": {"start": str(tmp_path / "none.safetensors")}}}
    code, said, _ = typed("reproduce", recipe_file(tmp_path, **values, cells=cells))
    assert code == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["failed"]) == ["one learning rate: rank-1-seed-1"], said
    assert {one["method"] for one in results["tables"][0]["numbers"]} == {"base", "LS", "MPD"}
    assert "What failed" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grid": {"data": "shown"}}, "grid belongs to compare"),
        ({"front": FRONT, "against": None}, "front belongs to compare"),
        ({"tables": {"Table 2": ["SI"]}}, "tables: Table 2 must name cells, which are LS, MPD, not 'SI'"),
        ({"sampling": {"data": "shown", "lora_weights": [1, 1]}}, r"sampling.lora_weights: must differ"),
        ({"closed": {"Other": "a"}}, "closed"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config.build(ReproduceRecipe, {**VALUES, "out": str(tmp_path), **values}, origin="recipe")


def test_the_plan_counts_runs_pictures_hours_and_disk(tmp_path: Path, typed: Typed) -> None:
    code, said, errors = typed("reproduce", recipe_file(tmp_path), "--dry-run")
    assert code == 0, errors
    assert "ok      model" in said
    assert "training: 4 runs, and 2 to find learning rates" in said
    assert f"pictures: {3 * (1 + 2 * 2 * 2)}" in said
    assert "hours on one CPU core: training" in said
    assert "disk: about" in said
    assert not (tmp_path / "out").exists()


def test_the_plan_has_room_for_the_largest_of_the_cells(tmp_path: Path) -> None:
    train = {name: value for name, value in VALUES["train"].items() if name != "lora"}
    full, low = {"all weights": {"kind": "full"}}, {"low rank": {"kind": "lora"}}

    def made(cells: dict[str, Any]) -> CompareRecipe:
        values = {"out": str(tmp_path), "people": VALUES["people"], "train": train, "seeds": [1], "test": "test"}
        return config.build(CompareRecipe, {**values, "cells": cells}, origin="recipe")

    disks = [plan_of(made(cells), 0).disk for cells in (low, full, full | low)]
    assert disks[0] < disks[1] == disks[2] / 2
    more = {"more kept": {"keep_checkpoints": 9}}
    assert plan_of(made(more | low), 0).disk == plan_of(made(low | more), 0).disk == 2 * plan_of(made(more), 0).disk


def test_a_dry_run_names_weights_prompts_and_data_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    values = {**VALUES, "out": str(tmp_path / "out"), "test": str(tmp_path / "empty")}
    values["sampling"] = {**VALUES["sampling"], "data": str(tmp_path / "empty")}
    recipe = config.build(ReproduceRecipe, {**values, "evaluate": {"metrics": ["strict", "fid"]}}, origin="recipe")
    missing = [finding.line() for finding in findings(recipe) if finding.state == "missing"]
    assert [line.split(":")[0] for line in missing] == ["missing data", "missing prompts", "missing metrics"]
    assert "no picture in" in missing[0]
    assert "as evaluate.inception.weights=PATH. Or leave 'fid' out of evaluate.metrics" in missing[2]


def test_prompts_of_a_data_set_that_does_not_exist_are_not_ok(tmp_path: Path) -> None:
    values = {**VALUES, "out": str(tmp_path / "out")}
    values["sampling"] = {**VALUES["sampling"], "data": str(tmp_path / "none"), "count": 5}
    recipe = config.build(ReproduceRecipe, values, origin="recipe")
    found = [finding.line() for finding in findings(recipe) if "prompts" in finding.line() or "none" in finding.line()]
    assert found == [f"missing data: {tmp_path / 'none'}: doesn't exist yet"]


def test_a_recipe_of_another_command_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as told:
        ReproduceRecipe.load(RECIPES / "lora-small.yaml")
    assert str(told.value).endswith(
        "lora-small.yaml: this is a recipe of `fairhuman train`; a reproduction has `cells`"
    )
    with pytest.raises(RecipeError, match=r"this is a recipe of `fairhuman reproduce`, as it has `cells`$"):
        load_recipe(recipe_file(tmp_path))
    with pytest.raises(RecipeError, match=r"this is a recipe of `fairhuman reproduce`, as it has `sampling`$"):
        CompareRecipe.load(recipe_file(tmp_path))


def test_the_full_size_tables_are_the_papers_runs() -> None:
    paper = config.load(TrainRecipe, RECIPES / "paper" / "lora-sdxl.yaml")
    own = {"out", "seed", "validation.data", "validation.every", "validation.count", "fairness.length"}
    table2, table3 = (config.load(ReproduceRecipe, RECIPES / "paper" / f"table{n}-sdxl.yaml") for n in (2, 3))
    mpd = table2.run("MPD", 1, None, "test")
    assert set(config.differences(paper, mpd)) == own
    assert (paper.fairness.length, mpd.fairness.length) == ("radius", "clip"), "the supplement's, and one for all"
    assert [table2.run(cell, 1, None, "test").strategy for cell in table2.cells] == STRATEGIES
    assert [table3.run(cell, 1, None, "test").lora.rank for cell in table3.cells] == [64, 128, 256]
    assert set(config.differences(paper, table3.run("rank 256", 1, None, "test"))) == own
    assert config.differences(table2.sampling, table3.sampling) == {}


@pytest.mark.parametrize(("upscale", "said"), [(4, True), (1, False)])
def test_the_set_up_says_that_small_pictures_are_enlarged_as_the_paper_does_not(upscale: int, said: bool) -> None:
    recipe = config.load(ReproduceRecipe, RECIPES / "table2-small.yaml", [f"evaluate.upscale={upscale}"])
    text = setup(recipe, SimpleNamespace(records=[None] * 48, data="shown")).metrics
    assert ("pictures of up to 256 px enlarged 4 times before detection" in text) == said


@pytest.mark.slow
def test_the_plan_of_the_full_size_is_that_of_the_arithmetic() -> None:
    plan = plan_of(config.load(ReproduceRecipe, RECIPES / "paper" / "table2-sdxl.yaml"), None)
    assert (plan.runs, plan.device) == (21, "one 80 GB GPU")
    # 50,000 steps of 4 pictures; 1 + 3 x 2 forward passes for MPD with checkpointing, 3 for a plain step
    passes = 3 * sum(7 if strategy in ("nash", "mpd") else 3 for strategy in STRATEGIES)
    assert plan.train_s == pytest.approx(200_000 * passes * forward_flops("sdxl", (1024, 1024)) / 1.2e14, rel=1e-6)
    assert 5.9e12 < forward_flops("sdxl", (1024, 1024)) < 7e12, "two operations for each of about 3e12 multiplications"
