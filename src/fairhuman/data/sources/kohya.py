"""Folders of kohya's sd-scripts: `10_ohwx person/` with repeats and class in its name, or a TOML of its data sets.

Facts from kohya-ss/sd-scripts at 71ad3c0 (`docs/masked_loss_README-ja.md`, `docs/config_README-en.md`,
`library/config_util.py`, `library/custom_train_functions.py`):

- `N_class` is read N times an epoch; `class` is the caption of a photo that has no caption file. Captions are the first
  line of `photo.txt` or `photo.caption`.
- A TOML has `[[datasets.subsets]]` with `image_dir`, `num_repeats`, `class_tokens`, `caption_extension`,
  `caption_prefix` and `caption_suffix` (before and after captions, with a space), `conditioning_data_dir` (masks of the
  photos' names) and `alpha_mask` (opacity is the mask); all but the folders may stand in `[general]` or `[[datasets]]`.
- Regularisation pictures, of `reg` or of subsets with `is_reg`, are as many as the data set's photos, repeats counted:
  the first ones, or all and some once more (`library/train_util.py`). Their loss has the weight 1 by default.
- Its masked loss is the loss times the mask: what is black counts nothing. So a mask means `ignore` outside it.

Here subfolders are read too, folders without a number in their name and photos beside them are read once, and a folder
`masks` holds masks (see `photo_folders.MASK_FOLDERS`), as do OneTrainer's files beside the photos. Of a folder of the
GUI, `img` and `reg` are read.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import find_pictures, has_pictures
from fairhuman.data.sources.onetrainer import pair_labels
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
# what a caption is made of in sd-scripts beside its text; here a caption is what its file says
UNREAD = ("enable_wildcard", "secondary_separator", "keep_tokens_separator")
MAX_TOML = 2**18  # bytes; a value can take hundreds of bytes of memory for each one here
MAX_DOTS = 100  # of a line; the time and memory of a key grow with the square of its parts


def is_kohya(path: Path) -> bool:
    """Whether a path is a TOML of sd-scripts, or a folder with one or with folders of repeats."""
    if toml_with(path, "datasets") is not None:
        return True
    return path.is_dir() and (any(map(_is_named, (path, *_subfolders(path)))) or bool(_gui_folders(path)))


def _is_named(folder: Path) -> bool:
    return NAMED.fullmatch(folder.absolute().name) is not None and has_pictures(folder)


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
    return _named_rows(path, report) if config is None else _configured_rows(path, *config, report)


def _named_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos of folders with repeats in their names."""
    gui = {folder.name for folder in _gui_folders(path)}
    of_reg = tuple(f"{name}/" for name in gui if name.lower() == REGULARISATION)
    rows = _rows_with_repeats(path, gui, report)
    return _balanced(((str(row.values["file_name"]).startswith(of_reg), row) for row in rows), path.name, report)


def _balanced(rows: Iterable[tuple[bool, Row]], where: str, report: LoadReport) -> Iterator[Row]:
    """Photos, then as many regularisation pictures (True), repeats counted: the first ones, or all and some again."""
    wanted, regularisation = 0, []
    for is_regularisation, row in rows:
        if is_regularisation:
            regularisation.append(row)
        else:
            wanted += _repeats(row)
            yield row
    before = [0, *accumulate(map(_repeats, regularisation))]
    taken = [row for row, count in zip(regularisation, before, strict=False) if count < wanted]
    further, rest = divmod(max(0, wanted - before[len(taken)]), max(1, len(taken)))
    for number, row in enumerate(taken):
        yield Row(row.location, {**row.values, "repeats": _repeats(row) + further + (number < rest)})
    if len(taken) < len(regularisation):
        why = "more regularisation pictures than photos: the others are not read"
        found = f"{len(regularisation) - len(taken)} of {len(regularisation)}"
        report.add(printable(where), STAGE, Finding("warned", why, found))


