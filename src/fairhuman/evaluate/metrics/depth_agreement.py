"""Agreement with the requested depth map: Spearman's rank correlation of requested and estimated depth.

Both maps are inverse depth (near = large) up to an unknown scale and shift, so only ranks can be compared. They are
compared on a grid of at most 64 cells per side. Spearman, "The proof and measurement of association between two
things", 1904.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torchvision.transforms.v2 import functional as T

from fairhuman.data.condition.depth import DepthMap
from fairhuman.data.condition.depth_model import DepthEstimator, open_depth
from fairhuman.detect.detection import Picture
from fairhuman.evaluate.networks.weights import fingerprint
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.requested import nan_for_none, requested_depths
from fairhuman.evaluate.results import EvaluationResults, Methods, Metric
from fairhuman.evaluate.tools import EvaluationTools

GRID = 64
METRIC = Metric(
    "depth agreement",
    "higher",
    "rank correlation of requested and estimated depth, -1..1, over pictures with a requested depth",
    "errors of the depth estimator, details smaller than 1/64 of the picture",
    by_picture=True,
    judges="match with the depth",
)


def rank_correlation(asked_hw: NDArray[Any], found_hw: NDArray[Any]) -> float | None:
    """Spearman's correlation of two maps of the same shape; None if the requested map is flat, 0 if the estimate is."""
    a_n, b_n = (rankdata(values).astype(np.float64) for values in (asked_hw.ravel(), found_hw.ravel()))
    a_n, b_n = a_n - a_n.mean(), b_n - b_n.mean()
    if not a_n.any():
        return None
    return float(a_n @ b_n / np.sqrt((a_n @ a_n) * (b_n @ b_n))) if b_n.any() else 0.0


def measure_depth_agreement(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Mean rank correlation over pictures with a requested depth."""
    asked = requested_depths(methods, reference)
    if not any(depth is not None for depths in asked.values() for depth in depths):
        found.warnings.append(
            f"no {METRIC.name}: no picture has a requested depth (fairhuman sample --control depth=... "
            "writes it into the picture; data sets have a column `depth`)"
        )
        return
    if tools.settings.depth is None:
        found.warnings.append(f"no {METRIC.name}: it needs a depth estimator, set depth.model=FOLDER_OR_HUB_ID")
        return
    scores = {}
    with open_depth(tools.settings.depth) as estimator:
        for method, pictures in methods.items():
            values = []
            for depth_hw, map_hw in zip(asked[method], _found(pictures, estimator, tools), strict=True):
                values.append(None if depth_hw is None else rank_correlation(_at(depth_hw, map_hw.shape), map_hw))
            scores[method] = nan_for_none(values), np.ones(len(values))
    found.add_scores(METRIC, scores, methods, against)


def _found(pictures: Sequence[EvalImage], estimator: DepthEstimator, tools: EvaluationTools) -> list[DepthMap]:
    """Dense ranks of each picture's estimated depth on the grid, near = large; from the cache where available."""
    look = partial(_each, estimator=estimator)
    return tools.cached_detections(
        f"depth-1-{_fingerprint(estimator)}", pictures, look, lambda depth: depth.tolist(), _load
    )


def _fingerprint(estimator: DepthEstimator) -> str:
    """Hash of the model, by its name on the hub or by the files of its folder, and of its kind of depth."""
    folder = Path(estimator.source)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return fingerprint(f"depth 1, {estimator.kind}", files)
    return hashlib.sha256(f"{estimator.source} {estimator.kind}".encode()).hexdigest()[:16]


def _each(pictures: Sequence[Picture], estimator: DepthEstimator) -> Iterable[tuple[int, DepthMap]]:
    for start in range(0, len(pictures), estimator.batch_size):
        batch = range(start, min(start + estimator.batch_size, len(pictures)))
        for index, depth_hw in zip(batch, estimator([pictures[index] for index in batch]), strict=True):
            near_hw = -depth_hw if estimator.kind == "metric_mm" else depth_hw
            scale = min(1.0, GRID / max(near_hw.shape))
            small_hw = _at(near_hw, tuple(max(1, round(side * scale)) for side in near_hw.shape))
            yield index, rankdata(small_hw, method="dense").reshape(small_hw.shape).astype(np.float32)


def _at(depth_hw: NDArray[Any], size: tuple[int, ...]) -> DepthMap:
    values_1hw = torch.from_numpy(np.ascontiguousarray(depth_hw, np.float32))[None]
    return np.asarray(T.resize(values_1hw, list(size), antialias=True)[0].numpy())


def _load(value: Any) -> DepthMap:
    return np.array(value, np.float32)
