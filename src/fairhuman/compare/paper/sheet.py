"""The comparison with the paper, built from files: our costs and evaluations next to the published tables."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairhuman.compare.paper.published import (
    COLUMNS,
    PUBLISHED,
    CostRow,
    OurTable,
    PaperSheet,
    PublishedCell,
    paper_sheet,
)
from fairhuman.compare.paper.settings import FUSED, MOLE, PAPER_RANK, SDXL_SHAPE, UNFUSED, SetupSettings, SheetSettings
from fairhuman.errors import DataError, RecipeError
from fairhuman.report.html import render_to
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json

# Our metric to the published column, and the factor that converts it to the column's unit.
METRICS: Mapping[str, tuple[str, float]] = {
    "HPS v2.1": ("HPS", 1.0),
    "ImageReward": ("IR", 1.0),
    "FID": ("FID", 1.0),
    "official hand confidence": ("Hand Confi.", 100.0),
    "official face confidence": ("Face Confi.", 100.0),
}
PAPER_WORDS = {"Ours": "“Ours” in the paper: its LoRA"}  # beside columns of numbers that are ours
ROWS = {UNFUSED: "Ours", MOLE: "MoLE"}  # a LoRA that adds memory and time isn't fused
ALIASES = {"MPD": "MPD-FairGrad"}  # our name of a strategy to the published row


def read_tables(costs: Path | None, evaluation: Path | None, setups: SheetSettings) -> dict[str, OurTable]:
    """Read our numbers from `costs.json` of `fairhuman cost` and `metrics.json` of `fairhuman evaluate`.

    Raises:
        DataError: a file doesn't exist, wasn't written by these commands, or has none of the published numbers.
        RecipeError: no file is given, or the description of a set-up is missing.
    """
    if costs is None and evaluation is None:
        raise RecipeError(
            "no results given: give --costs FILE, the costs.json of fairhuman cost, or --evaluation FILE, the "
            "metrics.json of fairhuman evaluate"
        )
    tables = {}
    parts = (
        ("Table 1", "costs", "cost", costs, cost_values),
        ("Table 2", "evaluation", "evaluate", evaluation, metric_values),
    )
    for table, name, command, path, values_of in parts:
        if path is None:
            continue
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; --{name} takes the JSON of fairhuman {command}")
        setup: SetupSettings | None = getattr(setups, name)
        if setup is None:
            raise RecipeError(f"{path}: describe the set-up of these numbers: {name}.model, .data, .scale and .metrics")
        try:
            document = parse_json(path.read_text(encoding="utf-8"))
            values = values_of(document)
            note = unmatched_note(document) if name == "evaluation" else cost_note(document)
            variants = tuple(cost_rows(document)) if name == "costs" else ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: expected the JSON of fairhuman {command}; {error!r}") from error
        if not values:
            rows = dict.fromkeys(cell.row for cell in PUBLISHED if cell.table == table)
            known = f"published rows {', '.join(rows)} and columns {', '.join(COLUMNS[table])}"
            raise DataError(f"{path}: has none of the {known}. {note}".rstrip())
        tables[table] = OurTable(setup, values, note, variants)
    return tables


def cost_values(document: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Table 1: parameters beyond the base's, counted on SDXL's true shape, in MiB of fp16; median time ratio."""
    rows = {row.variant: row for row in cost_rows(document)}
    values = {}
    for variant, row in ROWS.items():
        values[row, "Extra Memory Usage"] = rows[variant].fp16_mib
        time = rows[variant].time
        if time is not None:
            values[row, "Inference Time"] = time
    return values


def cost_rows(document: Mapping[str, Any]) -> list[CostRow]:
    """Memory and time of a LoRA, fused and not, and of MoLE, from the JSON of `fairhuman cost`."""
    times = {one["name"]: one["wall_ratio"]["median"] for one in document["measured"]["variants"]}
    rows = []
    for variant in (FUSED, UNFUSED, MOLE):
        counted = document["counted"][f"{variant}, rank {PAPER_RANK}" if variant == UNFUSED else variant]
        memory, time = (
            PUBLISHED.get(PublishedCell("Table 1", ROWS.get(variant, ""), name)) for name in COLUMNS["Table 1"]
        )
        rows.append(CostRow(variant, counted["fp16_mib"], counted["fp32_mib"], memory, times.get(variant), time))
    return rows


