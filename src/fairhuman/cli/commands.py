"""What the commands do; `cli` only reads the command line, so that `--help` answers without importing torch."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fairhuman import config
from fairhuman.cli.commands_control import Steering
from fairhuman.cli.console import say, say_counts
from fairhuman.cli.watch import Previews, ProgressBar, report
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.errors import RecipeError
from fairhuman.generate.lora import check_lora_weight, find_lora, load_lora
from fairhuman.generate.sample import check_steps, sample, save_png
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.locations import check_location
from fairhuman.models.mole import find_mole, load_mole
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import load_pipeline, networks, scheduler_config
from fairhuman.synth.people import missing_tables, write_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.synth.summary import summarize_people
from fairhuman.train.cache.plan import budget
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import read_prompts, writing


def run_training(path: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> int:
    """Train after a recipe. Returns the exit code."""
    recipe = config.load(TrainRecipe, path, overrides)
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
    missing = [source.path for source in recipe.sources if not source.path.exists()]
    for path in missing:
        console.print(f"data {path}: not there yet", highlight=False)
    for name, start in recipe.mole.starts.items():
        if start is not None and not start.exists():
            console.print(f"mole.start_{name} {start}: not there yet", highlight=False)
    if missing:
        return
    notes = LoadReport()
    data = load_data(recipe, notes)
    held_out = len(data.held_out) if data.held_out is not None else 0
    say(
        console,
        f"data {recipe.data_name}: {len(data.train)} pictures to train on, {held_out} held out; "
        f"{data.cropped_share:.1%} of a picture's area is outside its view, in the mean",
    )
    say_counts(console, notes.counts(), "  ")
    if recipe.cache.latents or recipe.cache.text:
        say(console, budget(recipe, data).line())


@dataclass(frozen=True)
class SampleJob:
    """What to draw with."""

    out: Path
    prompt: tuple[str, ...]
    prompts: Path | None
    model: str
    lora: Path | None
    lora_weight: float
    fuse: bool | None
    precision: str
    steering: Steering
    mole: Path | None = None

    def all_prompts(self) -> list[str]:
        """Return the prompts of both options.

        Raises:
            DataError: the file can't be read, or holds no prompt.
            RecipeError: there is no prompt, or an empty one.
        """
        if not all(text.strip() for text in self.prompt):
            raise RecipeError("--prompt: expected a text, found an empty one")
        found = [*self.prompt, *(read_prompts(self.prompts) if self.prompts is not None else ())]
        if not found:
            raise RecipeError("no prompt: give --prompt TEXT or --prompts FILE")
        return found

    def check(self, steps: int) -> None:
        """Check all that can be checked without loading the model.

        Raises:
            RecipeError: an unknown precision, a weight that isn't finite, too many steps, a MoLE fused or with a LoRA.
            ModelError: no such model, LoRA or MoLE.
        """
        if self.precision not in DTYPES:
            raise RecipeError(f"--precision must be one of {', '.join(DTYPES)}, found {self.precision!r}")
        check_lora_weight(self.lora_weight)
        if self.lora is not None:
            find_lora(self.lora)
        if self.mole is not None:
            if self.lora is not None:
                raise RecipeError("--mole and --lora: give one of both, they change the same layers")
            if self.fuse:
                raise RecipeError("--fuse: a MoLE can't be fused, as its gates depend on every input; leave --fuse out")
            find_mole(self.mole)
        check_location(self.model)
        schedule = scheduler_config(self.model)
        if schedule is not None:
            check_steps(schedule, steps)


def run_sampling(job: SampleJob, values: dict[str, Any], dry_run: bool, console: Console) -> None:
    """Draw pictures into a folder, named by prompt and picture; of several processes each draws some."""
    settings = config.build(SampleSettings, values, origin="sample")
    prompts = job.all_prompts()
    job.check(settings.steps)
    asked = job.steering.read(len(prompts), settings.steps)
    if dry_run:
        console.print(f"{len(prompts)} prompts x {settings.images_per_prompt}, {settings!r}", highlight=False)
        return
    with writing(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=job.out).close()
    pipeline = load_pipeline(job.model, dtype=DTYPES[job.precision] or torch.float32)
    lora = load_lora(pipeline, job.lora, job.lora_weight, job.fuse is not False) if job.lora is not None else None
    mole = load_mole(pipeline.unet, job.mole) if job.mole is not None else None
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
    device, share = state.device, (state.process_index, state.num_processes)
    for part in networks(pipeline):
        part.to(device)
    guides = job.steering.open(pipeline, asked, settings, console)
    for picture in sample(
        pipeline, prompts, settings, job.model, lora, guides=guides, asked=asked, mole=mole, share=share
    ):
        path = job.out / f"{picture.prompt_index:05d}-{picture.picture_index:02d}.png"
        with writing(path):
            save_png(picture.image, path, picture.metadata)
        console.print(f"{path}  {prompts[picture.prompt_index]}", highlight=False, markup=False)


def run_synth(out: Path, values: dict[str, Any], workers: int | None, dry_run: bool, console: Console) -> None:
    """Render synthetic people into a folder, going on with what is there, and say what it holds."""
    settings = config.build(SynthSettings, values, origin="synth")
    missing = sum(map(len, missing_tables(out, settings).values()))
    if dry_run:
        say(console, f"{out}: {missing} of {settings.count} pictures to render, {settings!r}")
        return
    if 0 < missing < settings.count:
        say(console, f"{out}: going on, {settings.count - missing} pictures are there")
    with _counting(console, "rendering", settings.count) as progress:
        write_people(out, settings, workers, progress, partial(say, console))
    found = summarize_people(out)
    spoilt = f", faces and hands spoilt in {found.degraded}" if found.degraded else ""
    say(console, f"{found.pictures} pictures, {found.faces} faces, {found.hands} hands{spoilt}")
    shares = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in found.visible.items())
    say(console, f"in sight on average: {shares}")
    say(console, f"done: {out}; train on it with data={out}")


@contextmanager
def _counting(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many are done: a bar, or where output isn't a terminal, a line every twentieth part."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        told = 0

        def progress(done: int) -> None:
            nonlocal told
            bar.update(task, completed=done)
            if not console.is_terminal and done >= told + max(1, total // 20):
                told = done
                console.print(f"{what}: {done}/{total}", highlight=False)

        yield progress
