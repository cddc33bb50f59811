"""MoLE against LoRA with the same budget: the same pictures of rendered people, trained and measured alike.

    .venv/bin/python benchmarks/mole.py [--quick] [--steps 160] [--work runs/mole]

Each method may train on `steps` batches of 4. The LoRA (LS and MPD, rank 16, attention) uses them as they are. MoLE
(rank 16 each, alpha 4 and 8) divides them among its three stages in the paper's proportions, 30,000 : 60,000 : 50,000:
close-ups of faces and of hands, cut from the same people by `fairhuman data export --closeups`, then whole pictures.
Each method has its own learning rate, the same for MoLE's stages, chosen by the rule of `fairhuman compare` on a tuning
set with the first seed. Reported are held-out losses on other people, three seeds, with intervals over seeds and
pictures, and the faces and hands detected in samples of each first seed.

Run the same command again to resume.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from common import save
from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options, training_job
from fairhuman.compare.runs import choose_learning_rate, edge_note
from fairhuman.data.export.closeups import CloseupSettings
from fairhuman.data.export.run import export_dataset
from fairhuman.demo.run import write_prompts
from fairhuman.evaluate import run as evaluation
from fairhuman.evaluate.metrics.held_out_losses import ModelSpec, measure_losses
from fairhuman.evaluate.settings import EvaluateSettings, LossSettings
from fairhuman.report.changes import Series, change, seed_changes, series_of
from fairhuman.report.run_folder import HeldOutEvaluation
from fairhuman.synth.run import render_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import write_json

ROOT = Path(__file__).parents[1]
LS, MPD, MOLE = "LoRA LS", "LoRA MPD", "MoLE"
STAGES = {"face": 30, "hand": 60, "gates": 50}  # thousands of steps in MoLE's paper
OBJECTIVES = ("global", "face", "hand")
CLOSEUPS = ["min_side=16", "max_enlarge=4"]


@dataclass(frozen=True)
class Plan:
    """All sizes of the benchmark."""

    work: Path
    steps: int = 160
    seeds: tuple[int, ...] = (1, 2, 3)
    rates: tuple[float, ...] = (3e-4, 1e-3)
    batch_size: int = 4
    rank: int = 16
    size: int = 128
    render: int = 256  # so that close-ups have pixels
    sets: tuple[tuple[str, int, int], ...] = (("train", 384, 51), ("tuning", 32, 52), ("test", 96, 53))
    timesteps: tuple[float, ...] = (0.05, 0.2, 0.4, 0.6, 0.8)
    samples: int = 64
    sample_steps: int = 20

    def people(self, name: str) -> Path:
        """The folder of a set."""
        return self.work / "people" / name


def quick(work: Path) -> Plan:
    """Return sizes for seconds instead of an hour; measures nothing."""
    sets = (("train", 12, 51), ("tuning", 3, 52), ("test", 3, 53))
    return Plan(work, 8, (1, 2), (1e-3,), 2, 2, 64, 128, sets, (0.4,), 2, 2)


def stage_steps(steps: int) -> dict[str, int]:
    """Return the budget in the proportions of MoLE's stages."""
    face, hand = (steps * STAGES[name] // sum(STAGES.values()) for name in ("face", "hand"))
    return {"face": face, "hand": hand, "gates": steps - face - hand}


def training(plan: Plan, method: str, rate: float, seed: int, stage: str = "") -> TrainRecipe:
    """Return one run; those of MoLE have a stage."""
    steps = stage_steps(plan.steps)[stage] if stage else plan.steps
    name = f"{method}-{rate:g}-seed-{seed}".replace(" ", "-").lower()
    closeup = stage in ("face", "hand")
    values: dict[str, Any] = {
        "kind": "mole" if stage else "lora",
        "model": "small",
        "data": str(plan.work / "closeups" / stage if closeup else plan.people("train")),
        "out": str(plan.work / "runs" / name / stage),
        "seed": seed,
        "steps": steps,
        "batch_size": plan.batch_size,
        "resolution": plan.size,
        "learning_rate": rate,
        "strategy": "mpd" if method == MPD else "ls",
        "fairness": {"mode": "exact"},
        "precision": "bf16",
        "cache": {"latents": True, "folder": str(plan.work / "cache")},
        "view": {"crop": "center"},
        "schedule": {"name": "cosine", "warmup_steps": steps // 10},
        "validation": {"every": 0},
        "preview": {"count": 0},
    }
    if not stage:
        return config.build(TrainRecipe, {**values, "lora": {"rank": plan.rank}}, origin="mole")
    starts = {f"start_{one}": str(plan.work / "runs" / name / one / "mole") for one in ("face", "hand")}
    section = {"stage": stage, "rank": plan.rank, "alphas": {"face": plan.rank / 4, "hand": plan.rank / 2}}
    values |= {"regions": {"names": []}, "mole": {**section, **(starts if stage == "gates" else {})}}
    return config.build(TrainRecipe, values, origin="mole")


def last_run(plan: Plan, method: str, rate: float, seed: int) -> TrainRecipe:
    """Return the run whose result is measured."""
    return training(plan, method, rate, seed, "gates" if method == MOLE else "")


def train_all(plan: Plan, runs: Sequence[tuple[str, float, int]], console: Console, processes: int) -> None:
    """Train the missing runs; the gates after their experts."""
    experts = [training(plan, *run, stage) for run in runs if run[0] == MOLE for stage in ("face", "hand")]
    for wave in (experts, [last_run(plan, *run) for run in runs]):
        work([training_job(str(one.out.relative_to(plan.work)), one, one.steps) for one in wave], console, processes)


def work(jobs: Sequence[Command], console: Console, processes: int) -> None:
    """Run jobs; exit if a signal was received."""
    signal = run_jobs(jobs, ConsoleDisplay(console), processes)
    if signal is not None:
        console.print("stopped; run the same command again to resume", highlight=False)
        sys.exit(128 + signal)


def evaluations(plan: Plan, runs: Sequence[tuple[str, float, int]], split: str) -> dict[str, HeldOutEvaluation]:
    """Return held-out losses of the base and of runs, on the same noise; saved beside each run."""
    settings = LossSettings(resolution=plan.size, timesteps=plan.timesteps, precision="bf16")
    places: dict[str, tuple[ModelSpec, Path]] = {
        "base": (ModelSpec("small"), plan.work / "runs" / f"base-{split}.json")
    }
    for run in runs:
        made = last_run(plan, *run)
        places[str(made.out)] = ModelSpec("small", made.product), made.out / f"losses-{split}.json"
    for name, (model, file) in places.items():
        if not file.is_file():
            [found] = measure_losses({name: model}, plan.people(split), settings).values()
            write_json(file, found.line())
    return {name: read_losses(file) for name, (_, file) in places.items()}


def read_losses(file: Path) -> HeldOutEvaluation:
    """What `HeldOutLosses.line` became."""
    line = json.loads(file.read_text(encoding="utf-8"))
    sums = {part: {name: np.array(one[part]) for name, one in line["objectives"].items()} for part in ("error", "area")}
    return HeldOutEvaluation(0, tuple(line["keys"]), sums["error"], sums["area"])


def series(plan: Plan, runs: Sequence[tuple[str, float, int]], split: str) -> Series:
    """Return losses of one method's runs with the base's."""
    found = evaluations(plan, runs, split)
    return series_of({name: (found["base"], one) for name, one in found.items() if name != "base"})


def prepare(plan: Plan, console: Console) -> None:
    """Render people, cut close-ups, write prompts."""
    for name, count, seed in plan.sets:
        settings = SynthSettings(count=count, size=plan.render, seed=seed)
        render_people(plan.people(name), settings, ConsoleDisplay(console))
    for part in ("face", "hand"):
        if not (plan.work / "closeups" / part).exists():
            near = config.build(CloseupSettings, {"region": part}, [*CLOSEUPS, f"size={plan.size}"])
            export_dataset(plan.people("train"), plan.work / "closeups" / part, "parquet", near=near)
    write_prompts(plan.people("test"), plan.samples, plan.work / "prompts.txt")


def found_in_samples(plan: Plan, firsts: Mapping[str, TrainRecipe], console: Console, processes: int) -> dict[str, Any]:
    """Return faces and hands in samples of the base and of each method's first seed."""
    options = sampling_options("small", plan.sample_steps, 2.5, plan.size, seed=0)
    jobs, folders = [], {}
    for name, made in {"base": None, **firsts}.items():
        beside = [] if made is None else ["--mole" if name == MOLE else "--lora", made.product]
        folders[name] = plan.work / "samples" / name.replace(" ", "-").lower()
        jobs.append(sampling_job(name, folders[name], plan.work / "prompts.txt", plan.samples, [*options, *beside]))
    work(jobs, console, processes)
    folder = plan.work / "evaluation"
    job = evaluation.EvaluationInputs(
        folders, plan.work / "prompts.txt", plan.people("test"), "base", folder / "features"
    )
    done = evaluation.evaluate(job, EvaluateSettings(metrics=["strict"]), folder)
    assert done is not None
    metrics: dict[str, Any] = {}
    for result in done.found.results:
        metrics.setdefault(result.metric.name, {})[result.method] = asdict(result.measured)
    return metrics


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print the tables."""
    for name, found in results["change"].items():
        cells = [f"{o} {one['value']:+.2%} [{one['low']:+.2%}, {one['high']:+.2%}]" for o, one in found.items()]
        console.print(f"{name:20}" + "  ".join(cells), highlight=False, soft_wrap=True)
    for metric, methods in results["samples"].items():
        cells = [f"{name} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for name, one in methods.items()]
        console.print(f"{metric:28}" + "  ".join(cells), highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the script works")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: benchmarks/results)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "mole", help="folder of people and runs")
    parser.add_argument("--steps", type=int, default=Plan.steps, help="batches that each method may look at")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="runs at once")
    options, console = parser.parse_args(arguments), Console()
    plan = (
        quick(options.work.with_name(f"{options.work.name}-quick"))
        if options.quick
        else Plan(options.work, options.steps)
    )
    prepare(plan, console)
    results: dict[str, Any] = {"learning rate": {}, "change": {}}
    found, firsts = {}, {}
    for method in (LS, MPD, MOLE):
        tuning = {rate: (method, rate, plan.seeds[0]) for rate in plan.rates}
        train_all(plan, list(tuning.values()), console, options.processes)
        tuned = {}
        for rate, run in tuning.items():
            one = series(plan, [run], "tuning")
            tuned[rate] = {name: change(one, name).value for name in OBJECTIVES}
        rate = choose_learning_rate(tuned, 0.005)
        console.print(f"learning rate of {method}: {rate:g}{edge_note(tuned, rate)}", highlight=False)
        results["learning rate"][method] = {"grid": tuned, "picked": rate}
        runs = [(method, rate, seed) for seed in plan.seeds]
        train_all(plan, runs, console, options.processes)
        found[method], firsts[method] = series(plan, runs, "test"), last_run(plan, *runs[0])
        results["change"][method] = {
            name: {**asdict(change(found[method], name)), "seeds": seed_changes(found[method], name)}
            for name in OBJECTIVES
        }
    for other in (LS, MOLE):
        differences = {name: asdict(change(found[MPD], name, found[other])) for name in OBJECTIVES}
        results["change"][f"{MPD} - {other}"] = differences
    results["samples"] = found_in_samples(plan, firsts, console, options.processes)
    show(results, console)
    save("mole", {**asdict(plan), "work": plan.work.name, "stages": stage_steps(plan.steps)}, results, options)


if __name__ == "__main__":
    main()
