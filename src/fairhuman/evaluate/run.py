"""An evaluation: pictures of one or several methods, all groups of metrics, numbers and a page in a folder."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow
import torch
from accelerate import PartialState

from fairhuman import __version__
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.tables import write_table
from fairhuman.errors import DataError
from fairhuman.evaluate.cache import FINDINGS, Rows
from fairhuman.evaluate.metrics.confidences import measure_official, measure_strict
from fairhuman.evaluate.metrics.depth_agreement import measure_depth_agreement
from fairhuman.evaluate.metrics.pose_agreement import measure_pose_agreement
from fairhuman.evaluate.metrics.prompt_scores import measure_clip_score, measure_hps, measure_image_reward
from fairhuman.evaluate.metrics.set_distances import measure_efficientnet, measure_fid
from fairhuman.evaluate.needed import check_weights, leaving_out
from fairhuman.evaluate.pace import TimedProgress, peak_mb
from fairhuman.evaluate.page import write_page
from fairhuman.evaluate.pictures import CHECKED, EvalImage, Progress, read_pictures
from fairhuman.evaluate.results import EvaluationResults, Methods, shared
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.evaluate.tools import EvaluationTools
from fairhuman.utils.files import read_prompts, write_json
from fairhuman.utils.plugins import METRICS, load_plugin, misfit

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
    """The function of a group of metrics: of `GROUPS`, or one that another package adds.

    A package adds one by an entry point of the group `fairhuman.metrics`: a function `measure(methods, reference,
    against, tools, results)` that hands its numbers to `results.add_scores`. It is called once an evaluation, after
    the pictures have been read: `methods` are the pictures of each, `reference` real ones or None, `against` the method
    that others are compared with or None; `tools` computes features once and keeps them.

    Raises:
        PluginError: it can't be loaded.
    """
    if name in GROUPS:
        return GROUPS[name]
    found: Measure = load_plugin(METRICS, name)
    if not callable(found):
        raise misfit(METRICS, name, "a function", found)
    return found


# Of processes for each other: the official confidences are computed by one alone, an hour for 60,000 pictures.
LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True)
class EvaluationInputs:
    """What is measured.

    Attributes:
        methods: name to a folder of pictures, or any other source of them.
        prompts: file with a prompt a line; None where pictures or their captions say them.
        reference: real pictures, for distances and for how many faces and hands a prompt has.
        against: the method that others are compared with; None: the first, where there are several.
        cache: where features are kept.

    """

    methods: Mapping[str, Path]
    prompts: Path | None
    reference: Path | None
    against: str | None
    cache: Path

    def __post_init__(self) -> None:
        if self.against is not None and self.against not in self.methods:
            raise DataError(f"--against must be one of {', '.join(self.methods)}, found {self.against!r}")

    @property
    def baseline(self) -> str | None:
        """The method that others are compared with."""
        return self.against or (next(iter(self.methods)) if len(self.methods) > 1 else None)


@dataclass(frozen=True)
class Evaluation:
    """The page, the pictures, all that was measured, and what was noted about the pictures of each method."""

    page: Path
    methods: Methods
    found: EvaluationResults
    reports: Mapping[str, LoadReport]


def evaluate(
    job: EvaluationInputs, settings: EvaluateSettings, out: Path, progress: Progress = lambda *_: None
) -> Evaluation | None:
    """Measure all groups; write `metrics.json`, `per_image.parquet` and `report.html` into `out`.

    None in all processes of `accelerate launch` but the main one. What was found out about a picture is in the cache,
    so the same again goes on where it was stopped.

    Raises:
        DataError: pictures, prompts or reference that can't be used.
        WeightsError: weights of a group are missing, which is seen before anything is measured: says which, and which
            groups run without.
        FairHumanError: features that aren't finite, detectors that fail.

    """
    measures = {name: measure_named(name) for name in settings.metrics}
    state = PartialState(timeout=LONGEST_WAIT)
    pace = TimedProgress(progress if state.is_main_process else lambda *_: None)
    tools = EvaluationTools(settings, job.cache, state, pace)
    with state.main_process_first():
        check_weights(settings, with_reference=job.reference is not None)
    reports = {name: LoadReport() for name in [*job.methods, "reference"]}
    prompts = read_prompts(job.prompts) if job.prompts is not None else None
    methods = {name: _read(path, prompts, tools, reports[name]) for name, path in job.methods.items()}
    reference = _read(job.reference, None, tools, reports["reference"]) if job.reference is not None else None
    found = EvaluationResults()
    _compare_pictures(methods, job.baseline, found)
    for name, measure in measures.items():
        with leaving_out(settings, name):
            measure(methods, reference, job.baseline, tools, found)
    if not state.is_main_process:
        return None
    found.seconds, found.peak_mb = pace.seconds(), peak_mb()
    _write(job, settings, out, methods, reports, found)
    page = write_page(job.baseline, settings, out, methods, reference, reports, found)
    return Evaluation(page, methods, found, reports)


def _read(path: Path, prompts: Sequence[str] | None, tools: EvaluationTools, report: LoadReport) -> list[EvalImage]:
    checked: Rows[str] = Rows(tools.cache / CHECKED, FINDINGS)
    with tools.state.main_process_first():
        return read_pictures(path, prompts, checked, report, tools.settings.workers, tools.progress)


def _compare_pictures(methods: Methods, baseline: str | None, found: EvaluationResults) -> None:
    """See that methods can be paired; what one of them lacks is said."""
    for name, pictures in methods.items():
        if baseline is None or name == baseline:
            continue
        both = len(shared(pictures, methods[baseline])[0])
        if both == 0:
            raise DataError(f"{name} and {baseline} have no prompt in common, so they can't be compared in pairs")
        if both < max(len(pictures), len(methods[baseline])):
            found.warnings.append(
                f"{name} and {baseline} share {both} pictures of {len(pictures)} and {len(methods[baseline])}: "
                "differences are those of the shared ones"
            )


def _write(
    job: EvaluationInputs,
    settings: EvaluateSettings,
    out: Path,
    methods: Methods,
    reports: Mapping[str, LoadReport],
    found: EvaluationResults,
) -> None:
    contrasts = found.corrected()
    write_json(
        out / "metrics.json",
        {
            "metrics": [
                {
                    "name": result.metric.name,
                    "method": result.method,
                    **result.measured.plain(),
                    "better": result.metric.better,
                    "what": result.metric.what,
                    "blind": result.metric.blind,
                }
                for result in found.results
            ],
            "differences": [
                {
                    "name": one.metric.name,
                    "method": one.method,
                    "against": one.against,
                    **one.difference.measured.plain(),
                    "p": _number(one.difference.p),
                    "p_holm": _number(one.corrected),
                }
                for one in contrasts
            ],
            "warnings": found.warnings,
            "seconds_per_picture": {what: {"pictures": n, "seconds": s} for what, (n, s) in found.seconds.items()},
            "peak_mb": found.peak_mb,
            "left_out": {name: report.counts() for name, report in reports.items() if report.notes},
            "settings": settings.model_dump(mode="json"),
            "sources": {name: str(path) for name, path in job.methods.items()},
            "fairhuman": __version__,
            "torch": torch.__version__,
        },
    )
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
    write_table(pyarrow.Table.from_pylist(rows, schema=schema), out / "per_image.parquet")


def _number(value: float) -> float | None:
    """JSON has no NaN: null is a number that isn't there."""
    return value if math.isfinite(value) else None
