"""Data sets of diffusion-pipe: its TOML with `path` and `mask_path`, or photos with a folder `masks` among them.

Facts from tdrussell/diffusion-pipe at 5145971 (`examples/dataset.toml`): each `[[directory]]` has `path`, whose own
photos are read, `mask_path` with masks of the photos' names and any ending, and `num_repeats`; captions are in
`photo.txt`. White is trained, black isn't, grey is a weight; a photo without a mask is trained whole. So a mask means
`ignore` outside it. Videos aren't read.
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
    whole_number,
)
from fairhuman.data.sources.rows import Row


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
    for values in content["directory"]:
        masks = values.get("mask_path")
        folder = PhotoFolder(
            configured_folder(file, values.get("path"), "path"),
            masks=None if masks is None else configured_folder(file, masks, "mask_path"),
            repeats=whole_number(file, values.get("num_repeats", 1), "num_repeats"),
            deep=False,
            suffix=".txt",
        )
        yield from configured_rows(folder, file, path, report)
