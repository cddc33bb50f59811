"""Numbers of a table: metrics of an evaluation, over training seeds and prompts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.compare.paper.drawing import SEED
from fairhuman.evaluate.place import NUMBERS
from fairhuman.stats.bootstrap import Array, ratio_over_seeds
from fairhuman.stats.estimate import Estimate
from fairhuman.utils.files import reading_own
from fairhuman.utils.parse import parse_json
from fairhuman.utils.tables import read_table

OF = ": of"  # ends the name of a column with denominators
_AGAIN = "delete it, and run the same command again"
Sums = dict[str, dict[int, dict[str, Array]]]  # numerator and denominator by metric, seed and prompt


@dataclass(frozen=True)
class Measurement:
    """A metric of one method.

    Attributes:
        better: `higher` or `lower`.
        value: with an interval over training seeds and prompts; over prompts alone if the metric compares whole sets.
        difference: to the reference cell, paired by seed and prompt; None for the reference and where no pairs exist.
        p: of the test that swaps both methods within prompts, corrected by Holm for all differences of the evaluation.
        over_seeds: whether the intervals cover other training seeds.
    """

    metric: str
    method: str
    better: str
    value: Estimate
    difference: Estimate | None
    p: float | None
    over_seeds: bool

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        difference = None if self.difference is None else self.difference.plain()
        return {**self.__dict__, "value": self.value.plain(), "difference": difference}


def read_measurements(folder: Path, reference: str, seeds: Mapping[str, Sequence[int]]) -> list[Measurement]:
    """All metrics of an evaluation, with differences to the method `reference`; of each method the given seeds.

    Raises:
        DataError: a file is missing or damaged.
    """
    numbers, pictures = folder / NUMBERS, folder / "per_image.parquet"
    with reading_own(numbers, _AGAIN):
        document = parse_json(numbers.read_text(encoding="utf-8"))
        metrics = [(one["name"], one["method"], one["better"], _estimate(one)) for one in document["metrics"]]
        differences = {(one["name"], one["method"]): (_estimate(one), one["p_holm"]) for one in document["differences"]}
    with reading_own(pictures, _AGAIN):
        sums = _sums(read_table(pictures).to_pylist(), seeds)
    found = []
    for metric, method, better, alone in metrics:
        contrast, p = differences.get((metric, method), (None, None))
        own, other = (sums.get(name, {}).get(metric) for name in (method, reference))
        if own is None:
            value, difference = alone, contrast
        else:
            value = ratio_over_seeds(_table(own, list(own), _prompts(own)))
            paired = None if contrast is None or other is None else _difference(own, other)
            difference = contrast if paired is None else paired
        found.append(Measurement(metric, method, better, value, difference, p, own is not None and len(own) > 1))
    return found


def _difference(own: dict[int, dict[str, Array]], other: dict[int, dict[str, Array]]) -> Estimate | None:
    """Own minus other on the seeds and prompts that both have."""
    seeds = [seed for seed in own if seed in other]
    prompts = [prompt for prompt in _prompts(own, seeds) if all(prompt in other[seed] for seed in seeds)]
    if not seeds or not prompts:
        return None
    return ratio_over_seeds(_table(own, seeds, prompts), _table(other, seeds, prompts))


def _sums(rows: Sequence[Mapping[str, Any]], seeds: Mapping[str, Sequence[int]]) -> dict[str, Sums]:
    """Numerators and denominators by method, metric, seed and prompt; pictures without a value count for neither."""
    found: dict[str, Sums] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows:
        match = SEED.match(row["key"])
        seed = int(match[1]) if match else seeds[row["method"]][0]
        if seed not in seeds[row["method"]]:
            continue
        for metric, top in row.items():
            if metric in ("method", "key", "prompt") or metric.endswith(OF) or top is None:
                continue
            bottom = row.get(f"{metric}{OF}")
            pair = np.array([top, 1.0 if bottom is None else bottom])
            prompts = found[row["method"]][metric][seed]
            sums = prompts.setdefault(row["prompt"], np.zeros(2))
            if np.isfinite(pair).all():
                sums += pair
    return found


def _prompts(sums: Mapping[int, Mapping[str, Array]], seeds: Sequence[int] | None = None) -> list[str]:
    """Prompts that all seeds have."""
    rows = [sums[seed] for seed in (sums if seeds is None else seeds)]
    return [prompt for prompt in rows[0] if all(prompt in row for row in rows)] if rows else []


def _table(
    sums: Mapping[int, Mapping[str, Array]], seeds: Sequence[int], prompts: Sequence[str]
) -> tuple[Array, Array]:
    table_snc = np.array([[sums[seed][prompt] for prompt in prompts] for seed in seeds])
    return table_snc[..., 0], table_snc[..., 1]


def _estimate(one: Mapping[str, Any]) -> Estimate:
    """An estimate of an evaluation's file; those of before have no standard error."""
    named = {**one, "standard_error": one.get("standard_error")}
    value, low, high, error = (
        np.nan if named[name] is None else float(named[name]) for name in ("value", "low", "high", "standard_error")
    )
    return Estimate(value, low, high, one["n"], error)
