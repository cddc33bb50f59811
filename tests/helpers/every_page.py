"""A page of every kind, small and made in a moment, for tests of how pages look."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from fairhuman import config
from fairhuman.compare.analysis import Judged
from fairhuman.compare.grid.grid import write_grid
from fairhuman.compare.page import write_comparison
from fairhuman.compare.paper.drawing import Drawn, PromptSet, TableSetting
from fairhuman.compare.paper.measurements import Measurement
from fairhuman.compare.paper.recipe import ReproduceRecipe
from fairhuman.compare.paper.reproduce_page import Count, Results, TableNumbers
from fairhuman.compare.paper.reproduce_page import write_report as write_reproduction
from fairhuman.compare.paper.settings import CostSettings
from fairhuman.compare.paper.sheet import write_sheet
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import CompareRecipe
from fairhuman.config import build
from fairhuman.data.look.figures import write_statistics
from fairhuman.data.look.show import show_dataset
from fairhuman.data.look.statistics import dataset_statistics
from fairhuman.data.validation.build import build_validation
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.demo.page import METHODS, TITLES, Samples, write_demo_report
from fairhuman.demo.settings import DemoSettings
from fairhuman.evaluate.page import write_page
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.results import WHOLE, Contrast, EvaluationResults, Metric, MetricResult
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.record import Box, HumanRecord
from fairhuman.report.changes import read_series
from fairhuman.report.html import render
from fairhuman.report.training import write_training_report
from fairhuman.stats.estimate import Estimate
from fairhuman.stats.paired import Difference, Measured
from fairhuman.study.answers import Votes
from fairhuman.study.report import StudyFacts, write_report
from fairhuman.study.study import StudySettings
from fairhuman.utils.files import write_json
from helpers.figures import give_poses, write_figures
from helpers.refining import WEAK, refine
from helpers.run_folder import make_run
from helpers.simulated_votes import simulate, vote

LONG = "sharpened_and_recoloured-by-a-LoRA-of-rank-16"
METRICS = [
    Metric(
        "strict face confidence",
        "higher",
        "How sure the detector is of the face.",
        "Whether it is beautiful.",
        judges="faces",
    ),
    Metric(
        "hand detection rate",
        "higher",
        "Share of pictures with a hand.",
        "Whether it has five fingers.",
        judges="hands",
    ),
    Metric("EfficientNet Fréchet distance", "lower", "Distance to the reference.", "Single pictures.", judges=WHOLE),
]


def every_page(folder: Path) -> dict[str, Path]:
    """Write a page of every kind below the folder; its path by the kind."""
    runs = {name: make_run(folder / "demo" / name, steps=40) for name in METHODS}
    write_figures(folder / "people", 4, size=64)
    give_poses(folder / "people", without=1)
    show_dataset(folder / "people", folder / "show.html")
    write_statistics(dataset_statistics(folder / "people"), folder / "statistics.html")
    return {
        "training": write_training_report(runs["mpd"]),
        "empty training": write_training_report(_made(folder / "nothing")),
        "evaluation": _evaluation(_made(folder / "evaluation")),
        "comparison": _comparison(folder / "comparison", runs),
        "cost": _cost(folder / "cost.html"),
        "reproduction": _reproduction(folder / "reproduction"),
        "paper": write_sheet({}, _made(folder / "paper")),
        "data show": folder / "show.html",
        "data statistics": folder / "statistics.html",
        "validation": _validation(folder),
        "refinement": _refinement(folder),
        "grid": _grid(folder),
        "study": _study(_made(folder / "study")),
        "empty study": write_report(Votes([]), StudySettings(), StudyFacts(("a", "b"), 3), _made(folder / "nobody")),
        "demo": _demo(folder / "demo", runs),
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _evaluation(out: Path) -> Path:
    methods = {name: [EvalImage(HumanRecord("a.png", b"", 8, 8, ""), b"", "", "a")] * 30 for name in ("base", LONG)}
    results, differences = [], []
    for place, metric in enumerate(METRICS):
        for name in methods:
            results.append(MetricResult(metric, name, Measured(0.8123, 0.78, 0.85, 30, 0.02, 30)))
        found = Measured(0.1, 0.02, 0.18, 30, 0.04, 30) if place else Measured(math.nan, math.nan, math.nan, 0)
        differences.append(Contrast(metric, LONG, "base", Difference(found, 0.003 if place else math.nan)))
    found = EvaluationResults(results, differences, warnings=["Two pictures have no prompt."], peak_mb=1234.0)
    found.seconds = {"features": (30, 0.5)}
    return write_page("base", EvaluateSettings(), out, methods, None, {}, found)


def _comparison(out: Path, runs: dict[str, Path]) -> Path:
    values = {
        "out": str(out),
        "train": {"data": "people", "steps": 40},
        "cells": {"LS": {"strategy": "ls"}, LONG: {"strategy": "mpd"}},
        "against": "LS",
        "seeds": [1, 2],
        "test": "people",
    }
    recipe = config.build(CompareRecipe, values, origin="compare")
    names = {"LS": runs["ls"], LONG: runs["mpd"]}
    outcome = ComparisonRuns(
        series={cell: read_series([run, run]) for cell, run in names.items()},
        seeds={cell: [1, 2] for cell in names},
        tuned={"LS": {1e-4: {"global": 0.001, "face": -0.02, "hand": -0.03}}},
        picked=dict.fromkeys(names, 1e-4),
        failed={"mpd-seed-3": "ended with exit code 1"},
    )
    lower = Judged(Estimate(-0.02, -0.03, -0.01, 60), Estimate(-0.02, -0.04, -0.005, 60), 0.02, "lower")
    return write_comparison(recipe, outcome, {"LS": {LONG: dict.fromkeys(("global", "face", "hand"), lower)}})


def _cost(path: Path) -> Path:
    measured = {"dtype": "float32", "device": "cpu", "threads": 2, "size": 128, "steps": 30, "rank": 256}
    measured |= {"scope": "one picture at a time", "repeats": 3, "memory": "parameters only"}
    variants = [("LoRA, not fused", "1.35", "-", "2.31 [2.3, 2.4]", "1.08 [1.07, 1.1]", "1.08 [1.07, 1.09]")]
    counted = [("LoRA, not fused, rank 256", "371,589,120", "1,417.5", "708.8", "1,413.12")]
    context = {"title": "Inference cost", "model": "small", "measured": measured}
    path.write_text(render("cost.html", **context, variants=variants, counted=counted), encoding="utf-8")
    return path


def _reproduction(out: Path) -> Path:
    values = {
        "out": str(out),
        "train": {"data": "people", "steps": 40},
        "cells": {"LS": {"strategy": "ls"}, LONG: {"strategy": "mpd"}},
        "test": "people",
        "sampling": {"data": "people"},
        "cost": {},
    }
    recipe = config.build(ReproduceRecipe, values, origin="reproduce")
    variants = ("LoRA, fused", "LoRA, not fused", "MoLE")
    costs = {
        "settings": CostSettings().model_dump(mode="json"),
        "measured": {
            "variants": [{"name": name, "wall_ratio": {"median": 1.1}} for name in variants],
            **{"device": "cpu", "size": 128, "rank": 16, "dtype": "float32"},
        },
        "counted": {
            name: {"fp16_mib": 708.75, "fp32_mib": 1417.5}
            for name in ("LoRA, fused", "LoRA, not fused, rank 256", "MoLE")
        },
    }
    write_json(out / "costs" / "costs.json", costs)
    setting = TableSetting(
        "one learning rate", 0.3, {name: Drawn(name, out, {1: None}) for name in ("base", *recipe.cells)}
    )
    value = Estimate(0.8123, 0.78, 0.85, 30)
    found = [
        Measurement(name, cell, "higher", value, None if cell == "LS" else Estimate(0.1, 0.02, 0.18, 30), 0.003, True)
        for name in ("strict face confidence", "official hand confidence")
        for cell in setting.drawn
    ]
    results = Results([TableNumbers("Table 2", setting, found)], [], [], [Count("runs", "", 17, 18)])
    return write_reproduction(recipe, PromptSet(Path("people"), [], out), results, {"mpd-seed-2": "no memory"})


def _validation(folder: Path) -> Path:
    filters = {"min_side": 64, "min_clarity_percentile": None, "unknown": "keep"}
    settings = {"count": 3, "draws": 2, "filters": filters, "detect": None}
    build_validation(folder / "people", folder / "validation", build(ValidationSetSettings, settings))
    return folder / "validation" / "report.html"


def _refinement(folder: Path) -> Path:
    Image.fromarray(WEAK).save(_made(folder / "weak") / f"{LONG}.png")
    refine(folder / "weak", folder / "refined")
    return folder / "refined" / "report.html"


def _grid(folder: Path) -> Path:
    for name in ("base", LONG):
        write_figures(folder / "samples" / name, 2, size=64)
    methods = {name: folder / "samples" / name / "images" for name in ("base", LONG)}
    boxes = [{"face": [Box(20.0, 8.0, 40.0, 24.0)], "hand": []}] * 2
    return write_grid(methods, folder / "grid", expected=boxes)


def _study(out: Path) -> Path:
    votes = simulate({"base": 0.0, "MPD": 0.4, LONG: 0.2}, np.random.default_rng(0), people=4, items=4)
    votes += [vote(0, ("base", "MPD"), "MPD", 9, trial=9, better="base")]
    facts = StudyFacts(("base", "MPD", LONG), 5, ["made by hand"], ["1 prompt without a picture"])
    return write_report(Votes(votes, ["line 3: no such method"], 5), StudySettings(), facts, out)


def _demo(out: Path, runs: dict[str, Path]) -> Path:
    picture = runs["mpd"] / "previews" / "photo-00.png"
    pictures = {name: [picture] for name in TITLES.values()}
    samples = Samples(["a person"], pictures, None, "no detector is installed.")
    settings = DemoSettings(people=6, steps=40, held_out=60)
    return write_demo_report(out, runs, samples, settings, [("steps", "40")])
