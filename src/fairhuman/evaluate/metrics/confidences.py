"""Metric groups over face and hand detections: strict confidences and the official (published) ones."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fairhuman.detect.bundled import SOURCE
from fairhuman.evaluate.people.detections import ImageDetections, detect_each
from fairhuman.evaluate.people.official import OfficialScores, official_scores, official_source
from fairhuman.evaluate.people.strict import Expected, StrictScores, strict_scores
from fairhuman.evaluate.pictures import PARTS, EvalImage
from fairhuman.evaluate.results import EvaluationResults, Methods, Metric
from fairhuman.evaluate.tools import EvaluationTools, by_method, lazy_pictures

IMAGE_DETECTIONS = TypeAdapter(ImageDetections)
VERSION = 1  # of `detect_each`, part of the cache's name
OFFICIAL_SCORES = TypeAdapter(list[OfficialScores])
OFFICIAL_VERSION = 1  # of `official_scores`, part of the cache's name
BLIND = {
    "face": "the identity of the person; faces that are too small or turned away for the models",
    "hand": "a sixth finger on a sharp hand, a left hand on a right arm, hands that are too small for the models",
}

OFFICIAL = {
    "face": "mean detection score of all faces found",
    "hand": "mean handedness score of all hands found, in video mode",
}
OFFICIAL_BLIND = "missing faces and hands, and nearly all defects of those that are found"


def measure_strict(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Confidence, detection rate and precision if the expected parts are known; quality of the best part always."""
    found.detections.update(by_method(methods, lambda pictures: detect_parts(pictures, tools)))
    for part in PARTS:
        mine = {
            method: strict_scores(part, found.detections[method], expected_parts(pictures, reference, part, tools))
            for method, pictures in methods.items()
        }
        tables = _strict_tables(part, mine)
        for metric, columns in tables:
            found.add_scores(metric, columns, methods, against)
        unknown: dict[str, list[str]] = {}
        for method, scored in mine.items():
            if count := int(np.isnan(scored.expected_n).sum()):
                unknown.setdefault(f"{count} of {len(methods[method])} pictures", []).append(method)
        found.warnings += [
            f"{', '.join(those)}: the expected number of {part}s is unknown for {pictures}; they count only towards "
            f"'best {part}' (annotate them, or set expected.{part}=N)"
            for pictures, those in unknown.items()
        ]


def detect_parts(pictures: Sequence[EvalImage], tools: EvaluationTools) -> list[ImageDetections]:
    """Detected faces and hands of pictures, from the cache where available."""
    upscale = tools.settings.upscale
    kind = f"findings-{VERSION}-{SOURCE}-x{upscale}"
    look = partial(detect_each, upscale=upscale, workers=tools.settings.workers)
    return tools.cached_detections(
        kind, pictures, look, partial(IMAGE_DETECTIONS.dump_python, mode="json"), IMAGE_DETECTIONS.validate_python
    )


def expected_parts(
    pictures: Sequence[EvalImage], reference: Sequence[EvalImage] | None, part: str, tools: EvaluationTools
) -> list[Expected]:
    """Expected parts of each picture: its own boxes, else the reference's count for the prompt, else the setting."""
    counts: dict[str, list[int]] = defaultdict(list)
    for picture in reference or ():
        boxes = picture.record.boxes.get(part)
        if boxes is not None and picture.prompt:
            counts[picture.prompt].append(len(boxes))
    by_prompt = {prompt: Counter(found).most_common(1)[0][0] for prompt, found in counts.items()}
    given = getattr(tools.settings.expected, part)
    expected: list[Expected] = []
    for picture in pictures:
        boxes = picture.record.boxes.get(part)
        expected.append(boxes if boxes is not None else by_prompt.get(picture.prompt, given))
    return expected


def _strict_tables(part: str, scores: dict[str, StrictScores]) -> list[tuple[Metric, dict[str, Any]]]:
    def metric(name: str, what: str, blind: str, by_picture: bool = False) -> Metric:
        return Metric(name, "higher", what, blind, by_picture=by_picture, judges=f"{part}s")

    tables: list[tuple[Metric, dict[str, Any]]] = []
    if not all(np.isnan(one.expected_n).all() for one in scores.values()):
        confidence = f"mean quality over the expected {part}s; one that isn't found counts 0"
        found, share = f"share of the expected {part}s that are found", f"share of the found {part}s that are expected"
        tables = [
            (
                metric(f"strict {part} confidence", confidence, BLIND[part]),
                {method: (one.quality_n, one.expected_n) for method, one in scores.items()},
            ),
            (
                metric(f"{part} detection rate", found, f"the quality of the {part}s"),
                {method: (one.matched_n, one.expected_n) for method, one in scores.items()},
            ),
            (
                metric(f"{part} precision", share, f"missing {part}s"),
                {method: (one.matched_n, one.matched_n + one.extra_n) for method, one in scores.items()},
            ),
        ]
    best = f"quality of the best {part} found in a picture, 0 if none is found; independent of what is expected"
    columns = {method: (one.best_n, np.ones(len(one.best_n))) for method, one in scores.items()}
    return [*tables, (metric(f"best {part}", best, f"all other {part}s in the picture", by_picture=True), columns)]


def measure_official(
    methods: Methods,
    _: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """The paper's confidences as its published code computes them; `people.official` lists their flaws.

    Only the main process computes them, because detections in a picture depend on the picture before it.
    """
    if not tools.state.is_main_process:
        return
    scores = {method: _official(method, pictures, tools) for method, pictures in methods.items()}
    for part in PARTS:
        lists = {method: [getattr(one, f"{part}s") for one in each] for method, each in scores.items()}
        metric = Metric(f"official {part} confidence", "higher", OFFICIAL[part], OFFICIAL_BLIND, judges="")
        table = {m: ([sum(one) for one in each], [len(one) for one in each]) for m, each in lists.items()}
        found.add_scores(metric, table, methods, against)


def _official(method: str, pictures: Sequence[EvalImage], tools: EvaluationTools) -> list[OfficialScores]:
    """Scores of a method's pictures, cached as one sequence, since each depends on the pictures before it."""
    upscale, watch = tools.settings.upscale, partial(tools.progress, f"official, {method}")
    rows = tools.cached_rows(f"official-{OFFICIAL_VERSION}-{official_source()}-x{upscale}")
    key = hashlib.sha256(b"".join(picture.sha256 for picture in pictures)).digest()
    known = rows.read([key])
    if key in known:
        watch(len(pictures), len(pictures))
        return OFFICIAL_SCORES.validate_json(known[key])
    scores = official_scores(lazy_pictures(pictures), upscale=upscale, progress=watch)
    rows.add({key: OFFICIAL_SCORES.dump_json(scores).decode()})
    return scores
