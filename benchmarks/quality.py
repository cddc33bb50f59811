"""Does fair fine-tuning help? LS and MPD on rendered people, several seeds, paired, tested on unseen people.

    .venv/bin/python benchmarks/quality.py [--quick] [--steps 150] [--model FOLDER] [--work runs/quality]

The full protocol is in docs/quality.md. In short: people with clean faces and hands, rendered at 128 px, in three
disjoint sets: train (2,000, seed 11), tuning (256, seed 12), test (512, seed 13). LoRA of rank 16 on {attention,
attention and convolutions} by {LS, MPD}, 300 steps of 8. The learning rate of each method is chosen on the tuning set
by one rule (`pick`). Five seeds per method, paired: a seed fixes order, flips, noise, timesteps and the LoRA's
initialisation for all methods. Reported are held-out losses on the test set before and after, on the same noise, with
intervals over seeds and pictures; then strict face and hand confidence of 200 samples of each model on the same prompts
and seeds.

Runs are separate processes, two at a time, one thread each. Run the same command again to resume.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from common import save
from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.compare import runs as ablation
from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options, training_job
from fairhuman.demo.run import write_prompts
from fairhuman.detect.bundled import load_runtime
from fairhuman.evaluate import run as evaluation
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.models.lora import DIFFUSERS_FILE
from fairhuman.report.changes import Series, base_loss, change, changes_figure, read_series, seed_changes
from fairhuman.report.text import duration
from fairhuman.synth.run import render_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.recipe import TrainRecipe

Method = tuple[str, str]  # strategy, targets of the LoRA
Run = tuple[Command, Path]
ROOT = Path(__file__).parents[1]
OBJECTIVES = ("global", "face", "hand")
TARGETS = ("attention", "attention+conv")
STRATEGIES = {"ls": "LS", "mpd": "MPD"}
MOST_GLOBAL = 0.005  # of the rule, and of the target
GOALS = {"face": -0.03, "hand": -0.05}
TIMESTEPS = 5  # of a validation
# Seconds on one core (AMD EPYC, bfloat16), for the estimate of time alone.
STEP_SECONDS = {"ls": 0.5, "mpd": 0.8}
START_SECONDS, FORWARD_SECONDS, SAMPLE_STEP_SECONDS = 15.0, 0.17, 0.034


@dataclass(frozen=True)
class Plan:
    """All sizes of the benchmark."""

    model: str
    work: Path
    steps: int = 300
    size: int = 128
    sets: tuple[tuple[str, int, int], ...] = (("train", 2000, 11), ("tuning", 256, 12), ("test", 512, 13))
    batch_size: int = 8
    rank: int = 16
    rates: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    tuning_seed: int = 0
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    samples: int = 200
    sample_steps: int = 30
    guidance: float = 2.5

    @property
    def methods(self) -> list[Method]:
        """All methods; the slower strategy first, so that the last jobs are short."""
        return [(strategy, targets) for targets in TARGETS for strategy in ("mpd", "ls")]

    def count(self, name: str) -> int:
        """Return the number of pictures of a data set."""
        return next(count for other, count, _ in self.sets if other == name)


def quick(model: str, work: Path) -> Plan:
    """Return sizes for seconds instead of hours; measures nothing."""
    sets = (("train", 6, 11), ("tuning", 4, 12), ("test", 4, 13))
    return Plan(model, work, 2, 64, sets, 2, 2, (1e-3,), 0, (1, 2), 2, 2)


def title(strategy: str, targets: str) -> str:
    return f"{STRATEGIES[strategy]}, {targets}"


def recipe(plan: Plan, strategy: str, targets: str, rate: float, seed: int, split: str) -> TrainRecipe:
    """Return one run; runs of one seed differ only in strategy, targets and learning rate."""
    name = f"{split}-{strategy}-{targets}-{rate:g}-seed-{seed}"
    values: dict[str, Any] = {
        "model": plan.model,
        "data": str(plan.work / "people" / "train"),
        "out": str(plan.work / f"steps-{plan.steps}" / name),
        "seed": seed,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "resolution": plan.size,
        "learning_rate": rate,
        "strategy": strategy,
        "fairness": {"mode": "exact"},
        "checkpoint_every": 100,
        "keep_checkpoints": 1,
        "precision": "bf16",
        "cache": {"latents": True, "folder": str(plan.work / "cache")},
        "lora": {"rank": plan.rank, "targets": targets},
        "view": {"crop": "center"},
        "schedule": {"name": "cosine", "warmup_steps": plan.steps // 10},
        "validation": {"data": str(plan.work / "people" / split), "every": plan.steps, "count": plan.count(split)},
        "preview": {"count": 0},
    }
    return config.build(TrainRecipe, values, origin="quality")


def run_seconds(plan: Plan, strategy: str, split: str) -> float:
    validations = 2 * plan.count(split) * TIMESTEPS / 8 * FORWARD_SECONDS
    return START_SECONDS + plan.steps * STEP_SECONDS[strategy] + validations


def jobs_of(plan: Plan, split: str, runs: Mapping[Method, Sequence[tuple[float, int]]]) -> dict[Method, list[Run]]:
    """Return the job of each method's (learning rate, seed), and the run's folder."""
    jobs: dict[Method, list[Run]] = {}
    for method, pairs in runs.items():
        recipes_of = [recipe(plan, *method, rate, seed, split) for rate, seed in pairs]
        seconds = run_seconds(plan, method[0], split)
        jobs[method] = [(training_job(made.out.name, made, seconds), made.out) for made in recipes_of]
    return jobs


def sampling_jobs(plan: Plan, runs: Mapping[Method, Sequence[Run]]) -> dict[str, Command]:
    """Return the jobs that sample the base and each method's first seed."""
    options = sampling_options(plan.model, plan.sample_steps, plan.guidance, (plan.size, plan.size), seed=0)
    seconds = START_SECONDS + plan.samples * plan.sample_steps * SAMPLE_STEP_SECONDS
    prompts, folder = plan.work / "prompts.txt", plan.work / f"steps-{plan.steps}" / "samples"
    jobs = {"base": sampling_job("samples base", folder / "base", prompts, plan.samples, options, None, seconds)}
    for (strategy, targets), (first, *_) in runs.items():
        name = title(strategy, targets)
        lora = first[1] / "lora" / DIFFUSERS_FILE
        place = folder / f"{strategy}-{targets}"
        jobs[name] = sampling_job(f"samples {name}", place, prompts, plan.samples, options, lora, seconds)
    return jobs


