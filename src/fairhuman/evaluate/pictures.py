"""Reading the pictures of an evaluation from any source: each is checked once and gets its prompt."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from fairhuman.data.pictures.decode import decode, pixel_digest, read_texts
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.cache import CachedRows, Key
from fairhuman.data.sources import SourceSettings, source_format, source_kind
from fairhuman.data.sources.prompts import prompt_numbers
from fairhuman.data.sources.rows import CAPTION, RecordReader, Row, keyed_rows, row_key
from fairhuman.errors import DataError
from fairhuman.generate.record import SETTINGS, entry_number
from fairhuman.generate.unread import READ
from fairhuman.record import HumanRecord
from fairhuman.utils.files import natural_path_order
from fairhuman.utils.parse import parse_json

PARTS = ("face", "hand")
CHECKED = "checked-1"  # cache name; its number is raised when the check changes
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class EvalImage:
    """A decodable picture to evaluate.

    Attributes:
        record: location, size, and boxes if annotated.
        sha256: hash of the file's bytes, and of how their colours are converted; see `pixel_digest`.
        prompt: empty if unknown.
        group: key shared by all pictures of the same prompt, also across methods.
        drawn_with: its sampling settings, from the text entries that `fairhuman sample` writes; else empty.
        sample: which of the prompts with its text it is for, and which picture of that prompt it is, both from 0. By
            these and `group`, pictures of several methods are paired.
    """

    record: HumanRecord
    sha256: bytes
    prompt: str
    group: str
    drawn_with: Mapping[str, str] = field(default_factory=dict, compare=False)
    sample: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The picture's key in its source; for a folder, the relative path."""
        return self.record.key

    def key(self, with_prompt: bool = False) -> Key:
        """Cache key: hash of the content, and of the prompt if `with_prompt`."""
        prompt = hashlib.sha256(self.prompt.encode()).digest() if with_prompt else b""
        return self.sha256 + prompt

    def image(self) -> Image.Image:
        """The upright RGB picture.

        Raises:
            PictureError: the file can no longer be read, or has changed.
        """
        content = read_bytes(self.record.image)
        if pixel_digest(content) != self.sha256:
            raise PictureError("picture changed during the evaluation", self.record.location)
        return decode(content).picture


def read_pictures(
    path: Path,
    prompts: Sequence[str] | None,
    checked: CachedRows[str],
    report: LoadReport,
    workers: int = 2,
    progress: Progress = lambda *_: None,
    parts: Sequence[str] = (),
) -> list[EvalImage]:
    """All pictures of a source, in natural order of their keys; those that can't be decoded are noted and skipped.

    The prompt of a picture comes from its PNG metadata (`fairhuman sample` writes it), else from `prompts`, else from
    the caption in the source. Pictures without metadata are assigned to `prompts` in order, before any is skipped: see
    `prompt_numbers`. `checked` caches earlier decoding checks; `workers` threads read and decode. `parts`
    are the subfolders that are read, and no others; empty: all is read.

    Raises:
        DataError: the source has no picture, or its pictures don't match the prompts.
    """
    kind = source_kind(path)
    source = source_format(kind)
    root = path if path.is_dir() else path.parent
    rows = [(row_key(row, source.picture), row) for row in source.read(path, report)]
    if parts:
        rows = [(key, row) for key, row in rows if key.split("/", 1)[0] in parts]
    rows.sort(key=lambda pair: natural_path_order(pair[0]))
    ordered = [row for _, row in rows]
    records = _records(ordered, root, source.picture, report)
    if not any(records):
        raise DataError(f"{path}: holds no usable picture; read as {kind}: {source.signs}")
    read = _read_records(records, workers, report)
    wanted = _wanted(path, ordered, read, prompts)
    pictures = [
        EvalImage(record, sha, prompt, group, {name: text[name] for name in (*SETTINGS, READ) if name in text}, sample)
        for (record, sha, text), (prompt, group, sample) in ((read[place], one) for place, one in wanted.items())
    ]
    return _decodable(pictures, checked, workers, report, progress)


def _records(rows: Sequence[Row], root: Path, picture: str, report: LoadReport) -> list[HumanRecord | None]:
    """The record of each row; None for an unusable one, which is noted."""
    captioned = any(CAPTION in row.values for row in rows)
    return [
        RecordReader(row, root, PARTS, SourceSettings(), report).read(key, picture, captioned)
        for key, row in keyed_rows(rows, picture)
    ]


