"""Run an evaluation: read the pictures of one or more methods, compute all metrics, write results and report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow
import torch
from accelerate import PartialState

from fairhuman import __version__
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.prompts import prompts_at
from fairhuman.errors import DataError
from fairhuman.evaluate.metrics.confidences import measure_official, measure_strict
from fairhuman.evaluate.metrics.depth_agreement import measure_depth_agreement
from fairhuman.evaluate.metrics.pose_agreement import measure_pose_agreement
from fairhuman.evaluate.metrics.prompt_scores import measure_clip_score, measure_hps, measure_image_reward
from fairhuman.evaluate.metrics.set_distances import measure_efficientnet, measure_fid
from fairhuman.evaluate.needed import check_weights, leaving_out
from fairhuman.evaluate.pace import TimedProgress, peak_mb
from fairhuman.evaluate.page import write_page
from fairhuman.evaluate.pictures import CHECKED, EvalImage, Progress, read_pictures
from fairhuman.evaluate.place import NUMBERS
from fairhuman.evaluate.results import EvaluationResults, Methods, shared_indices
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.evaluate.tools import EvaluationTools
from fairhuman.evaluate.verdict import verdicts
from fairhuman.generate.record import differing_settings
from fairhuman.generate.unread import unread_lines
from fairhuman.utils.files import write_json
from fairhuman.utils.plugins import METRICS, load_plugin, misfit
from fairhuman.utils.tables import write_table
from fairhuman.utils.torch_device import explain_out_of_memory, without_gpu

Measure = Callable[[Methods, Sequence[EvalImage] | None, str | None, EvaluationTools, EvaluationResults], None]

GROUPS: Mapping[str, Measure] = {
    "strict": measure_strict,
    "official": measure_official,
    "efficientnet": measure_efficientnet,
    "hps": measure_hps,
    "image_reward": measure_image_reward,
    "clip_score": measure_clip_score,
    "fid": measure_fid,
    "pose_agreement": measure_pose_agreement,
    "depth_agreement": measure_depth_agreement,
}


def measure_named(name: str) -> Measure:
    """The function that computes a group of metrics, from `GROUPS` or from another package.

    Packages add groups by entry points `fairhuman.metrics` that name a function `measure(methods, reference, against,
    tools, found)`. It is called once per evaluation, after the pictures are read, and passes its scores to
    `found.add_scores`. `methods` are the pictures of each method, `reference` real pictures or None, `against` the
    baseline method or None; `tools` computes and caches features.

    Raises:
        PluginError: the function can't be loaded.
    """
    if name in GROUPS:
        return GROUPS[name]
    found: Measure = load_plugin(METRICS, name)
    if not callable(found):
        raise misfit(METRICS, name, "a function", found)
    return found


# Processes wait for the main one, which alone computes the official confidences: an hour for 60,000 pictures.
LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True)
class EvaluationInputs:
    """Inputs of an evaluation.

    Attributes:
        methods: name to a folder of pictures or any other data source.
        prompts: file with one prompt per line; None if pictures or captions provide them.
        reference: real pictures, for distances and for the expected number of faces and hands of a prompt.
        against: method that the others are compared with; None: the first, if there are several.
        cache: folder of the feature cache.
        parts: of a method, the only subfolders whose pictures are measured; by default all are.
    """

    methods: Mapping[str, Path]
    prompts: Path | None
    reference: Path | None
    against: str | None
    cache: Path
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.against is not None and self.against not in self.methods:
            raise DataError(f"--against must be one of {', '.join(self.methods)}, found {self.against!r}")

    @property
    def baseline(self) -> str | None:
        """The method that the others are compared with; None if there is only one."""
        return self.against or (next(iter(self.methods)) if len(self.methods) > 1 else None)

    def identity(self, settings: EvaluateSettings) -> dict[str, Any]:
        """What makes this evaluation another one than that of a folder, as `metrics.json` has it."""
        return {
            "sources": {name: str(path) for name, path in self.methods.items()},
            "prompts": None if self.prompts is None else str(self.prompts),
            "reference": None if self.reference is None else str(self.reference),
            "against": self.baseline,
            **({"parts": {name: list(parts) for name, parts in self.parts.items()}} if self.parts else {}),
            "settings": settings.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: report page, pictures, results, and notes on the pictures of each method."""

    page: Path
    methods: Methods
    found: EvaluationResults
    reports: Mapping[str, LoadReport]


