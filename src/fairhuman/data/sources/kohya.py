"""Folders of kohya's sd-scripts: `10_ohwx person/` with repeats and class in its name, or a TOML of its data sets.

Facts from kohya-ss/sd-scripts at 71ad3c0 (`docs/masked_loss_README-ja.md`, `docs/config_README-en.md`,
`library/config_util.py`, `library/custom_train_functions.py`):

- `N_class` is read N times an epoch; `class` is the caption of a photo that has no caption file. Captions are the first
  line of `photo.txt` or `photo.caption`.
- A TOML has `[[datasets.subsets]]` with `image_dir`, `num_repeats`, `class_tokens`, `caption_extension`,
  `conditioning_data_dir` (masks of the photos' names) and `alpha_mask` (opacity is the mask); the first four may stand
  in `[general]` or `[[datasets]]` too.
- Its masked loss is the loss times the mask: what is black counts nothing. So a mask means `ignore` outside it.

Here subfolders are read too, folders without a number in their name and photos beside them are read once, and a folder
`masks` holds masks (see `photo_folders.MASK_FOLDERS`). Of a folder of the GUI, `img` and `reg` are read. Regularisation
pictures are read like others, which is their weight in sd-scripts by default.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import find_pictures, has_pictures
from fairhuman.data.sources.photo_folders import (
    MASK_FOLDERS,
    PhotoFolder,
    caption_suffix,
    configured_folder,
    configured_rows,
    has_masks,
    list_of,
    note_masks_beside,
    photo_rows,
    plain_text,
    whole_number,
)
from fairhuman.data.sources.rows import STAGE, Row, printable, reading_table
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten

NAMED = re.compile(r"([1-9]\d{0,2})_(.+)")  # up to 999 repeats: `2024_holiday` is a year
IMAGES = ("img", "image", "images")  # the GUI's folder of folders, beside `log` and `model`
REGULARISATION = "reg"  # that of its regularisation pictures
MAX_TOML = 2**18  # bytes; a value can take hundreds of bytes of memory for each one here
MAX_DOTS = 100  # of a line; the time and memory of a key grow with the square of its parts


def is_kohya(path: Path) -> bool:
    """Whether a path is a TOML of sd-scripts, or a folder with one or with folders of repeats."""
    if toml_with(path, "datasets") is not None:
        return True
    return path.is_dir() and (any(map(_is_named, (path, *_subfolders(path)))) or bool(_gui_folders(path)))


def _is_named(folder: Path) -> bool:
    return NAMED.fullmatch(folder.name) is not None and has_pictures(folder)


def _gui_folders(path: Path) -> list[Path]:
    """The GUI's folders of photos in a folder that has no photos in folders of repeats itself."""
    inside = _subfolders(path)
    if any(map(_is_named, (path, *inside))):
        return []
    images = [one for one in inside if one.name.lower() in IMAGES and any(map(_is_named, _subfolders(one)))]
    return [*images, *(one for one in inside if images and one.name.lower() == REGULARISATION)]


def _subfolders(path: Path) -> list[Path]:
    """The folders in a folder. Links, which may lead anywhere, are left out, as `find_pictures` does."""
    return [folder for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.is_symlink()]


def kohya_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos in the order of their folders and names.

    Raises:
        DataError: the TOML can't be read, or names a folder that isn't there.
    """
    config = toml_with(path, "datasets")
    if config is not None:
        file, _ = config
        return (row for subset in _subsets(*config, report) for row in configured_rows(subset, file, path, report))
    return _named_rows(path, report)


def _named_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos of folders with repeats in their names."""
    plain: set[str] = set()
    if not has_masks(path):
        note_masks_beside(path, report)
    others = _outside_gui_folders(path, report)
    for row in photo_rows(PhotoFolder(path, first_line=True), path, report, leave_out=others):
        folders = str(row.values["file_name"]).split("/")[:-1]
        names = (*reversed(folders), path.name)
        named = next((found for name in names if (found := NAMED.fullmatch(name)) is not None), None)
        values = dict(row.values)
        if named is not None:
            values["repeats"] = int(named[1])
            values.setdefault("caption", named[2])
        elif (folder := "/".join(folders) or path.name) not in plain:
            plain.add(folder)
            finding = Finding("warned", "folder has no repeats in its name: read once an epoch")
            report.add(printable(folder), STAGE, finding)
        yield Row(row.location, values)


def _outside_gui_folders(path: Path, report: LoadReport) -> list[str]:
    """Pictures of the GUI's folder that are no photos to train on, such as samples of an earlier run in `model`."""
    read = {folder.name for folder in _gui_folders(path)}
    names = (found.name for found in find_pictures(path, LoadReport())) if read else ()
    tops = ((name, name.partition("/")[0]) for name in names)
    others = [name for name, top in tops if top not in read and top.lower() not in MASK_FOLDERS]
    if others:
        finding = Finding("warned", "pictures outside img and reg are not read", f"{len(others)}, such as {others[0]}")
        report.add(printable(path.name), STAGE, finding)
    return others


def _subsets(file: Path, content: Mapping[str, Any], report: LoadReport) -> Iterator[PhotoFolder]:
    """The subsets of a TOML; those of its fine-tuning method, with a file of metadata, are noted and left out."""
    general = content.get("general", {})
    if not isinstance(general, dict):
        raise DataError(f"{file}: general must be a table, [general], not {shorten(repr(general))}")
    for dataset in content["datasets"]:
        for subset in list_of(dict, file, dataset.get("subsets"), "subsets"):
            values = {**general, **dataset, **subset}
            if "metadata_file" in values:
                finding = Finding("skipped", "subset with metadata_file is not read", str(values["metadata_file"]))
                report.add(file.name, STAGE, finding)
                continue
            masks = values.get("conditioning_data_dir")
            yield PhotoFolder(
                configured_folder(file, values.get("image_dir"), "image_dir"),
                masks=None if masks is None else configured_folder(file, masks, "conditioning_data_dir"),
                repeats=whole_number(file, values.get("num_repeats", 1), "num_repeats"),
                suffix=caption_suffix(file, values.get("caption_extension"), "caption_extension"),
                default=plain_text(file, values.get("class_tokens"), "class_tokens"),
                first_line=True,
                alpha=values.get("alpha_mask") is True,
            )


def toml_with(path: Path, table: str) -> tuple[Path, Mapping[str, Any]] | None:
    """The TOML at a path, or in a folder, that has a list of tables of this name; and its content. None: there is none.

    Raises:
        DataError: the path is a TOML that can't be read.
    """
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path] if path.suffix == ".toml" else []
    for file in files:
        try:
            with reading_table(file):
                content = _parse_toml(file)
        except (DataError, ValueError, RecursionError) as error:
            if file == path:
                raise DataError(f"{file}: not a TOML file ({error})") from error
            continue
        if isinstance(content.get(table), list) and all(isinstance(one, dict) for one in content[table]):
            return file, content
    return None


def _parse_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML within the limits.

    Raises:
        ValueError: it isn't one, or exceeds a limit.
        OSError: it can't be read.
    """
    with file.open("rb") as stream:
        content = stream.read(MAX_TOML + 1)
    if len(content) > MAX_TOML:
        raise ValueError(f"must have at most {MAX_TOML} bytes")
    text = content.decode("utf-8-sig")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS:
            raise ValueError(f"line {number}: must have at most {MAX_DOTS} dots, found {line.count('.')}")
    return tomllib.loads(text)
