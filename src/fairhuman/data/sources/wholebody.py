"""COCO-WholeBody: `coco_wholebody_{train,val}_v1.0.json` (at the root or in `annotations/`) beside the images of COCO.

A person's annotation has `bbox`, `face_box`, `lefthand_box`, `righthand_box` as x, y, width, height from 0, and
`face_valid`, `lefthand_valid`, `righthand_valid` (`data_format.md` of jin-s13/COCO-WholeBody): only valid boxes are
annotated. If COCO's `captions_*.json` lies beside it, a picture gets its first caption.

The faces of a picture (and likewise its hands) are:

- unknown if a flag is missing or there is a crowd (`iscrowd`), whose members aren't annotated. The valid boxes are
  kept in the attribute `valid_boxes`, because as `faces` they would pass for all faces of the picture.
- else the valid boxes; unknown if none is valid, because a hand that isn't valid may be visible.
- none if no person is annotated, because COCO marks every person.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import STAGE, Row, read_json
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten

PARTS = {"faces": ("face",), "hands": ("lefthand", "righthand")}
KEPT = ("image_id", "iscrowd", "bbox", "caption")  # fields of an annotation that are read
KEPT_OF_PARTS = tuple(f"{part}_{what}" for parts in PARTS.values() for part in parts for what in ("box", "valid"))
IMAGE_FOLDERS = ("", "images", "{split}2017", "images/{split}2017", "{split}2014", "images/{split}2014")

Entry = Mapping[str, Any]


def is_wholebody(path: Path) -> bool:
    """Whether a folder has annotations of COCO-WholeBody."""
    return bool(_files(path, "*wholebody*.json"))


def wholebody_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Pictures in the order of the annotation files; one file at a time is in memory, without its key points.

    Raises:
        DataError: a file can't be read or isn't in COCO's format.
    """
    captions: defaultdict[str, list[Entry]] = defaultdict(list)
    for file in _files(path, "captions_*.json"):
        captions |= _by_image(_load(file, "annotations")[0], file, report)
    for file in _files(path, "*wholebody*.json"):
        images, annotations = _load(file, "images", "annotations")
        persons = _by_image(annotations, file, report)
        split = next(iter(re.findall("train|val|test", file.stem)), None)
        folder = _image_folder(path, split, images)
        for number, image in enumerate(images, start=1):
            if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
                report.add(f"{file.name}/{number}", STAGE, Finding("skipped", "image has no file_name", shorten(image)))
                continue
            location = f"{file.name}/{image['file_name']}"
            texts = [text for entry in captions[str(image.get("id"))] if isinstance(text := entry.get("caption"), str)]
            yield Row(
                location,
                {
                    "file_name": folder + image["file_name"],
                    "width": image.get("width"),
                    "height": image.get("height"),
                    "split": split,
                    **({"caption": texts[0].strip()} if texts else {}),
                    **_regions(persons[str(image.get("id"))], location, report),
                },
            )


def _files(path: Path, pattern: str) -> list[Path]:
    return sorted(path.glob(pattern)) or sorted((path / "annotations").glob(pattern))


def _load(file: Path, *names: str) -> list[list[Any]]:
    """The lists of these names in a COCO file."""
    values = read_json(file, object_hook=_without_key_points)
    lists: list[list[Any]] = []
    for name in names:
        entries = values.get(name) if isinstance(values, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{file}: must hold a list '{name}', as COCO files do, not {shorten(entries)}")
        lists.append(entries)
    return lists


def _without_key_points(values: dict[str, Any]) -> dict[str, Any]:
    """Drop key points, which make up 90 % of a file, as soon as they are parsed."""
    if "image_id" not in values:
        return values
    return {name: values[name] for name in (*KEPT, *KEPT_OF_PARTS) if name in values}


def _by_image(entries: Iterable[Any], file: Path, report: LoadReport) -> defaultdict[str, list[Entry]]:
    grouped: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, dict) and "image_id" in entry:
            grouped[str(entry["image_id"])].append(entry)
        else:
            report.add(file.name, STAGE, Finding("dropped", "annotation has no image_id", shorten(entry)))
    return grouped


def _image_folder(path: Path, split: str | None, images: Sequence[Any]) -> str:
    """The folder of the first image that is there, with a trailing slash; the root if none is."""
    names = (str(image["file_name"]) for image in images if isinstance(image, dict) and "file_name" in image)
    folders = [folder.format(split=split) for folder in IMAGE_FOLDERS]
    there = ((folder, name) for name in names for folder in folders if (path / folder / name).is_file())
    found, _ = next(there, ("", ""))
    return f"{found}/" if found else ""


def _regions(entries: Sequence[Entry], location: str, report: LoadReport) -> dict[str, Any]:
    """Columns `persons`, `faces`, `hands` and `attributes` of one picture; see the module's docstring."""
    crowded = any(entry.get("iscrowd") for entry in entries)
    single = [entry for entry in entries if not entry.get("iscrowd")]
    columns: dict[str, Any] = {"persons": None if crowded else _boxes(single, "bbox", location, report)}
    incomplete: dict[str, Any] = {}
    for column, parts in PARTS.items():
        valid = [box for part in parts for box in _boxes(single, f"{part}_box", location, report, f"{part}_valid")]
        flags = [entry.get(f"{part}_valid") for entry in single for part in parts]
        known = not crowded and all(isinstance(flag, bool | int) for flag in flags)
        columns[column] = valid if known and (valid or not entries) else None
        if valid and not known:
            incomplete[column] = valid
    return {**columns, "attributes": {"valid_boxes": incomplete} if incomplete else {}}


def _boxes(
    entries: Sequence[Entry], name: str, location: str, report: LoadReport, flag: str | None = None
) -> list[list[float]]:
    """Corners of the boxes called `name`, of the entries whose flag is set."""
    boxes = []
    for entry in entries:
        if flag is not None and not entry.get(flag):
            continue
        box = entry.get(name)
        if isinstance(box, list) and len(box) == 4 and all(type(number) in (int, float) for number in box):
            x, y, width, height = box
            boxes.append([x, y, x + width, y + height])
        else:
            report.add(location, STAGE, Finding("dropped", f"{name} is not x, y, width, height", shorten(box)))
    return boxes