def evaluate(
    job: EvaluationInputs, settings: EvaluateSettings, out: Path, progress: Progress = lambda *_: None
) -> Evaluation | None:
    """Compute all groups of metrics; write `metrics.json`, `per_image.parquet` and `report.html` into `out`.

    Returns None in all processes of `accelerate launch` except the main one. Features and detections are cached, so a
    repeated call resumes an interrupted evaluation.

    Raises:
        DataError: pictures, prompts or reference can't be used.
        WeightsError: weights of a group are missing. Checked before anything is computed; names the groups that run
            without them.
        ModelError: a network doesn't fit into the device's memory.
        FairHumanError: features aren't finite, or a detector fails.
    """
    measures = {name: measure_named(name) for name in settings.metrics}
    state = PartialState(cpu=without_gpu(), timeout=LONGEST_WAIT)
    pace = TimedProgress(progress if state.is_main_process else lambda *_: None)
    tools = EvaluationTools(settings, job.cache, state, pace)
    with state.main_process_first():
        check_weights(settings, with_reference=job.reference is not None)
    reports = {name: LoadReport() for name in [*job.methods, "reference"]}
    prompts = prompts_at(job.prompts) if job.prompts is not None else None
    methods = {
        name: _read(path, prompts, tools, reports[name], job.parts.get(name, ())) for name, path in job.methods.items()
    }
    reference = _read(job.reference, None, tools, reports["reference"]) if job.reference is not None else None
    found = EvaluationResults()
    _compare_pictures(methods, job.baseline, found)
    found.warnings += unread_lines((one.prompt, one.drawn_with) for pictures in methods.values() for one in pictures)
    for name, measure in measures.items():
        fewer = f"batch_size below {settings.batch_size}; the same again goes on, as what is computed is kept"
        with leaving_out(settings, name), explain_out_of_memory(fewer):
            measure(methods, reference, job.baseline, tools, found)
    if not state.is_main_process:
        return None
    found.warnings += tools.health.settle()
    found.seconds, found.peak_mb = pace.seconds(), peak_mb()
    _write(job, settings, out, methods, reports, found)
    page = write_page(job.baseline, settings, out, methods, reference, reports, found)
    return Evaluation(page, methods, found, reports)


def _read(
    path: Path, prompts: Sequence[str] | None, tools: EvaluationTools, report: LoadReport, parts: Sequence[str] = ()
) -> list[EvalImage]:
    checked = tools.cached_rows(CHECKED)
    with tools.state.main_process_first():
        return read_pictures(path, prompts, checked, report, tools.settings.workers, tools.progress, parts)


def _compare_pictures(methods: Methods, baseline: str | None, found: EvaluationResults) -> None:
    """Check that methods can be paired with the baseline, and warn if they share only some pictures."""
    for name, pictures in methods.items():
        if baseline is None or name == baseline:
            continue
        places = zip(*shared_indices(pictures, methods[baseline]), strict=True)
        pairs = [(pictures[own].drawn_with, methods[baseline][other].drawn_with) for own, other in places]
        both = len(pairs)
        if both == 0:
            raise DataError(f"{name} and {baseline} have no prompt in common, so they can't be paired")
        if both < max(len(pictures), len(methods[baseline])):
            found.warnings.append(
                f"{name} and {baseline} share {both} of {len(pictures)} and {len(methods[baseline])} pictures: "
                "differences are computed on these"
            )
        if all(own and other for own, other in pairs):
            mine, theirs = zip(*pairs, strict=True)
            found.warnings += differing_settings({baseline: theirs, name: mine})


def _write(
    job: EvaluationInputs,
    settings: EvaluateSettings,
    out: Path,
    methods: Methods,
    reports: Mapping[str, LoadReport],
    found: EvaluationResults,
) -> None:
    document = {
        **_numbers(found),
        "verdicts": {one.method: one.text for one in verdicts(found)},
        "warnings": found.warnings,
        "seconds_per_picture": {what: {"pictures": n, "seconds": s} for what, (n, s) in found.seconds.items()},
        "peak_mb": found.peak_mb,
        "left_out": {name: report.counts() for name, report in reports.items() if report.notes},
        **job.identity(settings),
        "fairhuman": __version__,
        "torch": torch.__version__,
    }
    write_json(out / NUMBERS, document)
    write_table(_per_image(methods, found), out / "per_image.parquet")


def _numbers(found: EvaluationResults) -> dict[str, Any]:
    metrics = [
        {
            "name": result.metric.name,
            "method": result.method,
            **result.measured.plain(),
            "better": result.metric.better,
            "what": result.metric.what,
            "blind": result.metric.blind,
        }
        for result in found.results
    ]
    differences = [
        {
            "name": one.metric.name,
            "method": one.method,
            "against": one.against,
            **one.difference.measured.plain(),
            "p": _number(one.difference.p),
            "p_holm": _number(one.corrected),
        }
        for one in found.corrected()
    ]
    return {"metrics": metrics, "differences": differences}


def _per_image(methods: Methods, found: EvaluationResults) -> pyarrow.Table:
    """One row per method and picture with its values."""
    columns = sorted({name for values in found.columns.values() for name in values})
    rows = [
        {
            "method": method,
            "key": picture.name,
            "prompt": picture.prompt,
            **{name: float(found.columns[method][name][row]) for name in columns if name in found.columns[method]},
        }
        for method, pictures in methods.items()
        if method in found.columns
        for row, picture in enumerate(pictures)
    ]
    texts = [(name, pyarrow.string()) for name in ("method", "key", "prompt")]
    schema = pyarrow.schema([*texts, *((name, pyarrow.float64()) for name in columns)])
    return pyarrow.Table.from_pylist(rows, schema=schema)


def _number(value: float) -> float | None:
    """None for NaN and infinity, which JSON can't represent."""
    return value if math.isfinite(value) else None
