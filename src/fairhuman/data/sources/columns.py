"""Columns of a source that nothing uses: each is named, so that none is lost without a word."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairhuman.record import IGNORE, REGION_COLUMNS, region_column
from fairhuman.regions.settings import GLOBAL

ONE_MASK = "one_mask"  # the only mask that other trainers know: white is trained; see `SourceSettings.mask`

MAX_REGION_NAME = 60  # characters, where people name a region
# Columns with a meaning of their own; `file_name` and `path` are pictures of some formats.
DEFINED = frozenset(
    {
        *("key", "image", "file_name", "path", "width", "height", "caption", "text", "caption_by", "source_caption"),
        *("masks", "pose", "pose_picture", "pose_by", "depth", "depth_kind", "depth_by", "clarity"),
        "persons_searched",  # of how many a build looked for parts of the body
        *("stratum", "reviewer", "reviewed_at"),  # of a validation set and its review
        *("attributes", "split", "source", "repeats", ONE_MASK, *REGION_COLUMNS, *REGION_COLUMNS.values()),
    }
)


def is_region_name(name: str) -> bool:
    """Whether people may name a region so: an identifier that is no objective and no column of another meaning."""
    taken = name == GLOBAL or (name in DEFINED and name not in REGION_COLUMNS)
    return name.isidentifier() and len(name) <= MAX_REGION_NAME and not taken


def unused_columns(rows: Iterable[Mapping[str, Any]], picture_column: str, regions: Sequence[str]) -> list[str]:
    """Names of columns, and of painted masks as `masks.NAME`, that hold something but that nothing reads."""
    regions = (*REGION_COLUMNS, *regions, IGNORE)
    used = {*DEFINED, picture_column, *map(region_column, regions)}
    used |= {f"{region}_{what}" for region in regions for what in ("scores", "votes", "persons", "by")}
    found: dict[str, None] = {}
    for row in rows:
        found |= dict.fromkeys(name for name, value in row.items() if name not in used and value is not None)
        masks = row.get("masks")
        if isinstance(masks, Mapping):
            names = (name for name, mask in masks.items() if mask is not None and name not in regions)
            found |= dict.fromkeys(f"masks.{name}" for name in names)
    return [name for name in found if name.rpartition("_")[0] not in found]  # not `feet_scores` beside `feet`
