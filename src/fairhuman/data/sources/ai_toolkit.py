"""Data sets of ai-toolkit: its YAML with `folder_path` and `mask_path`, or photos and masks in a folder each.

Facts from ostris/ai-toolkit (`toolkit/dataloader_mixins.py`, `toolkit/config_modules.py` at f699f4b,
`extensions_built_in/sd_trainer/SDTrainer.py`): the data sets are `config.process[].datasets[]`. Photos are read at any
depth; a mask has its photo's name with any ending, in `mask_path`; `alpha_mask` takes the opacity instead,
`invert_mask` turns black and white around; `caption_ext` is `txt` by default, `default_caption` is that of a photo
without a file, `num_repeats` multiplies. Black counts `mask_min_value`, 0 by default, and the mask is divided by its
mean. So a mask means `ignore` outside it, and the loss is a mean over the rest here too. `trigger_word`, of the process
or of a data set, takes the place of `[trigger]` and `[name]` in captions, where nothing takes it without one, and
begins those that don't have it but for a set with `is_reg` (`toolkit/prompt_utils.py`, `toolkit/dataloader_mixins.py`
at 27a03a9). Folders `_controls`, where it writes maps of depth and pose, and hidden ones hold no photos
(`toolkit/data_loader.py`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import PICTURE_SUFFIXES, find_pictures
from fairhuman.data.sources.photo_folders import (
    PhotoFolder,
    caption_suffix,
    configured_folder,
    configured_rows,
    has_masks,
    list_of,
    photo_rows,
    plain_text,
    whole_number,
)
from fairhuman.data.sources.rows import Row, reading_table
from fairhuman.errors import DataError
from fairhuman.utils.parse import read_yaml

SUFFIXES = (".yaml", ".yml")
CONTROLS = "_controls"


def is_ai_toolkit(path: Path) -> bool:
    """Whether a path is a YAML of ai-toolkit, a folder with one, or folders of photos and of masks."""
    if _config(path) is not None:
        return True
    return path.is_dir() and not _has_photos_at_top(path) and has_masks(path)


def ai_toolkit_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos in the order of the data sets and of their names.

    Raises:
        DataError: the YAML can't be read, or names a folder that isn't there.
    """
    config = _config(path)
    if config is None:
        yield from photo_rows(PhotoFolder(path), path, report)
        return
    file, processes = config
    for process in processes:
        for values in list_of(dict, file, process["datasets"], "datasets"):
            folder = _folder(file, values, process.get("trigger_word"))
            yield from configured_rows(folder, file, path, report, leave_out=_not_photos(folder.path))


def _not_photos(folder: Path) -> list[str]:
    names = [found.name for found in find_pictures(folder, LoadReport())]
    return [name for name in names if any(one == CONTROLS or one.startswith(".") for one in name.split("/")[:-1])]


def _folder(file: Path, values: Mapping[str, Any], trigger: Any) -> PhotoFolder:
    masks = values.get("mask_path")
    trigger = values.get("trigger_word") or trigger
    return PhotoFolder(
        configured_folder(file, values.get("folder_path") or values.get("dataset_path"), "folder_path"),
        masks=None if not masks else configured_folder(file, masks, "mask_path"),
        repeats=whole_number(file, values.get("num_repeats", 1), "num_repeats"),
        suffix=caption_suffix(file, values.get("caption_ext"), "caption_ext") or ".txt",
        default=plain_text(file, values.get("default_caption"), "default_caption"),
        trigger=plain_text(file, trigger, "trigger_word") or "",
        begin=values.get("is_reg") is not True,
        alpha=values.get("alpha_mask") is True,
        inverted=values.get("invert_mask") is True,
    )


def _config(path: Path) -> tuple[Path, list[dict[str, Any]]] | None:
    """The YAML at a path, or in a folder, and its processes that have data sets; None: there is none."""
    files = [file for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.suffix in SUFFIXES]
    for file in files:
        try:
            with reading_table(file):
                content = read_yaml(file)
        except (DataError, ValueError) as error:
            if file == path:
                raise DataError(f"{file}: not a YAML file ({' '.join(str(error).split())})") from error
            continue
        section = content.get("config") if isinstance(content, dict) else None
        processes = section.get("process") if isinstance(section, dict) else None
        if isinstance(processes, list):
            found = [one for one in processes if isinstance(one, dict) and isinstance(one.get("datasets"), list)]
            if found:
                return file, found
    return None


def _has_photos_at_top(path: Path) -> bool:
    return any(file.suffix.lower() in PICTURE_SUFFIXES for file in path.iterdir())
