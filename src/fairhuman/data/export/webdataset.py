"""Export to WebDataset shards, readable by our webdataset source and the `webdataset` library."""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from fairhuman.data.export.names import Names
from fairhuman.data.export.sample import ExportSample
from fairhuman.data.look.reading import DataSet
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.check import STAGE
from fairhuman.record import Finding

_REGION = re.compile(r"[a-z0-9_-]+")  # readers lower-case suffixes and split them at dots


def write_webdataset(
    folder: Path, samples: Iterator[ExportSample], dataset: DataSet, shard_rows: int, report: LoadReport
) -> None:
    """Write `00000.tar`, `00001.tar`, ... with `shard_rows` samples each; the same samples give the same bytes."""
    del dataset
    names = Names()
    number = 0
    while (first := next(samples, None)) is not None:
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for sample in chain([first], islice(samples, shard_rows - 1)):
                name = names.of(sample.fields["key"])
                for suffix, content in sorted(_members(sample, report).items()):
                    member = tarfile.TarInfo(f"{name}.{suffix}")  # by default without time and owner
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        number += 1


def _members(sample: ExportSample, report: LoadReport) -> dict[str, bytes]:
    fields = dict(sample.fields)
    if sample.pose is not None:
        fields["pose"] = sample.pose
    members = {
        sample.kind: sample.picture,
        "json": json.dumps(fields, ensure_ascii=False).encode(),
        "txt": fields["caption"].encode(),
    }
    for region, mask in sample.masks.items():
        if _REGION.fullmatch(region):
            members[f"mask.{region}.png"] = mask
        else:
            finding = Finding("dropped", "mask's region can't be part of a member's name", region)
            report.add(fields["key"], STAGE, finding)
    if sample.pose_picture is not None and sample.pose is None:  # readers would prefer it to the key points
        members["pose.png"] = sample.pose_picture
    if sample.depth is not None:
        members["depth.png"] = sample.depth
    return members
