"""MoLE's human-centric set: folders of pictures with captions in `meta_cap.json`, the format of kohya's sd-scripts.

`{KEY: {"caption": TEXT, ...}}`, where a key is a picture's path in that folder, with or without its suffix
(`data_config/*.toml` and `finetune/merge_captions_to_metadata.py` of JiePKU/MoLE at 6fe32fa). The three subsets
(human in the scene, close-ups of faces, of hands) are folders; a picture's subset is kept as the attribute `subset`.
A picture that no `meta_cap.json` names gets its caption as in a plain folder, from `photo.txt` beside `photo.jpg`.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import find_pictures, read_caption
from fairhuman.data.sources.rows import Row, printable, read_json
from fairhuman.errors import DataError

CAPTIONS = "meta_cap.json"


def is_mole(path: Path) -> bool:
    """Whether a folder or one of its subfolders has a caption file."""
    return path.is_dir() and (next(path.glob(CAPTIONS), None) or next(path.glob(f"*/{CAPTIONS}"), None)) is not None


def mole_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """Pictures in the order of their names, with captions from the nearest caption file above them.

    Raises:
        DataError: a caption file can't be read.
    """
    captions_of: dict[PurePosixPath, dict[str, Any]] = {}
    for found in find_pictures(folder, report):
        path = PurePosixPath(found.name)
        caption = _caption(folder, path, captions_of)
        if caption is None and found.caption:
            caption = read_caption(folder / found.caption, report)
        values: dict[str, Any] = {"file_name": found.name, "faces": None, "hands": None}
        if caption is not None:
            values["caption"] = caption
        values["attributes"] = {"subset": printable(path.parts[0] if len(path.parts) > 1 else folder.name)}
        yield Row(printable(found.name), values)


def _caption(root: Path, picture: PurePosixPath, captions_of: dict[PurePosixPath, dict[str, Any]]) -> Any:
    """Caption of a picture; `captions_of` caches the entries of the caption file of each folder."""
    for folder in picture.parents:
        if folder not in captions_of:
            captions_of[folder] = _captions(root / folder / CAPTIONS)
        inside = picture.relative_to(folder)
        for key in (str(inside.with_suffix("")), str(inside)):
            entry = captions_of[folder].get(key)
            if isinstance(entry, dict) and entry.get("caption") is not None:
                return entry["caption"]
    return None


def _captions(file: Path) -> dict[str, Any]:
    """Entries of a caption file; none if there is no such file."""
    if not file.exists():
        return {}
    values = read_json(file)
    if not isinstance(values, dict):
        raise DataError(f"{file}: must hold a JSON object of captions by picture, found {type(values).__name__}")
    return values
