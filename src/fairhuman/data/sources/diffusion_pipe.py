"""Data sets of diffusion-pipe: its TOML with `path` and `mask_path`, or photos with a folder `masks` among them.

Facts from tdrussell/diffusion-pipe at 0784ca8 (`examples/dataset.toml`, `utils/dataset.py`): each `[[directory]]` has
`path`, whose own photos are read, `mask_path` with masks of the photos' names and any ending, `num_repeats` and
`caption_prefix`, which may stand above all directories, too; captions are in `photo.txt`, or lists of them by the
photos' names in a `captions.json` of the folder. White is trained, black isn't, grey is a weight; a photo without a
mask is trained whole. So a mask means `ignore` outside it. Videos aren't read.
"""

from collections.abc import Iterator
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.kohya import toml_with
from fairhuman.data.sources.photo_folders import (
    PhotoFolder,
    configured_folder,
    configured_rows,
    has_masks,
    photo_rows,
    plain_text,
    whole_number,
)
from fairhuman.data.sources.rows import STAGE, Row, printable, read_json
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten

CAPTIONS = "captions.json"


def is_diffusion_pipe(path: Path) -> bool:
    """Whether a path is a TOML of diffusion-pipe, or a folder with one, or with a folder of masks."""
    return toml_with(path, "directory") is not None or has_masks(path)


def diffusion_pipe_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos in the order of the directories and of their names.

    Raises:
        DataError: the TOML can't be read, or names a folder that isn't there.
    """
    config = toml_with(path, "directory")
    if config is None:
        yield from photo_rows(PhotoFolder(path), path, report)
        return
    file, content = config
    for directory in content["directory"]:
        values = {**{name: content[name] for name in ("num_repeats", "caption_prefix") if name in content}, **directory}
        masks, own = values.get("mask_path"), configured_folder(file, values.get("path"), "path")
        folder = PhotoFolder(
            own,
            masks=None if masks is None else configured_folder(file, masks, "mask_path"),
            repeats=whole_number(file, values.get("num_repeats", 1), "num_repeats"),
            deep=False,
            suffix=".txt",
            listed=_captions(own / CAPTIONS, report),
            prefix=plain_text(file, values.get("caption_prefix"), "caption_prefix") or "",
        )
        yield from configured_rows(folder, file, path, report)


def _captions(file: Path, report: LoadReport) -> dict[str, str] | None:
    """The first caption of each photo in a `captions.json`; None without one.

    Raises:
        DataError: it isn't a table of texts or lists of texts.
    """
    if not file.is_file():
        return None
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: must be a table of captions by the names of photos, not {shorten(repr(content))}")
    listed = {name: [value] if isinstance(value, str) else value for name, value in content.items()}
    for name, captions in listed.items():
        if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
            raise DataError(f"{file}: captions of {name} must be a list of texts, not {shorten(repr(captions))}")
        if len(captions) > 1:
            finding = Finding("warned", "only the first of several captions is used", captions[0])
            report.add(printable(name), STAGE, finding)
    return {name: captions[0] for name, captions in listed.items() if captions}
