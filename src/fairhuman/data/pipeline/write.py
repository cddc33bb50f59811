"""Write the data set: Parquet shards of the kept rows, readable by `fairhuman train` and Hugging Face `datasets`."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.data.condition.people import PEOPLE_TYPE
from fairhuman.data.pictures.decode import PictureLimits, decode, decode_mask, inspect
from fairhuman.data.pictures.encode import encode_jpeg, encode_png
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.manifest import Block, Ids, ManifestRow, numbered_files, read_block
from fairhuman.data.pipeline.rows import (
    BOXES,
    CHANGED,
    SEARCHED,
    RowReader,
    boxes_to_lists,
    person_columns,
    read_checked_bytes,
)
from fairhuman.data.pipeline.tier import TaskOutcome, TierTable, rows_by_id
from fairhuman.record import DerivedMask, HumanRecord, LabelMap, region_column
from fairhuman.utils.files import write_atomically
from fairhuman.utils.tables import open_writer

VERSION = 1  # to be increased when the same rows are written differently
ROW_GROUP = 64  # rows; to get one picture, a reader must read its whole row group
PICTURE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
# MPO, of many phones, is a JPEG with further pictures behind it, which every program but Pillow ignores.
PLAIN_KINDS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class ShardPart:
    """Rows of one block that go into a shard, and the tables with their results."""

    manifest: Path
    tables: Mapping[str, Path]
    ids: Ids


@dataclass(frozen=True)
class Shard:
    """One file of the data set."""

    target: Path
    parts: tuple[ShardPart, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(len(part.ids) for part in self.parts)


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards, in any process.

    `masks` names all painted masks of the data set, `name` its source; `further` are the regions of the tier `regions`
    that the reader doesn't read, `of_bodies` those that are found person by person.
    """

    reader: RowReader
    masks: tuple[str, ...]
    name: str
    further: tuple[str, ...] = ()
    of_bodies: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[str, ...]:
        """All regions with boxes."""
        return (*self.reader.regions, *self.further)

    def plan(
        self, folder: Path, blocks: Sequence[Block], manifest: Path, tables: Mapping[str, TierTable], rows: int
    ) -> list[Shard]:
        """Divide the kept rows, in order, into shards of `rows`; a shard's name is a digest of its content."""
        manifest_files = numbered_files(manifest)
        files = {name: numbered_files(table.folder) for name, table in tables.items()}
        common = [VERSION, self.masks, self.regions, self.name, [table.fingerprint for table in tables.values()]]
        shards: list[Shard] = []
        parts: list[ShardPart] = []
        left = rows

        def close() -> None:
            content = json.dumps(common).encode() + b"".join(part.ids.tobytes() for part in parts)
            digest = hashlib.blake2b(content, digest_size=6).hexdigest()
            shards.append(Shard(folder / f"{len(shards):05d}-{digest}.parquet", tuple(parts)))
            parts.clear()

        for block in blocks:
            ids = block.ids
            while len(ids):
                taken, ids = ids[:left], ids[left:]
                results = {name: found[block.number] for name, found in files.items() if block.number in found}
                parts.append(ShardPart(manifest_files[block.number], results, taken))
                left -= len(taken)
                if left == 0:
                    close()
                    left = rows
        if parts:
            close()
        return shards

    @property
    def schema(self) -> pyarrow.Schema:
        """Columns of the data set, with the metadata by which Hugging Face `datasets` recognises pictures."""
        regions = self.regions
        boxes = [(region_column(region), BOXES) for region in regions]
        for region in regions:
            boxes += [(f"{region}_scores", pyarrow.list_(pyarrow.float32()))]
            boxes += [(f"{region}_votes", pyarrow.list_(pyarrow.int32())), (f"{region}_by", pyarrow.string())]
        boxes += person_columns(self.of_bodies)
        schema = pyarrow.schema(
            [
                ("key", pyarrow.string()),
                ("image", PICTURE),
                ("width", pyarrow.int32()),
                ("height", pyarrow.int32()),
                ("caption", pyarrow.string()),
                ("caption_by", pyarrow.string()),
                ("source_caption", pyarrow.string()),
                *boxes,
                ("masks", pyarrow.struct([(name, PICTURE) for name in self.masks])),
                ("pose", PEOPLE_TYPE),
                ("pose_picture", PICTURE),
                ("pose_by", pyarrow.string()),
                ("depth", PICTURE),
                ("depth_kind", pyarrow.string()),
                ("depth_by", pyarrow.string()),
                ("clarity", pyarrow.float32()),
                ("attributes", pyarrow.string()),
                ("split", pyarrow.string()),
                ("repeats", pyarrow.int32()),
                ("source", pyarrow.string()),
            ]
        )
        return schema.with_metadata(huggingface_metadata(schema))

    @contextmanager
    def open(self) -> Iterator[Callable[[Shard], TaskOutcome]]:
        """Open the writer; it loads nothing."""
        yield self._write

    def _write(self, shard: Shard) -> TaskOutcome:
        """Write a shard; if pictures have changed, write nothing and return their rows."""
        changed: list[int] = []

        def write(path: Path) -> None:
            with open_writer(path, self.schema) as file:
                rows = self._rows(shard, changed)
                while group := list(islice(rows, ROW_GROUP)):
                    file.write_table(pyarrow.Table.from_pylist(group, schema=self.schema))
            if changed:
                raise PictureError(CHANGED)

        try:
            write_atomically(shard.target, write)
        except PictureError:
            if not changed:
                raise
        return TaskOutcome(shard.rows, shard.rows, changed=changed)

    def _rows(self, shard: Shard, changed: list[int]) -> Iterator[dict[str, Any]]:
        for part in shard.parts:
            rows = {row.id: row for row in read_block(part.manifest)}
            tables = {name: rows_by_id(path) for name, path in part.tables.items()}
            for identity in part.ids.tolist():
                try:
                    yield self._row(rows[identity], {name: table[identity] for name, table in tables.items()})
                except PictureError:
                    changed.append(identity)

    def _row(self, row: ManifestRow, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        check, caption, condition = found["check"], found["caption"], found.get("condition", {})
        record = self.reader.checked(row, check)
        content, kind = encode_for_storage(read_checked_bytes(record, check["sha256"]), self.reader.source.limits)
        values = {
            "key": row.key,
            "image": {"bytes": content, "path": f"{row.key}.{kind}"},
            "width": record.width,
            "height": record.height,
            "caption": caption["caption"],
            "caption_by": caption["caption_by"],
            "source_caption": record.caption,
            "masks": {name: self._mask(record, name, found.get("regions", {})) for name in self.masks},
            "pose": condition.get("pose"),
            "pose_picture": picture_cell(condition.get("pose_png")),
            "pose_by": condition.get("pose_by"),
            "depth": picture_cell(condition.get("depth_png")),
            "depth_kind": condition.get("depth_kind"),
            "depth_by": condition.get("depth_by"),
            "clarity": check["clarity"],
            "attributes": json.dumps(dict(record.attributes), default=str) if record.attributes else None,
            "split": record.split,
            "repeats": record.repeats if record.repeats > 1 else None,
            "source": self.name,
        }
        detected = {**found.get("detect", {}), **found.get("regions", {})}
        for region in self.regions:
            values |= self._boxes(region, record, detected)
        values[SEARCHED] = detected.get(SEARCHED)
        return values

    def _boxes(self, region: str, record: HumanRecord, detect: Mapping[str, Any]) -> dict[str, Any]:
        """The source's boxes if it has them, otherwise the detected ones.

        If a detector finds nothing, absence isn't certain: the boxes are null, and `*_by` names the detector.
        """
        rows: list[list[float]] | None = boxes_to_lists(record.boxes.get(region))
        votes, by = None, None if rows is None else "source"
        if rows is None:
            rows = detect.get(region_column(region)) or None
            votes, by = detect.get(f"{region}_votes"), detect.get(f"{region}_by")
        scores = [row[4] if len(row) == 5 else None for row in rows or ()]
        return {
            region_column(region): None if rows is None else [row[:4] for row in rows],
            f"{region}_scores": scores if any(score is not None for score in scores) else None,
            f"{region}_votes": votes,
            f"{region}_persons": detect.get(f"{region}_persons"),
            f"{region}_by": by,
        }

    def _mask(self, record: HumanRecord, name: str, detected: Mapping[str, Any]) -> dict[str, Any] | None:
        """The source's mask if it has one, otherwise the one that was found."""
        mask = record.masks.get(name)
        if mask is None:
            return picture_cell(detected.get(f"{name}_mask"))
        if isinstance(mask, LabelMap | DerivedMask):
            return picture_cell(encode_png(decode_mask(mask, self.reader.source.limits)))
        return picture_cell(read_bytes(mask))


def encode_for_storage(content: bytes, limits: PictureLimits) -> tuple[bytes, str]:
    """The bytes to store and their file type: unchanged if every program decodes them to the same upright picture.

    Otherwise the picture is decoded as in training and encoded again: JPEG as JPEG (quality 95, 4:4:4), others as PNG.
    """
    facts = inspect(content, limits)
    changes = {finding.reason for finding in facts.conversions if finding.action == "converted"}
    if facts.kind in PLAIN_KINDS and changes <= {"L to RGB"}:
        return content, PLAIN_KINDS[facts.kind]
    picture = decode(content, limits).picture
    if PLAIN_KINDS.get(facts.kind) != "jpg":
        return encode_png(picture), "png"
    return encode_jpeg(picture), "jpg"


def picture_cell(content: bytes | None) -> dict[str, Any] | None:
    """The value of a column of pictures."""
    return None if content is None else {"bytes": content, "path": None}


def huggingface_metadata(schema: pyarrow.Schema) -> dict[bytes, bytes]:
    """Metadata of a schema for Hugging Face `datasets`, which marks columns of pictures.

    https://github.com/huggingface/datasets, `Features.arrow_schema`.
    """
    features = {field.name: _feature(field.type) for field in schema}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def _feature(kind: pyarrow.DataType) -> Any:
    if kind == PICTURE:
        return {"_type": "Image"}
    if pyarrow.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pyarrow.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