def pick(tuned: Mapping[float, Mapping[str, float]]) -> float:
    """Choose the learning rate by the rule of `fairhuman compare`, with the limit of the target."""
    return ablation.choose_learning_rate(tuned, MOST_GLOBAL)


def goals(series: Series) -> list[dict[str, Any]]:
    """Return the targets and whether they are met."""
    lines = []
    for name, goal in GOALS.items():
        value = change(series, name).value
        lines.append({"goal": f"{name} at least {-goal:.0%} lower", "found": value, "met": value <= goal})
    high = change(series, "global").high
    text = f"upper bound of the global change at most {MOST_GLOBAL:+.1%}"
    return [*lines, {"goal": text, "found": high, "met": high <= MOST_GLOBAL}]


def analyse(series: Mapping[Method, Series]) -> dict[str, Any]:
    """Return losses, changes, differences and targets, JSON-ready."""
    first = next(iter(series.values()))
    results: dict[str, Any] = {
        "base loss": {name: asdict(base_loss(first, name)) for name in OBJECTIVES},
        "change": {},
        "MPD - LS": {},
        "goals": {},
    }
    for (strategy, targets), found in series.items():
        results["change"][title(strategy, targets)] = {
            name: {**asdict(change(found, name)), "seeds": seed_changes(found, name)} for name in OBJECTIVES
        }
        if strategy == "mpd":
            ls = series["ls", targets]
            results["MPD - LS"][targets] = {name: asdict(change(found, name, ls)) for name in OBJECTIVES}
            results["goals"][title(strategy, targets)] = goals(found)
    return results


def detection(plan: Plan, folders: Mapping[str, Path], console: Console) -> dict[str, Any]:
    """Return faces and hands in the samples, by metric and method, and the differences to the base."""
    console.print("looking for faces and hands in the samples", highlight=False)
    folder = plan.work / f"steps-{plan.steps}" / "evaluation"
    people = plan.work / "people" / "test"
    job = evaluation.EvaluationInputs(folders, plan.work / "prompts.txt", people, "base", folder / "features")
    done = evaluation.evaluate(job, EvaluateSettings(metrics=["strict"]), folder)
    assert done is not None
    metrics: dict[str, Any] = {}
    for result in done.found.results:
        metrics.setdefault(result.metric.name, {})[result.method] = asdict(result.measured)
    for one in done.found.corrected():
        difference = {**asdict(one.difference.measured), "p_holm": one.corrected}
        metrics[one.metric.name][f"{one.method} - {one.against}"] = difference
    return metrics


