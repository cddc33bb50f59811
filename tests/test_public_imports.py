"""Import paths that other people's code relies on: what the documentation and the examples import, and a little more.

Whoever changes one breaks somebody's code: keep the old path, or put the change into CHANGELOG.md and then here.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.places import ROOT

PUBLIC = {
    "fairhuman.config": "Settings build load save differences",
    "fairhuman.data.pictures.decode": "DEFAULT_LIMITS PictureLimits decode decode_mask",
    "fairhuman.data.pictures.notes": "LoadReport Note",
    "fairhuman.data.sources": "SOURCES SourceFormat SourceSettings iterate_records read_source source_kind",
    "fairhuman.data.sources.rows": "STAGE Row reading_table with_caption",
    "fairhuman.data.sources.text_rows": "csv_rows jsonl_rows",
    "fairhuman.detect.detection": "Closing Detection Detector DetectorError Picture check_picture",
    "fairhuman.errors": "DataError FairHumanError ModelError PluginError RecipeError TrainingError",
    "fairhuman.evaluate.networks.extractor": "Extractor Features",
    "fairhuman.evaluate.pictures": "EvalImage",
    "fairhuman.evaluate.results": "EvaluationResults Methods Metric MetricResult",
    "fairhuman.evaluate.run": "EvaluationInputs evaluate",
    "fairhuman.evaluate.settings": "EvaluateSettings LossSettings",
    "fairhuman.evaluate.tools": "EvaluationTools",
    "fairhuman.fairness": (
        "AlphaFair DynamicWeightAverage EmaEstimator Estimator ExactEstimator FairBackward FairStep FallbackEstimator "
        "GradientBalancing Length LinearScalarization LossWeighting MinimumPotentialDelay NashMTL Output "
        "OutputEstimator PairwiseEstimator RandomLossWeighting RateFloor STRATEGIES ScaleInvariant SolverInfo "
        "SplitEstimator Strategy TailEstimator UncertaintyWeighting solve solve_info strategy_named"
    ),
    "fairhuman.fairness.strategy": "GradientBalancing LossWeighting Strategy",
    "fairhuman.generate.sample": "sample save_png",
    "fairhuman.generate.settings": "SampleSettings",
    "fairhuman.models.model": "Model TrainableModel",
    "fairhuman.models.settings": "ControlSettings LoraSettings MoleSettings",
    "fairhuman.record": "Box FileSpan Finding HumanRecord TableCell",
    "fairhuman.regions.masks": "boxes_to_mask to_latent_grid",
    "fairhuman.regions.settings": "MaskSettings RegionSettings",
    "fairhuman.train.loop": "train",
    "fairhuman.train.recipe": "TrainRecipe",
    "fairhuman.train.run": "Run Watcher",
}
SHOWN = re.compile(r"^\s*from (fairhuman[\w.]*) import (\([^)]*\)|[^\n(#]+)", flags=re.MULTILINE)


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_import_path_works(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in PUBLIC[module].split() if not hasattr(loaded, name)] == []


def test_the_core_exports_what_is_listed() -> None:
    assert sorted(importlib.import_module("fairhuman.fairness").__all__) == sorted(PUBLIC["fairhuman.fairness"].split())


def test_what_pages_and_examples_import_is_listed() -> None:
    missing = {
        f"{page.relative_to(ROOT)}: {module}.{name}"
        for page in pages()
        for module, names in SHOWN.findall(page.read_text(encoding="utf-8"))
        for name in re.findall(r"\w+", names)
        if name not in PUBLIC.get(module, "").split()
    }
    assert missing == set()


def pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield from (ROOT / "docs").glob("*.md")
    yield from (ROOT / "examples").rglob("*.py")
    yield from (ROOT / "examples").glob("*.diff")