def cost_note(document: Mapping[str, Any]) -> str:
    """Where the memory and the times of Table 1 come from."""
    rows = {row.variant: row for row in cost_rows(document)}
    settings, measured = document["settings"], document["measured"]
    where = f"{settings['model']}, {measured['size']} px, rank {measured['rank']}, {measured['dtype']}"
    shape = "SDXL's true shape" if settings["model"] == SDXL_SHAPE else f"this model, not on SDXL's shape: {where}"
    return (
        f"Memory is counted on SDXL's true shape, a LoRA of rank {PAPER_RANK} and MoLE, in fp16 for both rows. The two "
        f"published figures agree with different precisions: MoLE's with fp16 ({rows[MOLE].fp16_mib:,.1f} MiB), the "
        f"LoRA's with fp32 ({rows[UNFUSED].fp32_mib:,.1f} MiB; {rows[UNFUSED].fp16_mib:,.1f} in fp16). Fused into the "
        f"base, a LoRA adds neither memory nor time; a MoLE can't be fused. Times are ratios to the base, measured on "
        f"{measured['device']} on {shape}."
    )


def metric_values(document: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Table 2: methods named like a published row, or else like an alias of it in `ALIASES`."""
    rows = _rows(document)
    return {
        (rows[one["method"]], METRICS[one["name"]][0]): METRICS[one["name"]][1] * one["value"]
        for one in document["metrics"]
        if one["name"] in METRICS and one["method"] in rows and one["value"] is not None
    }


def unmatched_note(document: Mapping[str, Any]) -> str:
    """Names the methods without a published counterpart, and all known names; empty if every method has one."""
    rows, taken = _rows(document), {row for row, _ in metric_values(document)}
    without = [
        name for name in dict.fromkeys(one["method"] for one in document["metrics"]) if rows.get(name) not in taken
    ]
    if not without:
        return ""
    known = [*dict.fromkeys(cell.row for cell in PUBLISHED if cell.table == "Table 2"), *ALIASES]
    return (
        f"Not used from the evaluation: {', '.join(without)}. Known methods: {', '.join(known)}; "
        f"known metrics: {', '.join(METRICS)}."
    )


def _rows(document: Mapping[str, Any]) -> dict[str, str]:
    """The published row of each method, if it has one."""
    known = {cell.row for cell in PUBLISHED if cell.table == "Table 2"}
    names = {one["method"] for one in document["metrics"]}
    rows = {name: name if name in known else ALIASES.get(name) for name in names}
    return {name: row for name, row in rows.items() if row is not None and (row == name or row not in names)}


def write_sheet(tables: Mapping[str, OurTable], out: Path) -> Path:
    """Write `paper.json` and `paper.html`; return the page's path."""
    sheet = paper_sheet(tables)
    write_json(out / "paper.json", asdict(sheet))
    title = "Published tables and our results"
    return render_to(out / "paper.html", "paper.html", title=title, tables=_tables(sheet), sheet=sheet)


def _tables(sheet: PaperSheet) -> list[dict[str, Any]]:
    tables = []
    for table, columns in COLUMNS.items():
        numbers = {(row.row, row.column): row for row in sheet.rows if row.table == table}
        rows = dict.fromkeys(row for row, _ in numbers)
        tables.append(
            {
                "name": table,
                "columns": [(name, column.unit, column.better) for name, column in columns.items()],
                "rows": [
                    (
                        PAPER_WORDS.get(row, row),
                        [(f"{numbers[row, name].published:g}", _text(numbers[row, name].ours)) for name in columns],
                    )
                    for row in rows
                ],
                "note": sheet.notes.get(table),
                "variants": sheet.variants.get(table, ()),
                "differences": [one for one in sheet.differences if one.table == table],
            }
        )
    return tables


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
