"""Folders of OneTrainer: `photo-masklabel.png` beside `photo.jpg` is its mask, `photo.txt` its caption.

Facts from Nerogar/OneTrainer at 19e5e7a (`modules/dataLoader/SelectMaskPath.py`,
`modules/dataLoader/mixin/DataLoaderText2ImageMixin.py`, `modules/util/config/TrainConfig.py`): `-masklabel1.png` to
`-masklabel9.png` are other masks of the same photo, `-condlabel.png` is a condition, a caption file has a caption a
line; white is trained, and what is black gets the *unmasked weight*, 0.1 by default, after a step in ten without any
mask. Here a mask means `ignore` outside it, so the outside counts nothing instead of a tenth.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import PictureWithCaption, composed, find_pictures
from fairhuman.data.sources.photo_folders import PhotoFolder, photo_rows
from fairhuman.data.sources.rows import STAGE, Row, printable
from fairhuman.record import Finding

LABEL = re.compile(r"(.*)-(mask|cond)label\d?\.png")


def is_onetrainer(path: Path) -> bool:
    """Whether a folder holds a mask of OneTrainer at any depth."""
    return path.is_dir() and any("-masklabel" in found.name and LABEL.fullmatch(found.name) for found in _all(path))


def onetrainer_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos in the order of their names, at any depth."""
    labels, paired = pair_labels(path, report)
    yield from photo_rows(PhotoFolder(path, paired=paired, first_line=True), path, report, leave_out=labels)


def pair_labels(path: Path, report: LoadReport) -> tuple[Sequence[str], Mapping[str, str]]:
    """The masks and conditions of OneTrainer in a folder, at any depth, and the mask of each photo that has one.

    All are names relative to the folder. What isn't read is noted.
    """
    labels: dict[str, re.Match[str]] = {}
    photo_of: dict[str, str] = {}
    for found in _all(path):
        if match := LABEL.fullmatch(found.name):
            labels[found.name] = match
        else:
            photo_of.setdefault(composed(found.name.rpartition(".")[0]), found.name)
    paired: dict[str, str] = {}
    for name in sorted(labels, key=lambda name: (len(name), name)):  # `-masklabel.png` before `-masklabel1.png`
        match = labels[name]
        photo = photo_of.get(composed(match[1]))
        if photo is None:
            report.add(printable(name), STAGE, Finding("dropped", "mask matches no photo", printable(name)))
        elif match[2] == "cond":
            report.add(printable(name), STAGE, Finding("dropped", "condition of OneTrainer is not read"))
        elif photo in paired:
            report.add(printable(name), STAGE, Finding("dropped", "mask is a second one of its photo", printable(name)))
        else:
            paired[photo] = name
    return tuple(labels), paired


def _all(path: Path) -> Iterator[PictureWithCaption]:
    return find_pictures(path, LoadReport())