def _repeats(row: Row) -> int:
    return int(row.values.get("repeats", 1))


def _rows_with_repeats(path: Path, gui: Collection[str], report: LoadReport) -> Iterator[Row]:
    plain: set[str] = set()
    if not has_masks(path):
        note_masks_beside(path, report)
    labels, paired = pair_labels(path, report)
    others = (*_outside(path, gui, report), *labels)
    for row in photo_rows(PhotoFolder(path, paired=paired, first_line=True), path, report, leave_out=others):
        folders = str(row.values["file_name"]).split("/")[:-1]
        names = (*reversed(folders), path.absolute().name)
        named = next((found for name in names if (found := NAMED.fullmatch(name)) is not None), None)
        values = dict(row.values)
        if named is not None:
            values["repeats"] = int(named[1])
            values.setdefault("caption", named[2])
        elif (folder := "/".join(folders) or path.absolute().name) not in plain:
            plain.add(folder)
            finding = Finding("warned", "folder has no repeats in its name: read once an epoch")
            report.add(printable(folder), STAGE, finding)
        yield Row(row.location, values)


def _outside(path: Path, read: Collection[str], report: LoadReport) -> list[str]:
    """Pictures of the GUI's folder that are no photos to train on, such as samples of an earlier run in `model`."""
    names = (found.name for found in find_pictures(path, LoadReport())) if read else ()
    tops = ((name, name.partition("/")[0]) for name in names)
    others = [name for name, top in tops if top not in read and top.lower() not in MASK_FOLDERS]
    if others:
        finding = Finding("warned", "pictures outside img and reg are not read", f"{len(others)}, such as {others[0]}")
        report.add(printable(path.name), STAGE, finding)
    return others


def _configured_rows(path: Path, file: Path, content: Mapping[str, Any], report: LoadReport) -> Iterator[Row]:
    """Photos of a TOML; of each data set, regularisation pictures after the others."""
    general = content.get("general", {})
    if not isinstance(general, dict):
        raise DataError(f"{file}: general must be a table, [general], not {shorten(repr(general))}")
    for dataset in content["datasets"]:
        subsets = [{**general, **dataset, **one} for one in list_of(dict, file, dataset.get("subsets"), "subsets")]
        rows = (
            (values.get("is_reg") is True, row)
            for values in subsets
            if not _has_metadata(file, values, report)
            for row in configured_rows(_subset(file, values, report), file, path, report)
        )
        yield from _balanced(rows, file.name, report)


def _has_metadata(file: Path, values: Mapping[str, Any], report: LoadReport) -> bool:
    """Whether a subset is one of the fine-tuning method, which is noted."""
    if "metadata_file" not in values:
        return False
    finding = Finding("skipped", "subset with metadata_file is not read", str(values["metadata_file"]))
    report.add(file.name, STAGE, finding)
    return True


def _subset(file: Path, values: Mapping[str, Any], report: LoadReport) -> PhotoFolder:
    unread = [name for name in UNREAD if values.get(name)]
    if unread:
        finding = Finding("warned", "settings of captions are not read", ", ".join(unread))
        report.add(file.name, STAGE, finding)
    masks = values.get("conditioning_data_dir")
    prefix = plain_text(file, values.get("caption_prefix"), "caption_prefix")
    ending = plain_text(file, values.get("caption_suffix"), "caption_suffix")
    return PhotoFolder(
        configured_folder(file, values.get("image_dir"), "image_dir"),
        masks=None if masks is None else configured_folder(file, masks, "conditioning_data_dir"),
        repeats=whole_number(file, values.get("num_repeats", 1), "num_repeats"),
        suffix=caption_suffix(file, values.get("caption_extension"), "caption_extension"),
        default=plain_text(file, values.get("class_tokens"), "class_tokens"),
        prefix="" if prefix is None else f"{prefix} ",
        ending="" if ending is None else f" {ending}",
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
