"""CosmicMan-HQ: Parquet labels beside images and parsing maps (https://huggingface.co/datasets/cosmicman/CosmicManHQ-1.0).

Columns: `path` and `segm_path` (relative to the root), `width`, `height`, `aa_text` and `aa_ids` (JSON lists with
an entry for each of 20 attribute groups: its words, and the related classes of the parsing map), and in some files
`person_type`. There are no boxes and no captions.

The map has 18 classes with 0 for the background (`dataset.py` and `train_sdxl.py` of cosmicman-cvpr2024/CosmicMan at
12b8582), but no list of them is published. Their number and the groups (hair, dress, bags, belt, scarf ...) are those
of ATR as in GoGoDuck912/Self-Correction-Human-Parsing, where 2 is hair, 3 sunglasses and 11 face. A map is used only
if it is consistent with that: if the hair group has classes, 2 must be among them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.parquet import parquet_files, read_rows
from fairhuman.data.sources.rows import STAGE, Row, in_unicode
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten
from fairhuman.utils.parse import parse_json

COLUMNS = frozenset({"path", "aa_text", "aa_ids"})
FACE = (3, 11)  # sunglasses are part of the face
HAIR = 2
HAIR_GROUP = 3  # of `aa_ids`


def is_cosmicman(path: Path) -> bool:
    """Whether the first label file at a path has the columns of CosmicMan."""
    files = _label_files(path)
    try:
        return bool(files) and set(pyarrow.parquet.read_schema(files[0]).names) >= COLUMNS
    except (pyarrow.ArrowException, OSError):
        return False


def cosmicman_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Rows of the label files in the order of their names.

    Raises:
        DataError: a file can't be read.
    """
    for file in _label_files(path):
        for location, values in read_rows(file):
            yield Row(location, _columns(values, location, report))


def _label_files(path: Path) -> list[Path]:
    return parquet_files(path) or sorted((path / "label").glob("*.parquet"))


def _columns(values: Any, location: str, report: LoadReport) -> dict[str, Any]:
    attributes = {
        name: _parsed(values[name], name, location, report)
        for name in ("aa_text", "aa_ids", "person_type")
        if values.get(name) is not None
    }
    columns = {
        "path": values.get("path"),
        "width": _as_int(values.get("width")),
        "height": _as_int(values.get("height")),
        "faces": None,
        "hands": None,
        "attributes": attributes,
    }
    if not values.get("segm_path"):
        return columns
    hair = _hair_classes(attributes.get("aa_ids"))
    if hair and HAIR not in hair:
        finding = Finding("dropped", "parsing map is not in the classes of ATR", f"hair is {shorten(hair)}")
        report.add(location, STAGE, finding)
        return columns
    return {**columns, "masks": {"face": {"path": values["segm_path"], "labels": FACE}}}


def _parsed(value: Any, name: str, location: str, report: LoadReport) -> Any:
    """The parsed JSON; text that isn't JSON is kept as text."""
    if name == "person_type" or not isinstance(value, str):
        return value
    try:
        parsed = parse_json(value)
    except ValueError as error:
        report.add(location, STAGE, Finding("warned", f"{name} is not JSON, kept as text", shorten(str(error))))
        return value
    return in_unicode({name: parsed}, location, report)[name]


def _hair_classes(groups: Any) -> list[Any]:
    classes = groups[HAIR_GROUP] if isinstance(groups, list) and len(groups) > HAIR_GROUP else None
    return classes if isinstance(classes, list) else []


def _as_int(value: Any) -> Any:
    """Convert a number of pixels, which may be text or a float, to an integer; other values are unchanged."""
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return value