def _read_records(
    records: Sequence[HumanRecord | None], workers: int, report: LoadReport
) -> dict[int, tuple[HumanRecord, bytes, dict[str, str]]]:
    """Readable records by place, with the hash of their bytes and their text metadata."""

    def read(record: HumanRecord) -> tuple[bytes, dict[str, str]] | PictureError:
        try:
            content = read_bytes(record.image)
            return pixel_digest(content), read_texts(content)
        except PictureError as error:
            return error

    usable = {place: record for place, record in enumerate(records) if record is not None}
    found = {}
    with ThreadPoolExecutor(workers) as pool:
        for (place, record), result in zip(usable.items(), pool.map(read, usable.values()), strict=True):
            if isinstance(result, PictureError):
                report.add(record.location, "picture", result.finding)
            else:
                found[place] = (record, *result)
    return found


def _wanted(
    path: Path,
    rows: Sequence[Row],
    read: Mapping[int, tuple[HumanRecord, bytes, dict[str, str]]],
    prompts: Sequence[str] | None,
) -> dict[int, tuple[str, str, tuple[int, int]]]:
    """Prompt, group and sample of each picture that can be read, by its place among all rows."""
    stored = {
        place: number
        for place, (_, _, text) in read.items()
        if (number := entry_number(text, "prompt_index")) is not None and "prompt" in text
    }
    if stored and len(stored) < len(read):
        silent = next(record.key for place, (record, _, _) in read.items() if place not in stored)
        raise DataError(f"{path}: {silent} has no prompt metadata, but other pictures do; give pictures of one run")
    wanted: dict[int, tuple[int, str]]  # number and text of the prompt; a caption is one of its own
    if stored:
        wanted = {place: (number, read[place][2]["prompt"]) for place, number in stored.items()}
        for place, (number, prompt) in wanted.items():
            if prompts is not None and (number >= len(prompts) or prompts[number] != prompt):
                there = repr(prompts[number]) if number < len(prompts) else f"none, it has {len(prompts)}"
                raise DataError(
                    f"{path}: {read[place][0].key} was drawn for prompt {number} = {prompt!r}, "
                    f"the prompts have {there} there"
                )
    elif prompts is not None:
        numbers = prompt_numbers(len(rows), prompts, f"{path}: {len(rows)} pictures")
        wanted = {place: (number, prompts[number]) for place, number in enumerate(numbers)}
    else:
        captions = {place: record.caption or record.key for place, (record, _, _) in read.items()}
        wanted = {place: (place, captions.get(place, str(row.values.get(CAPTION)))) for place, row in enumerate(rows)}
    same: dict[str, dict[int, int]] = {}  # of the prompts with one text: which is the first, the second ...
    for number, prompt in sorted({*wanted.values(), *enumerate(prompts or ())}):
        ranks = same.setdefault(prompt, {})
        ranks.setdefault(number, len(ranks))
    nth: Counter[int] = Counter()
    found = {}
    for place, (number, group) in wanted.items():
        if place in read:
            record, _, text = read[place]
            picture = entry_number(text, "picture_index") if stored else None
            prompt = record.caption if not stored and prompts is None else group
            found[place] = (prompt, group, (same[group][number], nth[number] if picture is None else picture))
        nth[number] += 1
    return found


def _decodable(
    pictures: Sequence[EvalImage], checked: CachedRows[str], workers: int, report: LoadReport, progress: Progress
) -> list[EvalImage]:
    """The pictures that can be decoded; each content is checked once."""
    known = {key: parse_json(row) for key, row in checked.read([picture.sha256 for picture in pictures]).items()}
    new = {picture.sha256: picture for picture in pictures if picture.sha256 not in known}
    with ThreadPoolExecutor(workers) as pool:
        for done, (key, verdict) in enumerate(zip(new, pool.map(_verdict, new.values()), strict=True), 1):
            known[key] = verdict
            progress("check", done, len(new))
    checked.add({key: json.dumps(known[key]) for key in new})
    kept = []
    for picture in pictures:
        verdict = known[picture.sha256]
        if verdict is None:
            kept.append(picture)
        else:
            report.add(picture.record.location, "picture", PictureError(*verdict).finding)
    return kept


def _verdict(picture: EvalImage) -> list[str] | None:
    """Reason and value if a picture can't be decoded; None if it can."""
    try:
        picture.image()
    except PictureError as error:
        return [error.finding.reason, error.finding.value]
    return None
