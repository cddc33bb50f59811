"""A metric: `metrics=[contrast]`."""

from collections.abc import Sequence

import numpy as np

from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.results import EvaluationResults, Methods, Metric
from fairhuman.evaluate.tools import EvaluationTools

CONTRAST = Metric(
    "contrast", "higher", "standard deviation of grey values, 0 to 255", "whether the picture shows a person at all"
)


def measure_contrast(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Measure all pictures; intervals and paired tests are made from their values by `add_scores`."""
    del reference, tools  # of metrics that compare with real pictures, or look with a network
    scores = {}
    for method, pictures in methods.items():
        values = [float(np.asarray(picture.image().convert("L"), np.float64).std()) for picture in pictures]
        scores[method] = values, np.ones(len(values))
    found.add_scores(CONTRAST, scores, methods, against)
