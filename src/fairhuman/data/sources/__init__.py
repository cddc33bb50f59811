"""Sources of records: one module per format and a table of formats; other packages may add formats."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, byte_length, read_bytes
from fairhuman.data.sources.ai_toolkit import ai_toolkit_rows, is_ai_toolkit
from fairhuman.data.sources.bodyhands import bodyhands_rows, is_bodyhands
from fairhuman.data.sources.cosmicman import cosmicman_rows, is_cosmicman
from fairhuman.data.sources.diffusion_pipe import diffusion_pipe_rows, is_diffusion_pipe
from fairhuman.data.sources.edits import edited_rows
from fairhuman.data.sources.folder import PICTURE_SUFFIXES, has_pictures
from fairhuman.data.sources.imagefolder import METADATA, imagefolder_rows, is_imagefolder
from fairhuman.data.sources.kohya import is_kohya, kohya_rows
from fairhuman.data.sources.mole import is_mole, mole_rows
from fairhuman.data.sources.onetrainer import is_onetrainer, onetrainer_rows
from fairhuman.data.sources.parquet import parquet_files, parquet_rows
from fairhuman.data.sources.photo_folders import plain_rows
from fairhuman.data.sources.rows import STAGE, Row, SourceSettings, iterate_records, records_from_rows
from fairhuman.data.sources.simpletuner import is_simpletuner, simpletuner_rows
from fairhuman.data.sources.webdataset import is_webdataset, webdataset_rows
from fairhuman.data.sources.wholebody import is_wholebody, wholebody_rows
from fairhuman.errors import DataError, RecipeError
from fairhuman.record import Finding, HumanRecord
from fairhuman.utils import plugins

__all__ = [
    "SOURCES",
    "SourceFormat",
    "SourceSettings",
    "format_lines",
    "iterate_records",
    "read_source",
    "source_format",
    "source_kind",
]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert errors of the operating system while a data set is read.

    Raises:
        DataError: a file or folder can't be read.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: can't be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class SourceFormat:
    """A source format.

    Attributes:
        signs: the files that identify the format, for messages.
        matches: whether a path holds these files; reads no records.
        rows: iterates over the rows in a deterministic order, without reading pictures; findings about lines that give
            no row go into the report. May raise OSError; `read` doesn't.
        picture: column of the picture: a path relative to the folder, {bytes, path}, a `FileSpan` or a `TableCell`.
    """

    signs: str
    matches: Callable[[Path], bool]
    rows: Callable[[Path, LoadReport], Iterator[Row]]
    picture: str = "image"

    def read(self, path: Path, report: LoadReport) -> Iterator[Row]:
        """The rows, from `rows`.

        Raises:
            DataError: a file or folder can't be read, or as `rows`.
        """
        with _reading(path):
            yield from self.rows(path, report)


# The first format that matches is used, so the most specific ones come first.
SOURCES: Mapping[str, SourceFormat] = {
    "imagefolder": SourceFormat(" or ".join(METADATA), is_imagefolder, imagefolder_rows, "file_name"),
    "cosmicman": SourceFormat(
        "*.parquet or label/*.parquet with path, aa_text, aa_ids", is_cosmicman, cosmicman_rows, "path"
    ),
    "bodyhands": SourceFormat("Annotations/ and JPEGImages/", is_bodyhands, bodyhands_rows, "file_name"),
    "wholebody": SourceFormat("*wholebody*.json, also in annotations/", is_wholebody, wholebody_rows, "file_name"),
    "mole": SourceFormat("meta_cap.json, also one folder deeper", is_mole, mole_rows, "file_name"),
    "webdataset": SourceFormat(
        "*.tar", is_webdataset, webdataset_rows
    ),  # before parquet, since img2dataset writes tables beside its shards
    "parquet": SourceFormat("*.parquet or data/*.parquet", lambda path: bool(parquet_files(path)), parquet_rows),
    # folders of other trainers, which a plain folder would match too
    "kohya": SourceFormat(
        "folders such as 10_name, or a TOML with [[datasets]] of kohya's sd-scripts", is_kohya, kohya_rows, "file_name"
    ),
    "onetrainer": SourceFormat("*-masklabel.png beside pictures", is_onetrainer, onetrainer_rows, "file_name"),
    "ai_toolkit": SourceFormat(
        "a YAML of ai-toolkit, or folders of pictures and masks", is_ai_toolkit, ai_toolkit_rows, "file_name"
    ),
    "diffusion_pipe": SourceFormat(
        "a TOML with [[directory]] of diffusion-pipe, or pictures and a folder masks",
        is_diffusion_pipe,
        diffusion_pipe_rows,
        "file_name",
    ),
    "simpletuner": SourceFormat(
        "*multidatabackend*.json of SimpleTuner", is_simpletuner, simpletuner_rows, "file_name"
    ),
    "folder": SourceFormat("pictures at any depth", has_pictures, plain_rows, "file_name"),
}


def source_format(name: str) -> SourceFormat:
    """The format of a name that `source_kind` gave: of `SOURCES`, or a `SourceFormat` that another package adds.

    A package adds one by an entry point of the group `fairhuman.sources`; it is read where `source.format` names it,
    as nobody wants to import all of them to see what a folder holds.

    Its rows have the changes that people made beside the data set; see `fairhuman.data.sources.edits`.

    Raises:
        PluginError: it can't be loaded.
    """
    return with_edits(unedited_format(name))


def with_edits(source: SourceFormat) -> SourceFormat:
    """A format whose rows have the changes that people made beside the data set."""

    def rows(path: Path, report: LoadReport) -> Iterator[Row]:
        return edited_rows(source.rows(path, report), path, source.picture, report)

    return replace(source, rows=rows)


def unedited_format(name: str) -> SourceFormat:
    """The format of a name as `source_format`, with the rows as the data set itself has them.

    Raises:
        PluginError: it can't be loaded.
    """
    if name in SOURCES:
        return SOURCES[name]
    found = plugins.load_plugin(plugins.SOURCES, name)
    if not isinstance(found, SourceFormat):
        raise plugins.misfit(plugins.SOURCES, name, "a SourceFormat", found)
    return found


def source_kind(path: Path, forced: str | None = None) -> str:
    """Name of the format of a file or folder: `forced`, or else the one that is detected.

    Raises:
        DataError: the path doesn't exist, can't be read or holds no known format.
        RecipeError: `forced` is an unknown format.
    """
    known = [*SOURCES, *(plugins.plugin_names(plugins.SOURCES) if forced is not None else ())]
    if forced is not None and forced not in known:
        near = difflib.get_close_matches(forced, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise RecipeError(f"format: unknown source format {forced!r}; {hint}")
    with _reading(path):
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        found = forced or next((name for name, source in SOURCES.items() if source.matches(path)), None)
        if found is None:
            raise DataError(f"{_nothing_in(path)}; `fairhuman data formats` lists what can be read")
        return found


def _nothing_in(path: Path) -> str:
    """Why a path is no data set."""
    if not path.is_dir():
        if path.suffix.lower() in PICTURE_SUFFIXES:
            return f"{path}: is a single picture; give the folder that it is in"
        return f"{path}: is a file that holds no data set; expected a folder, a .parquet or a .tar"
    names = sorted(entry.name for entry in path.iterdir())
    return f"no picture in {path}, " + (f"which has other files, such as {names[0]}" if names else "which is empty")


def format_lines() -> list[str]:
    """A line for each format: its name, and the files that identify it; of other packages, the name."""
    lines = [f"{name}: {source.signs}" for name, source in SOURCES.items()]
    return lines + [f"{name}: by another package" for name in plugins.plugin_names(plugins.SOURCES)]


def read_source(
    path: Path,
    regions: Sequence[str],
    settings: SourceSettings,
    report: LoadReport,
    also: Sequence[str] = (),
    source: SourceFormat | None = None,
) -> list[HumanRecord]:
    """Read all usable records of a source, in its order.

    Reads headers of pictures and decodes nothing; `check_records` decodes. Findings go into the report, even if the
    source is rejected.

    Args:
        path: a folder, a Parquet file or a tar; the format is detected unless `settings.format` names it.
        regions: names of the regions to read; `face` and `hand` are in the columns `faces` and `hands`,
            another in the column of its name.
        settings: settings of the source.
        report: gets a note for everything that is skipped, dropped, converted or odd.
        also: regions that are read where they are there, besides `ignore`, which always is.
        source: how to read it; None: as its format does.

    Raises:
        DataError: the source is unreadable or has no usable records; no record has a required column or a region;
            more than `max_reject_share` of the records were skipped.
        RecipeError: `settings.format` is an unknown format.
    """
    own = LoadReport()
    try:
        kind = source_kind(path, settings.format)
        source = source or source_format(kind)
        root = path if path.is_dir() else path.parent
        records = records_from_rows(source.read(path, own), root, source.picture, regions, settings, own, also)
        records = _compare_pictures(records, own)
    finally:
        report.extend(sorted(own.notes, key=lambda entry: (entry.file, entry.line or 0)))
        report.unused += own.unused
    total = len(records) + len(own.skipped())
    own.check_share(settings.max_reject_share, total)
    if not records:
        raise DataError(f"{path}: no usable record among {total}; read as {kind}: {source.signs}")
    for region in regions:
        if not any(record.annotated(region) for record in records):
            raise DataError(
                f"{path}: no record annotates the region '{region}' (null everywhere): "
                "remove it from the objectives, or annotate some pictures"
            )
    return records


def _compare_pictures(records: Sequence[HumanRecord], report: LoadReport) -> list[HumanRecord]:
    """Note pictures with identical bytes; only pictures of equal length are read.

    Returns:
        The records whose pictures can be read, with their `origin`.
    """
    found: list[tuple[HumanRecord, int]] = []
    for record in records:
        try:
            found.append((record, byte_length(record.image)))
        except PictureError as error:
            report.add(record.location, STAGE, error.finding)
    of_length = Counter(length for _, length in found)
    kept: list[HumanRecord] = []
    first_seen: dict[bytes, HumanRecord] = {}
    for record, length in found:
        if of_length[length] > 1:
            try:
                digest = hashlib.sha256(read_bytes(record.image)).digest()
            except PictureError as error:
                report.add(record.location, STAGE, error.finding)
                continue
            first = first_seen.setdefault(digest, record)
            if first is not record:
                duplicate = Finding("warned", "same picture as another record", f"that of {first.location}")
                report.add(record.location, STAGE, duplicate)
                record = replace(record, origin=record.origin or first.origin or first.key)
        kept.append(record)
    return kept
