"""Export to Hugging Face's imagefolder layout: pictures, masks and depth as files, the rest in `metadata.jsonl`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairhuman.data.export.names import Names
from fairhuman.data.export.sample import ExportSample, as_text
from fairhuman.data.look.reading import DataSet
from fairhuman.data.pictures.notes import LoadReport


def write_imagefolder(
    folder: Path, samples: Iterator[ExportSample], dataset: DataSet, shard_rows: int, report: LoadReport
) -> None:
    """Write `images/`, `masks/`, `conditions/` and `metadata.jsonl`."""
    del dataset, shard_rows, report
    names = Names()
    for kind in ("images", "masks", "conditions"):
        (folder / kind).mkdir()
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps(_write(folder, names.of(sample.fields["key"]), sample), ensure_ascii=False) + "\n")
    for kind in ("masks", "conditions"):
        if not any((folder / kind).iterdir()):
            (folder / kind).rmdir()


def _write(folder: Path, name: str, sample: ExportSample) -> dict[str, Any]:
    """Write the files of a sample; return its metadata line."""

    def write(path: str, content: bytes) -> str:
        (folder / path).write_bytes(content)
        return path

    fields = {"file_name": write(f"images/{name}.{sample.kind}", sample.picture), **sample.fields}
    if "attributes" in fields:
        fields["attributes"] = as_text(fields["attributes"])
    if sample.masks:
        regions = Names()
        fields["masks"] = {
            region: write(f"masks/{name}.{regions.of(region)}.png", mask) for region, mask in sample.masks.items()
        }
    if sample.pose is not None:
        fields["pose"] = sample.pose
    elif sample.pose_picture is not None:
        fields["pose"] = write(f"conditions/{name}.pose.png", sample.pose_picture)
    if sample.depth is not None:
        fields["depth"] = write(f"conditions/{name}.depth.png", sample.depth)
    return fields
