"""The page of a validation set: rejected records, mix, sample pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from PIL import ImageDraw

from fairhuman.data.pictures.decode import PictureLimits, decode
from fairhuman.record import HumanRecord
from fairhuman.report.colours import REGION_COLOURS, colours
from fairhuman.report.html import figure_uri, picture_uri, render_to
from fairhuman.report.plots import INK
from fairhuman.report.text import funnel_rows, percent

SHOWN = 24  # sample pictures
THUMBNAIL = 400  # pixels of the longest side


def write_page(
    path: Path,
    manifest: Mapping[str, Any],
    records: Sequence[HumanRecord],
    rows: Sequence[Mapping[str, Any]],
    limits: PictureLimits,
) -> None:
    """Write the page of a set from its manifest, its records and their rows of `metadata.jsonl`."""
    settings = manifest["settings"]
    render_to(
        path,
        "validation.html",
        title=f"Validation set of {len(records):,} pictures",
        facts=_facts(manifest, len(records)),
        funnel=funnel_rows(manifest["stages"]),
        funnel_plot=figure_uri(_stages_figure(manifest["stages"])),
        rejected=list(manifest["rejected"].items()),
        unknown=[(name, number) for name, number in manifest["unknown"].items() if number],
        mix=[(name, _lines(values)) for name, values in manifest["mix"].items()],
        draws=settings["draws"],
        last_seed=settings["seed"] + settings["draws"] - 1,
        seed=settings["seed"],
        overlap=percent(manifest["overlap"], 1),
        strata=manifest["strata"],
        regions=colours(dict.fromkeys(region for record in records[:SHOWN] for region in record.boxes)),
        samples=[(_draw_boxes(record, limits), row) for record, row in zip(records[:SHOWN], rows, strict=False)],
        settings_text=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
    )


def _facts(manifest: Mapping[str, Any], pictures: int) -> list[tuple[str, str]]:
    settings = manifest["settings"]
    return [
        ("pictures", f"{pictures:,}"),
        ("usable records", f"{manifest['usable']:,}"),
        ("records found", f"{manifest['stages'][0][1]:,}"),
        ("sampling", settings["sampling"]),
        ("seed", str(settings["seed"])),
        ("prompts by", settings["prompts"]["kind"]),
        ("fairhuman", manifest["version"]),
    ]


def _lines(values: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    return [
        {
            "value": value,
            "usable": percent(share["candidates"], 1),
            "chosen": percent(share["chosen"], 1),
            "draws": f"{percent(share['mean'], 1)} ± {percent(share['deviation'], 1)}",
            "range": f"{percent(share['low'], 1)} to {percent(share['high'], 1)}",
        }
        for value, share in values.items()
    ]


def _stages_figure(stages: Sequence[tuple[str, int]]) -> Figure:
    """Horizontal bars from top to bottom."""
    figure = Figure(figsize=(5.4, 1.0 + 0.3 * len(stages)), dpi=100, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(stages)), [left for _, left in stages], color=REGION_COLOURS["global"])
    axes.bar_label(bars, fmt="{:,.0f}", fontsize=9, color=INK, padding=2)
    axes.set_yticks(range(len(stages)), [name for name, _ in stages])
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title("Records left after each stage", fontsize=11, color=INK, loc="left", fontweight="bold")
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    return figure


def _draw_boxes(record: HumanRecord, limits: PictureLimits) -> str:
    picture = decode(record.image, limits, longest=2 * THUMBNAIL).picture
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    scale = picture.width / record.width
    draw = ImageDraw.Draw(picture)
    palette = colours(record.boxes)
    boxes = [(region, box) for region, found in record.boxes.items() for box in found or ()]
    for region, box in sorted(boxes, key=lambda each: -each[1].area):
        corners = [scale * number for number in (box.x0, box.y0, box.x1, box.y1)]
        draw.rectangle(corners, outline=palette[region], width=2)
    return picture_uri(picture, quality=80)
