"""Columns of a source: those with a meaning of their own, boxes of other regions, and those that nothing uses."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fairhuman.record import IGNORE, REGION_COLUMNS, region_column
from fairhuman.regions.settings import GLOBAL, PRIOR

ONE_MASK = "one_mask"  # the only mask that other trainers know: white is trained; see `SourceSettings.mask`

CONDITION_COLUMNS = ("pose", "pose_picture", "depth")
MAX_REGION_NAME = 60  # characters, where people name a region
_NEW_REGION = re.compile(r"[a-z][a-z0-9_]*")  # readers of WebDataset lower-case the names of masks
ABOUT_REGIONS = ("scores", "votes", "persons", "by")  # a build's columns about a region are REGION_scores, ...
# Columns with a meaning of their own; `file_name` and `path` are pictures of some formats.
DEFINED = frozenset(
    {
        *("key", "image", "file_name", "path", "width", "height", "caption", "text", "caption_by", "source_caption"),
        *("masks", "pose_by", "depth_kind", "depth_by", "clarity", *CONDITION_COLUMNS),
        "persons_searched",  # of how many a build looked for parts of the body
        *("stratum", "reviewer", "reviewed_at"),  # of a validation set and its review
        *("attributes", "split", "source", "repeats", ONE_MASK, *REGION_COLUMNS, *REGION_COLUMNS.values()),
    }
)


def is_region_name(name: str) -> bool:
    """Whether a change may be of a region so named: letters, digits, `_`, `-`, no objective and no other column."""
    taken = name == GLOBAL or (name in DEFINED and name not in REGION_COLUMNS)
    return name[:1] != "-" and name.replace("-", "_").isidentifier() and len(name) <= MAX_REGION_NAME and not taken


def region_name_problem(name: str, known: Sequence[str]) -> str:
    """Why people can't name a new region so; empty: they can.

    Args:
        name: of the new region.
        known: regions that are there; a build's columns about them, such as `eyes_by`, are taken too.
    """
    if not _NEW_REGION.fullmatch(name) or len(name) > MAX_REGION_NAME:
        return (
            f"A region needs a name of at most {MAX_REGION_NAME} lower-case letters, digits and _ that begins with a "
            f"letter, such as {_suggested(name)}, not {name!r}"
        )
    if name in (PRIOR, ONE_MASK) or not is_region_name(name):
        return f"{name!r} has a meaning of its own in data sets or recipes: choose another name for the region"
    clash = sharing_a_column(name, known)
    return f"{name!r} and {clash!r} would share a column in builds: choose another name for the region" if clash else ""


def sharing_a_column(name: str, known: Iterable[str]) -> str | None:
    """The region among ours and `known` with which one so named would share a column in builds; None: there is none."""
    return next((one for one in [*REGION_COLUMNS, *known] if _is_about(one, name) or _is_about(name, one)), None)


def _is_about(name: str, region: str) -> bool:
    return name in {f"{region}_{what}" for what in (*ABOUT_REGIONS, "mask")}


def _suggested(name: str) -> str:
    words = re.findall(r"[a-z0-9]+", name.lower())
    found = "_".join(words)[:MAX_REGION_NAME].rstrip("_")
    return found if _NEW_REGION.fullmatch(found) else "left_hand"


def unused_columns(rows: Iterable[Mapping[str, Any]], picture_column: str, regions: Sequence[str]) -> list[str]:
    """Names of columns, and of painted masks as `masks.NAME`, that hold something but that nothing reads."""
    regions = (*REGION_COLUMNS, *regions, IGNORE)
    used = {*DEFINED, picture_column, *map(region_column, regions)}
    used |= {f"{region}_{what}" for region in regions for what in ABOUT_REGIONS}
    found: dict[str, None] = {}
    for row in rows:
        found |= dict.fromkeys(name for name, value in row.items() if name not in used and value is not None)
        masks = row.get("masks")
        if isinstance(masks, Mapping):
            names = (name for name, mask in masks.items() if mask is not None and name not in regions)
            found |= dict.fromkeys(f"masks.{name}" for name in names)
    return [name for name in found if name.rpartition("_")[0] not in found]  # not `feet_scores` beside `feet`


def box_columns(values: Mapping[str, Any]) -> Iterator[str]:
    """Own columns of one row with at least one box: four or five numbers, x0 < x1 and y0 < y1."""
    for name, value in values.items():
        if isinstance(value, list | tuple) and name not in DEFINED and any(map(_is_box, value)):
            yield name


def _is_box(item: Any) -> bool:
    """Whether a value is a box with an area; numbers may be text, as in `parse_boxes`."""
    if not isinstance(item, list | tuple) or len(item) not in (4, 5):
        return False
    try:
        x0, y0, x1, y1 = map(float, item[:4])
    except (TypeError, ValueError):
        return False
    return x0 < x1 and y0 < y1
