"""The demo: render people, fine-tune a small model in three ways from the same seeds, sample, evaluate, report.

Each finished stage is kept in the folder, so running the same command again resumes the demo.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.compare import jobs
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.run import build_dataset
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.demo.page import METHODS, TITLES, Samples, write_demo_report
from fairhuman.demo.settings import DemoSettings
from fairhuman.detect.bundled import load_runtime
from fairhuman.detect.detection import DetectorError
from fairhuman.errors import RecipeError
from fairhuman.evaluate.run import EvaluationInputs, evaluate
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.models.locations import DIFFUSERS_FILE, check_location
from fairhuman.synth.run import render_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.bases import check_settings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display
from fairhuman.utils.files import write_text

# Rendered people are fully annotated, so the build only checks and stores them.
BUILD = config.build(BuildRecipe, {"min_side": None, "detect": None, "caption": {"kind": "text"}}, origin="demo")


def run_demo(out: Path, settings: DemoSettings, display: Display) -> int | None:
    """Perform all unfinished steps in `out`; returns the signal that interrupted them, or None.

    Raises:
        FairHumanError: `out` holds a demo with other settings, or a step failed.
    """
    runs = demo_recipes(out, settings)
    _begin(out, settings)
    make_people(out, settings, display)
    prompts = write_prompts(out / "data" / "held-out", settings.samples, out / "prompts.txt")
    display.say("fine-tuning with MPD, with fixed weights and with LS, then sampling from all four models")
    signal = jobs.run_jobs(_jobs(out, settings, runs), display, at_once=min(2, os.cpu_count() or 1))
    if signal is not None:
        display.say("stopped; run the same command again to resume")
        return signal
    path = write_demo_report(
        out, {name: runs[name].out for name in METHODS}, _look(out, prompts, display), settings, _facts(settings)
    )
    display.say(f"report: {path}")
    display.say(f"its runs, samples and data in the browser: fairhuman studio {shlex.quote(str(out))}")
    return None


def _begin(out: Path, settings: DemoSettings) -> None:
    """Save the settings, and check that the folder wasn't started with others."""
    kept = out / "demo.yaml"
    if kept.is_file():
        for name, (old, new) in config.differences(config.load(DemoSettings, kept), settings).items():
            raise RecipeError(f"{out}: holds a demo with {name} {old!r}, not {new!r}; give another folder")
    config.save(settings, kept)


def make_people(out: Path, settings: DemoSettings, display: Display) -> None:
    """Render the training people and the held-out people, and build a data set of each."""
    for part, count, seed in (("train", settings.people, 0), ("held-out", settings.held_out, 1)):
        people = SynthSettings(count=count, size=settings.size, seed=settings.seed + seed)
        render_people(out / "people" / part, people, display)
        build_dataset(out / "people" / part, out / "data" / part, BUILD)


def demo_recipes(out: Path, settings: DemoSettings) -> dict[str, TrainRecipe]:
    """Training recipes by method.

    Raises:
        ModelError: the model doesn't exist.
        RecipeError: a setting isn't for the model's base.
    """
    check_location(settings.model)
    recipes = {name: demo_recipe(out, settings, name) for name in METHODS}
    for recipe in recipes.values():
        check_settings(recipe)
    return recipes


def demo_recipe(out: Path, settings: DemoSettings, method: str) -> TrainRecipe:
    """The training recipe of a method. They differ in the strategy alone, so data order and noise are the same."""
    values: dict[str, Any] = {
        "model": settings.model,
        "data": str(out / "data" / "train"),
        "out": str(out / method),
        "seed": settings.seed,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "resolution": settings.size,
        "learning_rate": settings.learning_rate,
        **METHODS[method],
        "checkpoint_every": 50,
        "cache": {"latents": True, "text": True, "folder": str(out / "cache")},
        "lora": {"rank": settings.rank, "targets": settings.targets},
        "view": {"crop": "center"},
        "schedule": {"name": "cosine", "warmup_steps": settings.steps // 10},
        "validation": {
            "data": str(out / "data" / "held-out"),
            "every": max(1, settings.steps // 2),
            "count": settings.held_out,
        },
        "preview": {"count": settings.previews, "steps": settings.sample_steps, "guidance": settings.guidance},
    }
    return config.build(TrainRecipe, values, origin="demo")


def write_prompts(people: Path, count: int, file: Path) -> list[str]:
    """Write the captions of the first `count` people of a data set into `file`, one per line, and return them."""
    records = read_source(people, ("face", "hand"), SourceSettings(), LoadReport())
    prompts = [" ".join(record.caption.split()) for record in records[:count]]
    write_text(file, "\n".join(prompts) + "\n")
    return prompts


def _jobs(out: Path, settings: DemoSettings, runs: Mapping[str, TrainRecipe]) -> list[jobs.Command]:
    """The training and sampling commands, with their cost in seconds on one CPU core of 2026."""
    options = jobs.sampling_options(
        settings.model, settings.sample_steps, settings.guidance, (settings.size, settings.size), settings.seed
    )
    draws = settings.samples * settings.sample_steps
    commands = [jobs.training_job(name, runs[name], settings.steps * 0.35) for name in METHODS]
    for name in TITLES:
        lora = runs[name].out / "lora" / DIFFUSERS_FILE if name in runs else None
        sampled = out / "samples" / name
        commands.append(
            jobs.sampling_job(
                f"samples {name}", sampled, out / "prompts.txt", settings.samples, options, lora, draws / 30
            )
        )
    return commands


def _look(out: Path, prompts: Sequence[str], display: Display) -> Samples:
    """Evaluate faces and hands of the samples; without detectors the report states what is missing."""
    folders = {title: out / "samples" / name for name, title in TITLES.items()}
    pictures = {title: sorted(folder.glob("*.png")) for title, folder in folders.items()}
    try:
        load_runtime()
    except DetectorError as error:
        display.say(f"samples not measured: {error}")
        return Samples(prompts, pictures, None, str(error))
    display.say("detecting faces and hands in the samples")
    job = EvaluationInputs(folders, out / "prompts.txt", out / "data" / "held-out", TITLES["base"], out / "features")
    settings = EvaluateSettings(metrics=["strict"], workers=min(2, os.cpu_count() or 1))
    return Samples(prompts, pictures, evaluate(job, settings, out / "evaluation"))


def _facts(settings: DemoSettings) -> list[tuple[str, str]]:
    return [
        ("base", settings.model),
        ("LoRA", f"rank {settings.rank} on {settings.targets}"),
        ("people trained on", str(settings.people)),
        ("people held out", str(settings.held_out)),
        ("steps", f"{settings.steps} of {settings.batch_size} pictures"),
        ("learning rate", f"{settings.learning_rate:g}"),
        ("seed", str(settings.seed)),
    ]
