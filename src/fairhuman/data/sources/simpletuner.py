"""Data sets of SimpleTuner: its `multidatabackend.json`, with data sets of pictures and of their masks.

Facts from bghira/SimpleTuner at 04265fc (`documentation/DATALOADER.md`, `documentation/DREAMBOOTH.md`): a list of data
sets. One of pictures (`dataset_type` is `image`, the default) has `instance_data_dir`, read at any depth; its
`conditioning_data` names one or more data sets by their `id`, of which one of `conditioning_type` `mask` or
`segmentation` holds masks of the photos' names: the loss outside a mask counts nothing, so it means `ignore` there.
`repeats` counts the *further* times: 0 is once. `caption_strategy` is `textfile` (a caption a line of `photo.txt`, or
one of all lines with `disable_multiline_split`), `filename`, `instanceprompt` (`instance_prompt`, or one of a list);
`prepend_instance_prompt` puts it before other captions, `only_instance_prompt` in their place
(`simpletuner/helpers/prompts.py`). Where it isn't set, that of the program's own configuration holds, which isn't read
here; then captions are taken from files. A disabled data set isn't read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.photo_folders import (
    PhotoFolder,
    configured_folder,
    configured_rows,
    list_of,
    plain_text,
    whole_number,
)
from fairhuman.data.sources.rows import MAX_TEXT, STAGE, Row, read_json
from fairhuman.errors import DataError
from fairhuman.record import Finding

MASKS = ("mask", "segmentation")
STRATEGIES = ("textfile", "filename", "instanceprompt")

Entry = Mapping[str, Any]


def is_simpletuner(path: Path) -> bool:
    """Whether a path is a list of data sets of SimpleTuner, or a folder with a `*multidatabackend*.json`."""
    return _config(path) is not None


def simpletuner_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Photos in the order of the data sets and of their names.

    Raises:
        DataError: the JSON can't be read, or names a folder that isn't there.
    """
    config = _config(path)
    if config is None:
        raise DataError(f"{path}: expected a *multidatabackend*.json of SimpleTuner, found none")
    file, entries = config
    by_id = {entry["id"]: entry for entry in entries if isinstance(entry.get("id"), str)}
    for entry in entries:
        kind = entry.get("dataset_type", "image")
        if entry.get("disabled") or entry.get("disable") or kind in ("conditioning", "text_embeds", "image_embeds"):
            continue
        if kind != "image" or entry.get("type", "local") != "local":
            shown = f"{entry.get('id')}: {kind}, {entry.get('type')}"
            report.add(file.name, STAGE, Finding("skipped", "data set is not one of local pictures", shown))
            continue
        strategy = entry.get("caption_strategy", "textfile")
        if strategy not in STRATEGIES:
            finding = Finding("dropped", f"captions are read by {', '.join(STRATEGIES)} alone", str(strategy))
            report.add(file.name, STAGE, finding)
        prompt = _prompt(file, entry, report)
        only = strategy == "instanceprompt" or entry.get("only_instance_prompt") is True
        for row in configured_rows(_folder(file, entry, by_id, strategy, prompt, only), file, path, report):
            yield _named(row, entry, prompt) if strategy == "filename" and not only else row


def _prompt(file: Path, entry: Entry, report: LoadReport) -> str:
    """The data set's own prompt, the first of a list; empty without one."""
    value = entry.get("instance_prompt")
    if not isinstance(value, list):
        return plain_text(file, value, "instance_prompt") or ""
    prompts = list_of(str, file, value, "instance_prompt")
    if len(prompts) > 1:
        report.add(file.name, STAGE, Finding("warned", "only the first of several captions is used", prompts[0]))
    return prompts[0] if prompts else ""


def _folder(
    file: Path, entry: Entry, by_id: Mapping[str, Entry], strategy: str, prompt: str, only: bool
) -> PhotoFolder:
    folder = PhotoFolder(
        configured_folder(file, entry.get("instance_data_dir"), "instance_data_dir"),
        masks=_masks(file, entry, by_id),
        repeats=whole_number(file, entry.get("repeats", 0), "repeats", least=0) + 1,
        suffix=".txt",
        first_line=entry.get("disable_multiline_split") is not True,
        captions=strategy == "textfile" and not only,
        default=prompt if only else None,
    )
    ahead = entry.get("prepend_instance_prompt") is True and prompt and not only
    return replace(folder, prefix=f"{prompt} ") if ahead else folder


def _masks(file: Path, entry: Entry, by_id: Mapping[str, Entry]) -> Path | None:
    named = entry.get("conditioning_data") or None
    for name in [named] if isinstance(named, str) else list_of(str, file, named, "conditioning_data"):
        if name not in by_id:
            raise DataError(f"{file}: conditioning_data names {name!r}, but no data set has this id")
        if by_id[name].get("conditioning_type") in MASKS:
            return configured_folder(file, by_id[name].get("instance_data_dir"), "instance_data_dir")
    return None


def _named(row: Row, entry: Entry, prompt: str) -> Row:
    """The row with its photo's name as its caption, with spaces for underscores."""
    name = PurePosixPath(row.location).stem.replace("_", " ").strip()
    ahead = entry.get("prepend_instance_prompt") is True and prompt
    return Row(row.location, {**row.values, "caption": f"{prompt} {name}" if ahead else name})


def _config(path: Path) -> tuple[Path, Sequence[Entry]] | None:
    """The list at a path, or in a folder; None: there is none."""
    inside = path.glob("*multidatabackend*.json") if path.is_dir() else [path]
    files = sorted(file for file in inside if file.suffix == ".json")
    for file in files:
        content = read_json(file, MAX_TEXT)
        entries = content if isinstance(content, list) else []
        if any(isinstance(entry, dict) and "instance_data_dir" in entry for entry in entries):
            return file, [entry for entry in entries if isinstance(entry, dict)]
    return None
