"""What the commands do; `cli` only reads the command line, so that `--help` answers without importing torch."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from fairhuman import recipe as recipes
from fairhuman.data.report import LoadReport
from fairhuman.errors import FairHumanError, RecipeError
from fairhuman.generate.sample import (
    SampleSettings,
    check_lora_weight,
    check_steps,
    find_lora,
    load_lora,
    sample,
    save_png,
)
from fairhuman.models.sdxl import check_location, load_pipeline, networks, scheduler_config
from fairhuman.synth.figures import write_figures
from fairhuman.train import setup
from fairhuman.train.loop import train
from fairhuman.train.settings import TrainRecipe
from fairhuman.watch import Previews, ProgressBar, report


def run_training(path: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> int:
    """Train after a recipe. Returns the exit code."""
    recipe = recipes.load(TrainRecipe, path, overrides)
    if dry_run:
        _show(recipe, console)
        return 0
    run = train(recipe, [ProgressBar(console), Previews()])
    if run.main:
        report(run, console)
    return 0 if run.stopped_by is None else 128 + run.stopped_by


def _show(recipe: TrainRecipe, console: Console) -> None:
    """Print the resolved recipe and, where the data is at hand, what would be trained on."""
    console.print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
    if not recipe.data.exists():
        console.print(f"data {recipe.data}: not there yet", highlight=False)
        return
    notes = LoadReport()
    data = setup.load_data(recipe, notes)
    held_out = len(data.held_out) if data.held_out is not None else 0
    console.print(f"data {recipe.data}: {len(data.train)} pictures to train on, {held_out} held out", highlight=False)
    for action, reasons in notes.counts().items():
        for reason, count in reasons.items():
            console.print(f"  {action}: {reason} ({count})", highlight=False)


@dataclass(frozen=True)
class SampleJob:
    """What to draw with."""

    out: Path
    prompt: tuple[str, ...]
    prompts: Path | None
    model: str
    lora: Path | None
    lora_weight: float
    fuse: bool
    precision: str

    def all_prompts(self) -> list[str]:
        """Return the prompts of both options."""
        lines: list[str] = []
        if self.prompts is not None:
            try:
                lines = [line.strip() for line in self.prompts.read_text(encoding="utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"--prompts {self.prompts}: expected a UTF-8 text file, {error}") from error
        if not all(text.strip() for text in self.prompt):
            raise RecipeError("--prompt: expected a text, found an empty one")
        found = [*self.prompt, *(line for line in lines if line)]
        if not found:
            raise RecipeError("no prompt: give --prompt TEXT or --prompts FILE")
        return found

    def check(self, steps: int) -> None:
        """Check all that can be checked without loading the model.

        Raises:
            RecipeError: an unknown precision, a weight that isn't finite, too many steps.
            ModelError: no such model or LoRA.
        """
        if self.precision not in setup.DTYPES:
            raise RecipeError(f"--precision must be one of {', '.join(setup.DTYPES)}, found {self.precision!r}")
        check_lora_weight(self.lora_weight)
        if self.lora is not None:
            find_lora(self.lora)
        check_location(self.model)
        schedule = scheduler_config(self.model)
        if schedule is not None:
            check_steps(schedule, steps)


def run_sampling(job: SampleJob, values: dict[str, Any], dry_run: bool, console: Console) -> None:
    """Draw pictures into a folder, named by prompt and picture."""
    settings = recipes.build(SampleSettings, values, origin="sample")
    prompts = job.all_prompts()
    job.check(settings.steps)
    if dry_run:
        console.print(f"{len(prompts)} prompts x {settings.images_per_prompt}, {settings!r}", highlight=False)
        return
    with _writing(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=job.out).close()
    pipeline = load_pipeline(job.model, dtype=setup.DTYPES[job.precision] or torch.float32)
    lora = load_lora(pipeline, job.lora, job.lora_weight, job.fuse) if job.lora is not None else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for part in networks(pipeline):
        part.to(device)
    for picture in sample(pipeline, prompts, settings, job.model, lora):
        path = job.out / f"{picture.prompt_index:05d}-{picture.picture_index:02d}.png"
        with _writing(path):
            save_png(picture.image, path, picture.metadata)
        console.print(f"{path}  {prompts[picture.prompt_index]}", highlight=False, markup=False)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing at `path` into an error of one line."""
    try:
        yield
    except OSError as error:
        raise FairHumanError(f"{path}: can't be written: {error.strerror or error}") from error


def run_demo(out: Path, dry_run: bool, console: Console) -> None:
    """Pretrain a small SDXL on drawn people for some steps, fine-tune it with MPD, write the report."""
    common: dict[str, Any] = {
        "data": str(out / "people"),
        "resolution": 64,
        "batch_size": 8,
        "noise": {"min_snr_gamma": 5.0},
        "validation": {"every": 50, "count": 32, "share": 0.2},
        "preview": {"count": 2, "steps": 10},
        "checkpoint_every": 50,
    }
    base = {"kind": "full", "out": str(out / "base"), "steps": 100, "learning_rate": 1e-3, "strategy": "ls"}
    lora = {"model": str(out / "base" / "model"), "out": str(out / "lora"), "steps": 100, "learning_rate": 1e-3}
    runs = [
        recipes.build(TrainRecipe, {**common, **base}, origin="demo"),
        recipes.build(TrainRecipe, {**common, **lora, "lora": {"rank": 16}}, origin="demo"),
    ]
    if dry_run:
        for recipe in runs:
            console.print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), markup=False)
        return
    console.print(
        "A tour of the whole chain with a random VAE: losses, weights and masks are real, pictures stay noise.",
        highlight=False,
    )
    if not (out / "people" / "metadata.jsonl").is_file():
        write_figures(out / "people", 200, 128, seed=0)
    for recipe in runs:
        run = train(recipe, [ProgressBar(console), Previews()])
        report(run, console)
        if not run.finished:
            return
