"""Progress, previews and report of a run on the command line."""

from collections.abc import Sequence

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.data.pictures.notes import Note
from fairhuman.data.samples.coverage import region_area, region_coverage
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.generate.guide import ActiveControl
from fairhuman.generate.preview import PreviewRow, PreviewSet
from fairhuman.models.control import ControlModel
from fairhuman.report.training import write_training_report
from fairhuman.train.metrics import Metrics
from fairhuman.train.run import Run, Watcher


class ProgressBar(Watcher):
    """A bar with losses, weights and coverage, and lines for other events."""

    def __init__(self, display: ConsoleDisplay) -> None:
        self._display = display

    def on_start(self, run: Run) -> None:
        """Show kind, model, strategy and data."""
        recipe, records = run.recipe, run.data.train.records
        counts = run.data.report.counts()
        noted = "".join(f", {sum(counts[action].values())} notes '{action}'" for action in counts)
        self._display.say(
            f"{recipe.kind} of {recipe.model} with {recipe.strategy} on {len(records)} pictures of "
            f"{recipe.data_name}{noted} (data_report.json)"
        )
        for text in run.data.lines():
            self._display.say(f"  {text}")
        areas = region_area(records, recipe.regions.names)
        for name, share in region_coverage(records, recipe.regions.names).items():
            known = sum(record.annotated(name) for record in records) / len(records)
            area = areas[name]
            covering = "" if area is None else f", boxes cover {area:.2%} of a picture"
            self._display.say(f"  {name}: in {share:.1%} of pictures, annotated in {known:.1%}{covering}")
        for text in run.caches.opening_messages():
            self._display.say(text)
        if run.step:
            self._display.say(f"resuming from step {run.step}")
        self._display.progress("training", run.step, recipe.steps)

    def on_step(self, run: Run, metrics: Metrics) -> None:
        """Show the newest numbers."""
        text = describe(metrics, run.recipe.regions.objectives)
        self._display.progress("training", run.step, run.recipe.steps, text)

    def on_data_notes(self, run: Run, notes: Sequence[Note]) -> None:
        """Show which pictures could not be read."""
        for note in notes:
            self._display.say(f"step {run.step}: {note}")

    def on_message(self, text: str) -> None:
        """Show a message about the run's caches."""
        self._display.say(text)

    def on_validation(self, run: Run, losses: dict[str, float | None]) -> None:
        """Show held-out losses."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items() if value is not None)
        self._display.say(f"step {run.step}: held-out losses  {shown}")


class Previews(Watcher):
    """Draws the captions of the first held-out pictures, and the pictures themselves half noised, on fixed seeds."""

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
    """Return the first samples of a data set; samples that show every region come first."""
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


def report(run: Run, display: ConsoleDisplay) -> None:
    """Write the run's report; say how the run ended and how to resume it."""
    path = write_training_report(run.recipe.out)
    if run.finished:
        display.say(f"done: {run.recipe.product}")
    else:
        display.say(f"stopped after step {run.step}; run the same command again to resume")
    display.say(f"report: {path}")
