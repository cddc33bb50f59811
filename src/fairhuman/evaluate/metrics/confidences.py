"""Groups of metrics over what detectors find: strict confidences, and the official ones beside them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fairhuman.detect.bundled import source_name
from fairhuman.evaluate.cache import FINDINGS, Rows
from fairhuman.evaluate.people.detections import ImageDetections, find_each
from fairhuman.evaluate.people.official import OfficialScores, official_scores
from fairhuman.evaluate.people.strict import Expected, StrictScores, strict_faces, strict_hands
from fairhuman.evaluate.pictures import PARTS, EvalImage
from fairhuman.evaluate.results import EvaluationResults, Methods, Metric
from fairhuman.evaluate.tools import EvaluationTools, LazyPictures

FINDING = TypeAdapter(ImageDetections)
VERSION = 1  # of what `find` looks for
OFFICIAL_SCORES = TypeAdapter(list[OfficialScores])
OFFICIAL_VERSION = 1  # of what `official_scores` does
STRICT: dict[str, Callable[[Sequence[ImageDetections], Sequence[Expected]], StrictScores]] = {
    "face": strict_faces,
    "hand": strict_hands,
}
BLIND = {
    "face": "whether it is the right person's face, and what is too small or turned away for the models",
    "hand": "a sixth finger on a sharp hand, a left hand on a right arm, and what is too small for the models",
}

OFFICIAL = {
    "face": "mean score of all faces found",
    "hand": "mean handedness score of all hands found, in video mode",
}
OFFICIAL_BLIND = "what is missing, and nearly all that is wrong with what is found"


def measure_strict(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Confidence, detection rate and precision where it is known what to expect; else what is found at all."""
    scores = {}
    for method, pictures in methods.items():
        found.findings[method] = find_in(pictures, tools)
        for part, score in STRICT.items():
            scores[part, method] = score(found.findings[method], expected_parts(pictures, reference, part, tools))
    for part in PARTS:
        mine = {method: scores[part, method] for method in methods}
        tables = _strict_tables(part, mine)
        for metric, columns in tables:
            found.add_scores(metric, columns, methods, against)
        unknown = {m: int(np.isnan(s.expected_n).sum()) for m, s in mine.items() if np.isnan(s.expected_n).any()}
        found.warnings += [
            f"{method}: how many {part}s there should be isn't known for {count} of {len(methods[method])} pictures; "
            f"they count for what is found alone (annotate them, or give expected.{part}=N)"
            for method, count in unknown.items()
        ]


def find_in(pictures: Sequence[EvalImage], tools: EvaluationTools) -> list[ImageDetections]:
    """Faces and hands of pictures, each looked for once."""
    upscale = tools.settings.upscale
    kind = f"findings-{VERSION}-{_detectors('strict')}-x{upscale}"
    look = partial(find_each, upscale=upscale, workers=tools.settings.workers)
    return tools.findings(kind, pictures, look, partial(FINDING.dump_python, mode="json"), FINDING.validate_python)


def expected_parts(
    pictures: Sequence[EvalImage], reference: Sequence[EvalImage] | None, part: str, tools: EvaluationTools
) -> list[Expected]:
    """What each picture should show: its own boxes; else as many as the reference's of the same prompt; else as set."""
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
    ones = {method: np.ones(len(one.found_n)) for method, one in scores.items()}
    tables: list[tuple[Metric, dict[str, Any]]] = []
    if not all(np.isnan(one.expected_n).all() for one in scores.values()):
        tables = [
            (
                Metric(
                    f"strict {part} confidence",
                    "higher",
                    f"quality of the found {part}s through the expected ones; one that isn't found counts 0",
                    BLIND[part],
                ),
                {method: (one.quality_n, one.expected_n) for method, one in scores.items()},
            ),
            (
                Metric(
                    f"{part} detection rate",
                    "higher",
                    f"share of the expected {part}s that are found",
                    "how well they are drawn",
                ),
                {method: (one.matched_n, one.expected_n) for method, one in scores.items()},
            ),
            (
                Metric(
                    f"{part} precision",
                    "higher",
                    f"share of the found {part}s that are expected ones",
                    f"{part}s that are missing",
                ),
                {method: (one.matched_n, one.matched_n + one.extra_n) for method, one in scores.items()},
            ),
        ]
    tables += [
        (
            Metric(
                f"best {part}",
                "higher",
                f"quality of the best {part} found in a picture, 0 where there is none; whatever is expected",
                f"all other {part}s of the picture",
                by_picture=True,
            ),
            {method: (one.best_n, ones[method]) for method, one in scores.items()},
        )
    ]
    return tables


def measure_official(
    methods: Methods,
    _: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """The paper's confidences as its code computes them; see `official` for what is wrong with them.

    By one process alone: what it finds in a picture depends on the picture before.
    """
    if not tools.state.is_main_process:
        return
    scores = {method: _official(method, pictures, tools) for method, pictures in methods.items()}
    for part in PARTS:
        lists = {method: [getattr(one, f"{part}s") for one in each] for method, each in scores.items()}
        metric = Metric(f"official {part} confidence", "higher", OFFICIAL[part], OFFICIAL_BLIND)
        table = {m: ([sum(one) for one in each], [len(one) for one in each]) for m, each in lists.items()}
        found.add_scores(metric, table, methods, against)


def _official(method: str, pictures: Sequence[EvalImage], tools: EvaluationTools) -> list[OfficialScores]:
    """Scores of a method's pictures, kept for all of them in this order together, as one depends on those before it."""
    upscale, watch = tools.settings.upscale, partial(tools.progress, f"official, {method}")
    rows: Rows[str] = Rows(tools.cache / f"official-{OFFICIAL_VERSION}-{_detectors('official')}-x{upscale}", FINDINGS)
    key = hashlib.sha256(b"".join(picture.sha256 for picture in pictures)).digest()
    known = rows.read([key])
    if key in known:
        watch(len(pictures), len(pictures))
        return OFFICIAL_SCORES.validate_json(known[key])
    scores = official_scores(LazyPictures(pictures), upscale=upscale, progress=watch)
    rows.add({key: OFFICIAL_SCORES.dump_json(scores).decode()})
    return scores


def _detectors(what: str) -> str:
    """MediaPipe and its version, for the names of what is kept."""
    return source_name(what).split()[0]
