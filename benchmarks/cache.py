"""Measure what the caches of latents and text embeddings save, in a training step and in loading a sample.

    .venv/bin/python benchmarks/cache.py [--quick] [--parts step sample demo]

`step`: LS on the small SDXL in bfloat16, LoRA of rank 16, 128 px, batch 4 and 8, from file to optimiser; and the part
of it that is spent loading the batch, which workers can hide. `sample`: the time to load one sample from JPEGs of 128
and 1024 px. Pictures are coloured noise at several scales, which costs a decoder as much as photos. `demo`: the
training of `make demo`, MPD and LS with validation and previews and initially empty caches, against the same without
caches, and without caches by exact MPD, the original setting.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from common import arguments, compare, one_thread, save
from fairhuman import config
from fairhuman.bench.noise import write_noise
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.encodings import Encodings
from fairhuman.demo.run import demo_recipe, make_people
from fairhuman.demo.settings import DemoSettings
from fairhuman.train.cache.fill import fill
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import set_up
from fairhuman.train.step import fair_step

WAYS: dict[str, dict[str, bool]] = {"none": {}, "latents": {"latents": True}, "both": {"latents": True, "text": True}}


def recipe_of(pictures: Path, work: Path, batch_size: int, resolution: int, cache: dict[str, bool]) -> TrainRecipe:
    values: dict[str, Any] = {
        "data": str(pictures),
        "out": str(work / "run"),
        "steps": 1,
        "batch_size": batch_size,
        "resolution": resolution,
        "strategy": "ls",
        "precision": "bf16",
        "fairness": {"measure_every": 0},
        "lora": {"rank": 16},
        "view": {"crop": "center"},
        "validation": {"every": 0},
        "cache": cache | {"folder": str(work / "cache")},
    }
    return config.build(TrainRecipe, values, origin="cache")


class Stepper:
    """Takes the steps of a recipe, one per call."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe = recipe
        run = set_up(recipe, PartialState(cpu=True))
        self.people, self.objectives, self.fair, self.optimizer = (
            run.data.train,
            run.objectives,
            run.fair,
            run.optimizer,
        )
        self.position = 0

    def load(self) -> Batch:
        first = self.position
        self.position += self.recipe.batch_size
        return collate([self.people[position] for position in range(first, self.position)])

    def step(self) -> None:
        fair_step(self.objectives, self.fair, [self.load()])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def measure_steps(work: Path, quick: bool) -> dict[str, Any]:
    size = 64 if quick else 128
    pictures = work / "pictures"
    write_noise(pictures, 8 if quick else 64, (size, size))
    results: dict[str, Any] = {}
    for batch_size in (2,) if quick else (4, 8):
        steppers: dict[str, Stepper] = {}
        for way, cache in WAYS.items():
            recipe = recipe_of(pictures, work, batch_size, size, cache)
            if cache:
                fill(recipe, LoadReport(), lambda _text: None, lambda *_done: None)
            steppers[way] = Stepper(recipe)
        repeats = 2 if quick else 15
        steps = compare({way: stepper.step for way, stepper in steppers.items()}, "none", repeats)
        loads = compare({way: stepper.load for way, stepper in steppers.items()}, "none", repeats)
        for way in WAYS:
            share = loads[way]["cpu_s"]["median"] / steps[way]["cpu_s"]["median"]
            steps[way] |= {"loading": loads[way]["cpu_s"], "loading_share": share}
            ratio = steps[way]["ratio"]["median"]
            print(f"batch {batch_size}, cache {way:8} step {ratio:.3f} of none, loading {share:.1%} of it")
        results[f"batch {batch_size}"] = steps
    return results


def measure_samples(work: Path, quick: bool) -> dict[str, Any]:
    """Load samples with and without cached latents; the latents' values don't matter here."""
    results: dict[str, Any] = {}
    for size in (64,) if quick else (128, 1024):
        pictures = work / f"pictures-{size}"
        write_noise(pictures, 4 if quick else 16, (size, size))
        recipe = recipe_of(pictures, work, 1, size, WAYS["latents"])
        people = load_data(recipe, LoadReport()).train
        kept = Encodings(work / f"kept-{size}")
        for index in range(len(people)):
            for view, _ in people.views(index, recipe.size):
                kept.add(view.key, torch.randn(2, 4, size // 8, size // 8).half())
        kept.flush()
        known = people.reading(kept)
        ways: dict[str, Callable[[], object]] = {
            "none": lambda people=people: [people[position] for position in range(len(people))],
            "latents": lambda people=known: [people[position] for position in range(len(people))],
        }
        results[f"{size} px"] = compare(ways, "none", 2 if quick else 9)
        seconds = {way: results[f"{size} px"][way]["cpu_s"]["median"] / len(people) for way in ways}
        ratio = results[f"{size} px"]["latents"]["ratio"]["median"]
        print(f"{size} px: {1000 * seconds['none']:.1f} ms, kept {1000 * seconds['latents']:.1f} ms, ratio {ratio:.3f}")
    return results


def measure_demo(work: Path, quick: bool) -> dict[str, Any]:
    sizes = {"people": 8, "held_out": 8, "samples": 2, "steps": 2, "size": 64, "previews": 0} if quick else {}
    settings = DemoSettings(**sizes)
    make_people(work, settings, ConsoleDisplay())
    without = {"cache": {"latents": False, "text": False}}
    changes: dict[str, dict[str, Any]] = {
        "now": {},
        "without caches": without,
        "exact, without caches": without | {"fairness": {"mode": "exact"}},
    }

    def trained(changed: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(dir=work) as out:
            for method in ("mpd", "ls"):
                values = demo_recipe(work, settings, method).model_dump(mode="json")
                moved = {"out": f"{out}/{method}", "cache": {"folder": f"{out}/cache"}}
                train(config.build(TrainRecipe, config.merge(config.merge(values, moved), changed)))

    results = compare({way: partial(trained, changed) for way, changed in changes.items()}, "without caches", 2)
    for way, found in results.items():
        print(f"{way:22} {found['cpu_s']['median']:.0f} s of CPU time, ratio {found['ratio']['median']:.3f}")
    return results


def main() -> None:
    parts = {"step": measure_steps, "sample": measure_samples, "demo": measure_demo}
    options = arguments(__doc__, tuple(parts))
    one_thread()
    for part in options.parts:
        with tempfile.TemporaryDirectory() as work:
            found = parts[part](Path(work), options.quick)
        save(
            "cache",
            {"repeats": {"step": 15, "sample": 9, "demo": 2}, "baseline": "none, or without caches"},
            {part: found},
            options,
        )


if __name__ == "__main__":
    main()
