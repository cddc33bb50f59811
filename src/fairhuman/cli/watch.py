"""What the command line shows and draws while a run goes: progress, previews, the report."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fairhuman.cli.console import say
from fairhuman.data.pictures.notes import Note
from fairhuman.data.samples.dataset import PeopleDataset, region_area, region_coverage
from fairhuman.generate.guide import ActiveControl
from fairhuman.generate.preview import PreviewRow, PreviewSet
from fairhuman.models.control import ControlModel
from fairhuman.report.training import write_training_report
from fairhuman.train.metrics import Metrics
from fairhuman.train.run import Run, Watcher


class ProgressBar(Watcher):
    """A bar with losses, weights and coverage; where output isn't a terminal, a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def on_start(self, run: Run) -> None:
        """Say what is trained on what."""
        recipe = run.recipe
        counts = run.data.report.counts()
        noted = "".join(f", {sum(counts[action].values())} notes '{action}'" for action in counts)
        self._console.print(
            f"{recipe.kind} of {recipe.model} with {recipe.strategy} on {len(run.data.train)} pictures of "
            f"{recipe.data_name}{noted} (data_report.json)",
            highlight=False,
        )
        records = run.data.train.records
        areas = region_area(records, recipe.regions.names)
        for name, share in region_coverage(records, recipe.regions.names).items():
            known = sum(record.annotated(name) for record in records) / len(records)
            area = areas[name]
            covering = "" if area is None else f", boxes cover {area:.2%} of a picture"
            self._console.print(
                f"  {name}: in {share:.1%} of pictures, annotated in {known:.1%}{covering}", highlight=False
            )
        for text in run.caches.opening_messages():
            self.on_message(text)
        if run.step:
            self._console.print(f"going on from step {run.step}", highlight=False)
        self._progress.start()
        self._task = self._progress.add_task("training", total=recipe.steps, completed=run.step, text="")

    def on_step(self, run: Run, metrics: Metrics) -> None:
        """Show the newest numbers."""
        text = describe(metrics, run.recipe.regions.objectives)
        if self._task is not None:
            self._progress.update(self._task, completed=run.step, text=text)
        if not self._console.is_terminal and run.step % max(1, run.recipe.steps // 20) == 0:
            self._console.print(f"step {run.step}/{run.recipe.steps}  {text}", highlight=False)
        if run.finished or run.stopped_by is not None:
            self._progress.stop()

    def on_data_notes(self, run: Run, notes: Sequence[Note]) -> None:
        """Show what was lost."""
        for note in notes:
            self._console.print(f"step {run.step}: {note}", highlight=False, markup=False)

    def on_message(self, text: str) -> None:
        """Show it."""
        say(self._console, text)

    def on_validation(self, run: Run, losses: dict[str, float | None]) -> None:
        """Show held-out losses."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items() if value is not None)
        self._console.print(f"step {run.step}: held-out losses  {shown}", highlight=False)


class Previews(Watcher):
    """Draws the first held-out photos' captions, and the photos themselves half noised, on fixed seeds."""

    def __init__(self) -> None:
        self._previews: PreviewSet | None = None

    def on_start(self, run: Run) -> None:
        """Choose the rows."""
        settings = run.recipe.preview
        source = run.data.held_out or run.data.train
        rows = preview_rows(source, settings.count, run.recipe.seed)
        guides = [ActiveControl(run.model.control)] if isinstance(run.model, ControlModel) else []
        chosen = (settings.steps, settings.guidance, settings.strength)
        self._previews = PreviewSet(rows, *chosen, guides=guides) if rows else None

    def on_preview(self, run: Run) -> None:
        """Draw."""
        if self._previews is not None:
            self._previews.render(run.model.pipeline, run.step, run.recipe.out)


def preview_rows(dataset: PeopleDataset, count: int, seed: int) -> list[PreviewRow]:
    """Return the first samples of a data set, those that show every region before others."""
    seen = dataset.reading(None)
    samples = [seen[position] for position in range(min(len(seen), 16 * count))]
    samples.sort(key=lambda sample: sum(not boxes for boxes in sample.boxes.values()))
    rows = [(s, s.picture_chw) for s in samples[:count]]
    return [PreviewRow(s.caption, seed + s.position, chw, s.boxes, s.conditions) for s, chw in rows if chw is not None]


def describe(metrics: Metrics, objectives: Sequence[str]) -> str:
    """Losses and weights of a step in one line."""
    parts = []
    for name in objectives:
        loss, weight = metrics[f"loss/{name}"], metrics[f"weight/{name}"]
        covered = metrics.get(f"coverage/{name}")
        share = "" if covered is None else f" in {covered:.0%}"
        parts.append(f"{name} {loss:.3f} (w {weight:.2f}{share})" if loss is not None else f"{name} absent")
    return "  ".join(parts)


def report(run: Run, console: Console) -> Path:
    """Write the run's report, and say how it ended and what to do next."""
    path = write_training_report(run.recipe.out)
    if run.finished:
        console.print(f"done: {run.recipe.product}", highlight=False)
    else:
        console.print(f"stopped after step {run.step}; the same command goes on from there", highlight=False)
    console.print(f"report: {path}", highlight=False)
    return path
