"""Reading the pictures of an evaluation from any source: each is checked once and gets its prompt."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from fairhuman.data.pictures.decode import decode, pixel_digest, read_texts
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.cache import CachedRows, Key
from fairhuman.data.sources import SourceSettings, iterate_records, source_format, source_kind
from fairhuman.errors import DataError
from fairhuman.generate.record import SETTINGS
from fairhuman.generate.unread import READ
from fairhuman.record import HumanRecord
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
    """

    record: HumanRecord
    sha256: bytes
    prompt: str
    group: str
    drawn_with: Mapping[str, str] = field(default_factory=dict, compare=False)

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
    """All pictures of a source, sorted by key; those that can't be decoded are noted and skipped.

    The prompt of a picture comes from its PNG metadata (`fairhuman sample` writes it), else from `prompts`, else from
    the caption in the source. Pictures without metadata are assigned to `prompts` in order: N pictures and P prompts
    give N / P pictures per prompt. `checked` caches earlier decoding checks; `workers` threads read and decode. `parts`
    are the subfolders that are read alone; empty: all is read.

    Raises:
        DataError: the source has no picture, or its pictures don't match the prompts.
    """
    kind = source_kind(path)
    source = source_format(kind)
    root = path if path.is_dir() else path.parent
    rows = list(source.rows(path, report))
    captioned = any("caption" in row.values for row in rows)
    records = list(iterate_records(rows, root, source.picture, PARTS, SourceSettings(), report, captioned))
    if parts:
        records = [record for record in records if record.key.split("/", 1)[0] in parts]
    records.sort(key=lambda record: record.key)
    if not records:
        raise DataError(f"{path}: holds no usable picture; read as {kind}: {source.signs}")
    texts = _read_records(records, workers, report)
    chosen = _prompts(path, [(record, text) for record, _, text in texts], prompts)
    pictures = [
        EvalImage(record, sha, prompt, group, {name: text[name] for name in (*SETTINGS, READ) if name in text})
        for (record, sha, text), (prompt, group) in zip(texts, chosen, strict=True)
    ]
    return _decodable(pictures, checked, workers, report, progress)


def _read_records(
    records: Sequence[HumanRecord], workers: int, report: LoadReport
) -> list[tuple[HumanRecord, bytes, dict[str, str]]]:
    """Readable records, with the hash of their bytes and their text metadata."""

    def read(record: HumanRecord) -> tuple[bytes, dict[str, str]] | PictureError:
        try:
            content = read_bytes(record.image)
            return pixel_digest(content), read_texts(content)
        except PictureError as error:
            return error

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for record, result in zip(records, pool.map(read, records), strict=True):
            if isinstance(result, PictureError):
                report.add(record.location, "picture", result.finding)
            else:
                found.append((record, *result))
    return found


def _prompts(
    path: Path, texts: Sequence[tuple[HumanRecord, dict[str, str]]], prompts: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Prompt and group of each picture."""
    has_prompt = [
        (index := text.get("prompt_index", "")).isdecimal() and len(index) < 10 and "prompt" in text
        for _, text in texts
    ]
    if all(has_prompt):
        chosen = []
        for record, text in texts:
            number, prompt = int(text["prompt_index"]), text["prompt"]
            if prompts is not None and (number >= len(prompts) or prompts[number] != prompt):
                wanted = repr(prompts[number]) if number < len(prompts) else f"none, it has {len(prompts)}"
                raise DataError(
                    f"{path}: {record.key} was drawn for prompt {number} = {prompt!r}, the prompts have {wanted} there"
                )
            chosen.append((prompt, prompt))
        return chosen
    if any(has_prompt):
        silent = next(record.key for (record, _), has in zip(texts, has_prompt, strict=True) if not has)
        raise DataError(f"{path}: {silent} has no prompt metadata, but other pictures do; give pictures of one run")
    if prompts is None:
        return [(record.caption, record.caption or record.key) for record, _ in texts]
    if not prompts or len(texts) % len(prompts):
        raise DataError(f"{path}: {len(texts)} pictures can't be divided evenly among {len(prompts)} prompts")
    each = len(texts) // len(prompts)
    return [(prompts[place // each],) * 2 for place in range(len(texts))]


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
