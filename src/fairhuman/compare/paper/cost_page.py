"""Inference costs: measured on a model, and parameters counted for the full-size SDXL."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fairhuman.bases.base import networks
from fairhuman.compare.paper.cost import ExtraMemory, Spread, measure_costs, table_for_sdxl, with_mole
from fairhuman.compare.paper.settings import FUSED, MIB, MOLE, SDXL_SHAPE, UNFUSED, CostSettings
from fairhuman.errors import DataError
from fairhuman.models.architecture import build_sdxl_shape
from fairhuman.models.locations import require_sdxl
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import load_pipeline
from fairhuman.report.html import render_to
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json
from fairhuman.utils.provenance import origin
from fairhuman.utils.torch_device import default_device

RANKS = (64, 128, 256)  # of the paper's ablation


def write_costs(settings: CostSettings, out: Path) -> Path:
    """Measure the costs; write `costs.json` and `report.html` into `out` and return the page's path.

    Raises:
        ModelError: the model can't be used.
    """
    dtype = DTYPES[settings.precision] or torch.float32
    device = default_device()
    if settings.model == SDXL_SHAPE:
        pipeline = build_sdxl_shape(device, dtype)
    else:
        require_sdxl(settings.model, "the cost of the paper's methods")
        pipeline = load_pipeline(settings.model, dtype=dtype)
    for part in networks(pipeline):
        part.to(device)
    moles = {MOLE: with_mole(pipeline, settings.rank)}
    measured = measure_costs(pipeline, settings.rank, settings.size, settings.steps, settings.repeats, moles)
    tables = {rank: {one.name: one for one in table_for_sdxl(rank)} for rank in RANKS}
    counted = [(f"{UNFUSED}, rank {rank}", table[UNFUSED]) for rank, table in tables.items()]
    counted += [(name, tables[RANKS[-1]][name]) for name in (FUSED, MOLE)]
    document = {
        **origin(),
        "settings": settings.model_dump(mode="json"),
        "measured": asdict(measured),
        "counted": {name: asdict(one) for name, one in counted},
    }
    write_json(out / "costs.json", document)
    return render_to(
        out / "report.html",
        "cost.html",
        title="Inference cost",
        model=settings.model,
        measured=document["measured"],
        variants=variants(document),
        counted=[(name, *_counted(one)) for name, one in counted],
    )


def read_costs(settings: CostSettings, out: Path) -> dict[str, Any] | None:
    """Content of `costs.json`; None if it is missing or has other settings.

    Raises:
        DataError: the file can't be read.
    """
    path = out / "costs.json"
    if not path.is_file():
        return None
    try:
        document: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        return document if document["settings"] == settings.model_dump(mode="json") else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: can't be read; delete it to measure again: {error}") from error


def variants(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of measured costs."""
    return [
        (
            one["name"],
            f"{one['extra_parameter_bytes'] / MIB:.3g}",
            "-" if one["extra_peak_bytes"] is None else f"{one['extra_peak_bytes'] / MIB:.3g}",
            *(_spread(Spread(**one[name])) for name in ("wall_s", "wall_ratio", "cpu_ratio")),
        )
        for one in document["measured"]["variants"]
    ]


def _counted(one: ExtraMemory) -> tuple[str, str, str, str]:
    published = "" if one.published_mb is None else f"{one.published_mb:,.2f}"
    return f"{one.parameters:,}", f"{one.fp32_mib:,.1f}", f"{one.fp16_mib:,.1f}", published


def _spread(spread: Spread) -> str:
    return f"{spread.median:.3g} [{spread.min:.3g}, {spread.max:.3g}]"
