"""BodyHands in the layout of Pascal VOC: `ImageSets/Main/*.txt`, `Annotations/*.xml`, `JPEGImages/*.jpg`.

Objects are `hand` and `body`. Both have a `bndbox`, in pixels counted from 1 with the last pixel included, and a
`body_id`; a hand has a quadrilateral `x1..x4`, `y1..y4` too (`datasets/load_data.py` of
cvlab-stonybrook/BodyHands at e50a8a8). There are no faces and no captions; only bodies of annotated hands are marked.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, byte_length, read_bytes
from fairhuman.data.sources.rows import STAGE, Row, limited_lines, locate, printable, reading_table
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten

SPLITS = ("train", "val", "test")
FOLDERS = ("Annotations", "JPEGImages")
MAX_XML = 2**22  # bytes


def is_bodyhands(path: Path) -> bool:
    """Whether a folder has the layout of Pascal VOC."""
    return all((path / name).is_dir() for name in FOLDERS)


def bodyhands_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Entries of the lists train, val and test; all annotations if there are no lists."""
    seen: dict[str, str | None] = {}
    for split, name in _entries(path):
        location = printable(f"Annotations/{name}.xml")
        if name in seen:
            report.add(location, STAGE, Finding("warned", "entry is listed again", f"{seen[name]}, then {split}"))
            continue
        seen[name] = split
        values: dict[str, Any] = {"file_name": f"JPEGImages/{name}.jpg", "key": name, "split": split, "faces": None}
        try:
            values |= _annotation(path, name, location, report)
        except PictureError as error:  # the picture is still usable; its regions are unknown
            finding = error.finding._replace(action="dropped", reason=f"annotation: {error.finding.reason}")
            report.add(location, STAGE, finding)
            values |= {"hands": None, "persons": None}
        yield Row(location, values)


def _entries(path: Path) -> Iterator[tuple[str | None, str]]:
    lists = [(split, path / "ImageSets" / "Main" / f"{split}.txt") for split in SPLITS]
    if not any(file.is_file() for _, file in lists):
        yield from ((None, file.stem) for file in sorted((path / "Annotations").glob("*.xml")))
    for split, file in lists:
        if file.is_file():
            with reading_table(file), file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                yield from ((split, line.strip()) for line in limited_lines(file, lines) if line.strip())


def _annotation(path: Path, name: str, location: str, report: LoadReport) -> dict[str, Any]:
    """Columns `hands`, `persons`, `attributes` of one XML file.

    Raises:
        PictureError: the file is missing or can't be read.
    """
    root = _parse(path, f"Annotations/{name}.xml")
    hands, bodies, quads, body_ids = [], [], [], []
    lost = False
    for element in root.findall("object"):
        box = element.find("bndbox")
        kind = (element.findtext("name") or "").strip()
        corners = _numbers(box, "xmin", "ymin", "xmax", "ymax")
        if kind not in ("hand", "body") or corners is None:
            report.add(location, STAGE, Finding("dropped", "object is no hand or body with a box", shorten(kind)))
            lost = lost or kind == "hand"
            continue
        corners = [corners[0] - 1, corners[1] - 1, corners[2], corners[3]]
        body_id = _numbers(element, "body_id")
        number = int(body_id[0]) if body_id else None
        if kind == "body":
            bodies.append(corners)
            body_ids.append(number)
            continue
        hands.append(corners)
        points = _numbers(box, *(f"{axis}{corner}" for corner in range(1, 5) for axis in "xy"))
        quads.append({"body_id": number, "points": [points[i : i + 2] for i in range(0, 8, 2)] if points else None})
    # Quadrilaterals keep the file's coordinates, which the authors' loader draws unchanged.
    attributes = {"hand_quads": quads, "body_ids": body_ids}
    # A hand without a box is in the picture, so an empty list would be wrong.
    return {"hands": None if lost and not hands else hands, "persons": bodies or None, "attributes": attributes}


class _NoDoctype(ElementTree.TreeBuilder):
    """Rejects a document type before its entities are expanded, which can grow without bound."""

    def doctype(self, name: str, *_: str | None) -> None:
        raise PictureError("XML has a document type, which is refused", shorten(name))


def _parse(path: Path, name: str) -> ElementTree.Element:
    stored = locate(name, path)
    if (length := byte_length(stored)) > MAX_XML:
        raise PictureError("XML is too long", f"{length} bytes, at most {MAX_XML}")
    try:
        return ElementTree.fromstring(read_bytes(stored), ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two come from unknown encodings
        raise PictureError("not XML", shorten(str(error))) from error


def _numbers(element: ElementTree.Element | None, *names: str) -> list[float] | None:
    """Numbers in the children of these names; None if one is missing or not a finite number."""
    if element is None:
        return None
    try:
        numbers = [float(element.findtext(name) or "nan") for name in names]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