def tradeoff_figure(tuned: Mapping[Method, Mapping[float, Mapping[str, float]]]) -> Figure:
    """Plot global loss against gain in faces and hands for each method's learning rates; tuning set, one seed."""
    figure = Figure(figsize=(9.6, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(GOALS), squeeze=False)[0]
    palette = dict(zip(STRATEGIES, ("#8a8a8a", "#0059a8"), strict=True))
    for axes, (name, goal) in zip(panels, GOALS.items(), strict=True):
        for (strategy, targets), found in tuned.items():
            points = [(100 * each["global"], 100 * each[name]) for _, each in sorted(found.items())]
            style = "-" if targets == TARGETS[0] else "--"
            label = title(strategy, targets)
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, color=palette[strategy], label=label)
        axes.axhline(100 * goal, color="#a33c00", linewidth=1.0, linestyle=":")
        axes.axvline(100 * MOST_GLOBAL, color="#a33c00", linewidth=1.0, linestyle=":")
        axes.set_xlabel("change of global loss, %")
        axes.set_ylabel(f"change of {name} loss, %")
        axes.grid(color="#e5e5e5", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    return figure


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print the tables."""
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)

    def cell(estimate: Mapping[str, Any]) -> str:
        return f"{estimate['value']:+7.2%} [{estimate['low']:+.2%}, {estimate['high']:+.2%}]"

    rows = dict(results["change"])
    rows |= {f"MPD - LS, {targets}": found for targets, found in results["MPD - LS"].items()}
    say(f"{'change of held-out loss':34}" + "".join(f"{name:30}" for name in OBJECTIVES))
    for name, found in rows.items():
        say(f"{name:34}" + "".join(f"{cell(found[o]):30}" for o in OBJECTIVES))
    for name, lines in results["goals"].items():
        for line in lines:
            say(f"{name}: {line['goal']}: {line['found']:+.2%}, {'met' if line['met'] else 'MISSED'}")
    for metric, methods in results["samples"].items():
        for name, one in methods.items():
            say(f"{metric:28}{name:40}{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]")


def run(jobs: Sequence[Command], console: Console, processes: int) -> None:
    """Run jobs; exit if a signal was received."""
    signal = run_jobs(jobs, ConsoleDisplay(console), processes)
    if signal is not None:
        console.print("stopped; run the same command again to resume", highlight=False)
        sys.exit(128 + signal)


def prepare(plan: Plan, console: Console) -> None:
    """Render the people and write the prompts."""
    for name, count, seed in plan.sets:
        settings = SynthSettings(count=count, size=plan.size, seed=seed)
        render_people(plan.work / "people" / name, settings, ConsoleDisplay(console))
    write_prompts(plan.work / "people" / "test", plan.samples, plan.work / "prompts.txt")


def total_seconds(plan: Plan) -> float:
    """Return the seconds of all runs and samples on one core."""
    tuning = sum(len(plan.rates) * run_seconds(plan, strategy, "tuning") for strategy, _ in plan.methods)
    test = sum(len(plan.seeds) * run_seconds(plan, strategy, "test") for strategy, _ in plan.methods)
    one_set = START_SECONDS + plan.samples * plan.sample_steps * SAMPLE_STEP_SECONDS
    return tuning + test + (1 + len(plan.methods)) * one_set


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the script works")
    parser.add_argument("--out", type=Path, help="where the JSON and the figure go (default: their places in the repo)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "quality", help="folder of people and runs")
    parser.add_argument("--model", default="small", help="the base: 'small' or a folder")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="runs at once")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options, console = options_of(arguments), Console()
    if options.quick:
        plan = quick(options.model, options.work.with_name(f"{options.work.name}-quick"))
    else:
        plan = Plan(options.model, options.work, options.steps, seeds=tuple(range(1, options.seeds + 1)))
    load_runtime()  # without detectors the end would be missing: say so now
    expected = duration(total_seconds(plan) / options.processes)
    console.print(f"about {expected} with {options.processes} processes, and rendering before", highlight=False)
    prepare(plan, console)
    tuning = jobs_of(plan, "tuning", {m: [(rate, plan.tuning_seed) for rate in plan.rates] for m in plan.methods})
    run([job for jobs in tuning.values() for job, _ in jobs], console, options.processes)
    tuned = {
        method: {
            rate: ablation.loss_changes(read_series([folder]))
            for rate, (_, folder) in zip(plan.rates, jobs, strict=True)
        }
        for method, jobs in tuning.items()
    }
    picked = {method: pick(found) for method, found in tuned.items()}
    for method, rate in picked.items():
        edge = ablation.edge_note(tuned[method], rate)
        console.print(f"learning rate of {title(*method)}: {rate:g}{edge}", highlight=False)
    runs = jobs_of(plan, "test", {m: [(rate, seed) for seed in plan.seeds] for m, rate in picked.items()})
    samples = sampling_jobs(plan, runs)
    run([*(job for jobs in runs.values() for job, _ in jobs), *samples.values()], console, options.processes)
    series = {m: read_series([folder for _, folder in jobs]) for m, jobs in sorted(runs.items())}
    results = analyse(series)
    results["learning rate"] = {title(*m): {"grid": tuned[m], "picked": picked[m]} for m in picked}
    results["samples"] = detection(plan, {name: Path(job.arguments[1]) for name, job in samples.items()}, console)
    show(results, console)
    save("quality", {**asdict(plan), "work": plan.work.name, "model": Path(plan.model).name}, results, options)
    figure = changes_figure(
        {title(*m): {name: change(found, name) for name in OBJECTIVES} for m, found in series.items()},
        {title(*m): {name: seed_changes(found, name) for name in OBJECTIVES} for m, found in series.items()},
        {**GOALS, "global": MOST_GLOBAL},
    )
    folder = options.out or (plan.work if options.quick else ROOT / "docs" / "images")
    for name, each in {"quality": figure, "quality-tradeoff": tradeoff_figure(tuned)}.items():
        each.savefig(folder / f"{name}.png", dpi=110)
        console.print(f"figure: {folder / f'{name}.png'}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
