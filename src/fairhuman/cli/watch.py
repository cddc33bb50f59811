"""Progress, previews and report of a run on the command line."""

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.data.pictures.notes import Note
from fairhuman.data.samples.coverage import region_area, region_coverage
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.generate.guide import ActiveControl
from fairhuman.generate.preview import PreviewRow, PreviewSet, forget_previews
from fairhuman.models.control import ControlModel
from fairhuman.models.locations import name_of
from fairhuman.regions.settings import GLOBAL
from fairhuman.report.text import percent
from fairhuman.report.training import write_training_report
from fairhuman.train.data import loading_workers
from fairhuman.train.metrics import Metrics
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, StoppedError, Watcher
from fairhuman.train.views import describe_enlarged, view_warnings
from fairhuman.utils.display import Display
from fairhuman.utils.journal import open_log

NOTHING = Display()


class ProgressBar(Watcher):
    """A line with loss, speed and times, then the regions' losses and weights; lines for other events, which go into
    the run's `log.txt` too, each with its time.
    """

    def __init__(self, display: ConsoleDisplay) -> None:
        self._display = display
        self._left = TimeLeft()
        self._early: list[str] = []  # lines said before the run's folder is known
        self._log: Path | None = None

    def _say(self, text: str) -> None:
        self._display.say(text)
        self._early.append(f"{datetime.now(UTC).isoformat(timespec='seconds')}  {text}\n")
        if self._log is None:
            return
        with open_log(self._log) as file:
            file.write("".join(self._early).encode("utf-8", "backslashreplace"))
        self._early.clear()

    def on_start(self, run: Run) -> None:
        """Show kind, model, strategy and data."""
        self._log = run.recipe.out / "log.txt"
        recipe, records = run.recipe, run.data.train.records
        counts = run.data.report.counts()
        noted = "".join(f", {sum(counts[action].values())} notes '{action}'" for action in counts)
        self._say(
            f"{recipe.kind} of {recipe.model} with {recipe.strategy} on {len(records)} pictures of "
            f"{recipe.data_name}{noted} (data_report.json)"
        )
        for text in run.data.lines():
            self._say(f"  {text}")
        areas = region_area(records, recipe.regions.names)
        for name, share in region_coverage(records, recipe.regions.names).items():
            known = sum(record.annotated(name) for record in records) / len(records)
            area = areas[name]
            covering = "" if area is None else f", boxes cover {percent(area, 1)} of a picture"
            whole = run.data.coverage.whole(name)
            self._say(
                f"  {name}: in {percent(share, 1)} of pictures, annotated in {percent(known, 1)}{covering}"
                f"{whole and f'; {whole}'}"
            )
        small = describe_enlarged(run.data.train)
        fewer = loading_workers(recipe, run.data)[1]
        for text in [*filter(None, (small, fewer)), *view_warnings(recipe, run.data.coverage)]:
            self._say(f"  {text}")
        for text in run.caches.opening_messages():
            self._say(text)
        if run.step:
            self._say(f"resuming from step {run.step}")
        self._left.start(run.step)
        self._display.progress("training", run.step, recipe.steps)

    def on_texts(self, run: Run, done: int, total: int) -> None:  # noqa: ARG002 - a watcher's methods get the run
        """Show how many captions are encoded."""
        self._display.progress("captions", done, total)

    def on_latents(self, run: Run, done: int, total: int) -> None:  # noqa: ARG002 - a watcher's methods get the run
        """Show how many pictures are encoded."""
        self._display.progress("latents", done, total)

    def on_step(self, run: Run, metrics: Metrics) -> None:
        """Show the newest numbers."""
        recipe, rate = run.recipe, float(metrics["images_per_s"] or 0.0)
        left = self._left.after(run.step, recipe.samples(run.process.num_processes) / rate, recipe) if rate else None
        text = describe(metrics, recipe.objective_names)
        self._display.progress("training", run.step, recipe.steps, text, left)

    def on_data_notes(self, run: Run, notes: Sequence[Note]) -> None:
        """Show which pictures could not be read."""
        for note in notes:
            self._say(f"step {run.step}: {note}")

    def on_message(self, text: str) -> None:
        """Show a message about the run's checkpoints or caches."""
        self._say(text)

    def on_validation(self, run: Run, losses: dict[str, float | None]) -> None:
        """Show held-out losses."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items() if value is not None)
        self._say(f"step {run.step}: held-out losses  {shown}")


class Previews(Watcher):
    """Draws the captions of the first held-out pictures, the pictures themselves half noised, and the prompts of
    `preview.prompts`, on fixed seeds. A signal ends the drawing between two denoising steps.
    """

    def __init__(self, display: Display = NOTHING) -> None:
        self._display = display
        self._previews: PreviewSet | None = None

    def on_start(self, run: Run) -> None:
        """Choose the rows; forget the previews of later steps, which an earlier process drew."""
        settings, seed = run.recipe.preview, run.recipe.seed
        source = run.data.held_out or run.data.train
        rows = preview_rows(source, settings.count, seed)
        size = run.recipe.size
        rows += [PreviewRow(text, seed + number, None, {}, size=size) for number, text in enumerate(settings.prompts)]
        guides = [ActiveControl(run.model.control)] if isinstance(run.model, ControlModel) else []
        name, guidance = name_of(run.recipe.model), settings.guidance
        if guidance is None:
            guidance = name.guidance if name.previews is None else name.previews
        chosen = (settings.steps, guidance, settings.strength)
        reading = None if run.caches.texts is None else run.caches.encoding
        previews = PreviewSet(rows, *chosen, guides=guides, reading=reading, room=run.caches.with_room)
        self._previews = previews if rows else None
        forget_previews(run.recipe.out, run.step if run.step else -1)

    def on_texts_cached(self, run: Run) -> None:
        """Encode the texts of all previews."""
        if self._previews is not None:
            self._previews.read(run.model.pipeline)

    def on_preview(self, run: Run) -> None:
        """Draw, unless they are drawn or the run is stopping."""
        if self._previews is None or self._previews.drawn(run.step, run.recipe.out):
            return

        def on_step(done: int, total: int) -> None:
            run.check_stop()
            self._display.progress("previews: denoising steps", done, total)

        with suppress(StoppedError):
            self._previews.render(run.model.pipeline, run.step, run.recipe.out, on_step)


def preview_rows(dataset: PeopleDataset, count: int, seed: int) -> list[PreviewRow]:
    """Return the first samples of a data set; samples that show every region come first."""
    seen = dataset.reading(None)
    seen.caption_dropout = 0.0  # a preview is of the record's caption
    samples = [seen[position] for position in range(min(len(seen), 16 * count))]
    samples.sort(key=lambda sample: sum(not boxes for boxes in sample.boxes.values()))
    rows = [(s, s.picture_chw) for s in samples[:count]]
    return [PreviewRow(s.caption, seed + s.position, chw, s.boxes, s.conditions) for s, chw in rows if chw is not None]


def describe(metrics: Metrics, objectives: Sequence[str]) -> str:
    """A step in one line: loss and speed, then losses, weights and coverage of the regions."""
    loss = metrics[f"loss/{GLOBAL}"]
    parts = ["no loss" if loss is None else f"loss {loss:.4f}", f"{metrics['images_per_s'] or 0.0:.3g} pictures/s"]
    if GLOBAL in objectives:  # otherwise it is in bands, which are listed like regions
        parts += [f"{GLOBAL} w {metrics[f'weight/{GLOBAL}'] or 0.0:.2f}"]
    for name in [name for name in objectives if name != GLOBAL]:
        loss, weight = metrics[f"loss/{name}"], metrics[f"weight/{name}"]
        covered = metrics.get(f"coverage/{name}")
        share = "" if covered is None else f" in {percent(covered)}"
        known = loss is not None  # its weight is none where its gradient is 0, as the prior's in the first step
        parts.append(f"{name} {loss:.3f} (w {weight or 0.0:.2f}{share})" if known else f"{name} absent")
    return "  ".join(parts)


class TimeLeft:
    """Estimates how long a run still takes: its steps, and the validations and previews that are due.

    What happens between two steps is measured as the time that passed less that of the second step.
    """

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=64)  # seconds; longer than the interval of audits
        self._between: dict[str, float] = {}
        self._step, self._at = 0, time.monotonic()

    def start(self, step: int) -> None:
        """The run is about to evaluate its first weights, or to take the step after `step`."""
        self._step, self._at = step, time.monotonic()

    def after(self, step: int, seconds: float, recipe: TrainRecipe) -> float:
        """Seconds left after a step that took `seconds`."""
        now = time.monotonic()
        self._between[self._due(self._step, recipe)] = max(0.0, now - self._at - seconds)
        self._step, self._at = step, now
        self._steps.append(seconds)
        mean = sum(self._steps) / len(self._steps)
        ends = max(self._between.get(name, 0.0) for name in ("ends", "preview"))
        previews, validations = recipe.preview.every, recipe.validation.every
        drawn = _multiples(previews, step, recipe.steps)
        measured = _multiples(validations, step, recipe.steps)
        if previews and validations:
            measured -= _multiples(math.lcm(previews, validations), step, recipe.steps)
        between = drawn * self._between.get("preview", ends) + measured * self._between.get("validation", 0.0)
        return mean * (recipe.steps - step) + between + ends

    @staticmethod
    def _due(step: int, recipe: TrainRecipe) -> str:
        """What is done after a step."""
        if step in (0, recipe.steps):
            return "ends"
        for name, every in (("preview", recipe.preview.every), ("validation", recipe.validation.every)):
            if every and step % every == 0:
                return name
        return ""


def _multiples(every: int, first: int, end: int) -> int:
    """How many steps from `first` to before `end` are multiples of `every`; 0: never."""
    return (end - 1) // every - (first - 1) // every if every and first < end else 0


def report(run: Run, display: ConsoleDisplay) -> None:
    """Write the run's report; say how the run ended and how to resume it."""
    path = write_training_report(run.recipe.out)
    if run.finished:
        display.say(f"done: {run.recipe.product}")
    else:
        display.say(f"stopped after step {run.step}; run the same command again to resume")
    display.say(f"report: {path}")
