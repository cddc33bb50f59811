"""Rejected rows of a built data set, with their pictures in the source."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow

from fairhuman.data.look.reading import DataSet, read_report
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.manifest import ManifestRow, numbered_files, read_block
from fairhuman.data.pipeline.report import REJECTED
from fairhuman.data.sources import SourceSettings
from fairhuman.data.sources.rows import MAX_TEXT, read_limited
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord
from fairhuman.utils.parse import parse_json
from fairhuman.utils.tables import open_table, read_batches, read_table

MANIFEST = "manifest"
NAMED = 1000  # rows of a reason that are named without a picture


@dataclass(frozen=True)
class RejectedExample:
    """A rejected row; `record` is None if its picture is no longer available."""

    key: str
    location: str
    value: str
    record: HumanRecord | None = None

    @property
    def text(self) -> str:
        """The row as a person finds it: its key, its place in the source, and the value that was found."""
        label = f"{self.key} ({self.location})" if self.key not in ("", self.location) else self.location
        return f"{label}: {self.value}" if self.value else label


@dataclass
class RejectedGroup:
    """Rows rejected for one reason: their number, the first ones as examples, and up to `NAMED` more as text."""

    stage: str
    reason: str
    number: int = 0
    examples: list[RejectedExample] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def unnamed(self) -> int:
        """Number of rows that are neither an example nor named."""
        return self.number - len(self.examples) - len(self.others)


def rejected_groups(path: Path, examples: int) -> list[RejectedGroup]:
    """Rejected rows of a build by stage and reason, each with its first examples; empty if the data set isn't a build.

    Raises:
        DataError: the table of rejected rows can't be read.
    """
    file = path / REJECTED
    if not path.is_dir() or not file.is_file():
        return []
    groups: dict[tuple[str, str], RejectedGroup] = {}
    try:
        with open_table(file) as table:
            for batch in read_batches(file, table, ["key", "location", "stage", "reason", "value"], 4096):
                for row in batch.to_pylist():
                    group = groups.setdefault((row["stage"], row["reason"]), RejectedGroup(row["stage"], row["reason"]))
                    group.number += 1
                    example = RejectedExample(row["key"], row["location"], row["value"] or "")
                    if len(group.examples) < examples:
                        group.examples.append(example)
                    elif len(group.others) < NAMED:
                        group.others.append(example.text)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{file}: not a readable table of rejected rows ({error})") from error
    return list(groups.values())


def build_source(path: Path) -> DataSet | None:
    """The source of a build; None if it is unknown or no longer there."""
    report = read_report(path)
    if report is None:
        return None
    try:
        origin = parse_json(read_limited(path / "source.json", MAX_TEXT))
        settings = SourceSettings.model_validate(report["recipe"]["source"])
        source = DataSet(Path(origin["source"]), str(origin["format"]), settings)
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return None
    return source if source.path.exists() else None


def add_records(path: Path, source: DataSet, groups: list[RejectedGroup]) -> None:
    """Add records to the examples that are in the manifest and whose pictures can be opened.

    Raises:
        DataError: the manifest can't be read.
    """
    wanted = {example.key for group in groups for example in group.examples if example.key}
    try:
        rows = {row.key: row for row in _manifest_rows(path / MANIFEST, wanted)}
    except (pyarrow.ArrowException, OSError, DataError) as error:
        raise DataError(f"{path / MANIFEST}: not a readable manifest ({error})") from error
    for group in groups:
        group.examples = [_with_record(example, rows.get(example.key), source) for example in group.examples]


def _with_record(example: RejectedExample, row: ManifestRow | None, source: DataSet) -> RejectedExample:
    return example if row is None else replace(example, record=source.record(row.row(source.root), LoadReport()))


def _manifest_rows(folder: Path, wanted: set[str]) -> Iterator[ManifestRow]:
    """The rows with the given keys; blocks are read until all are found."""
    missing = set(wanted)
    for _, file in sorted(numbered_files(folder).items()):
        if not missing:
            return
        keys = read_table(file, columns=["key"]).column("key").to_pylist()
        if missing.isdisjoint(keys):
            continue
        yield from (row for row in read_block(file) if row.key in missing)
        missing.difference_update(keys)
