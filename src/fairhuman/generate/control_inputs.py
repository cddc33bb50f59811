"""Conditions for prompts: a pose and a depth map for each, from files, folders or data sets.

A pose is an image in OpenPose's colours or JSON `{"width", "height", "people"}` (people or key points, as in the data
format); depth is a 16-bit greyscale image, near = bright. The i-th file of a folder, in natural order (2 before 10), or
the i-th record of a data set belongs to the i-th prompt; a single condition is used for all prompts.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from fairhuman.data.condition.depth import encode_depth
from fairhuman.data.condition.people import move_people, people_from_source, people_to_list
from fairhuman.data.pictures.decode import ANY_SHAPE, inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.samples.conditions import conditions_in_view, read_conditions
from fairhuman.data.sources import SourceSettings, read_source, source_kind
from fairhuman.data.sources.folder import PICTURE_SUFFIXES
from fairhuman.errors import DataError
from fairhuman.generate.control_spec import NULL, parse_conditions
from fairhuman.record import CONDITIONS, HumanRecord, Stored
from fairhuman.regions.transforms import JointTransform, ViewDraw
from fairhuman.utils.files import digest, natural_order
from fairhuman.utils.parse import parse_json

POSE_TEXT, DEPTH_TEXT = "asked_pose", "asked_depth"  # keys of the PNG's text entries
_DEPTH_SIDE = 64  # pixels of the depth map stored in a PNG: enough for rank correlation, far below readers' size limits
_ASPECT = 0.02  # largest relative difference between the aspect ratios of condition and image


@dataclass(frozen=True)
class ControlInputs:
    """Conditions by name, one per prompt; None: the null condition.

    They are read on demand, as a thousand of them at 1024 px don't fit into memory.
    """

    records: Mapping[str, Sequence[HumanRecord | None]]

    def missing(self) -> dict[str, int]:
        """Return, by name, how many prompts get the null condition although others have one."""
        counts = {name: sum(record is None for record in each) for name, each in self.records.items()}
        return {name: n for name, n in counts.items() if 0 < n < len(self.records[name])}

    def check(self, size: tuple[int, int], indices: Sequence[int] | None = None) -> None:
        """Check that the conditions of all prompts, or of `indices`, have the aspect ratio of (height, width).

        Raises:
            DataError: one has another aspect ratio; names it and both sizes.
        """
        height, width = size
        for name, each in self.records.items():
            for record in each if indices is None else [each[index] for index in indices]:
                ratio = 1.0 if record is None else record.width * height / (record.height * width)
                if record is not None and abs(ratio - 1) > _ASPECT:
                    raise DataError(
                        f"{name} {record.location}: is {record.width}x{record.height}, the picture "
                        f"{width}x{height}: they must have one aspect ratio (fairhuman sample: --width and --height)"
                    )

    def hashes(self, count: int) -> list[str]:
        """Return a hash of the conditions of each of `count` prompts; empty if there are none at all.

        Raises:
            PictureError: a condition can't be read.
        """
        if not self.records:
            return []
        return [_hash({name: each[index] for name, each in self.records.items()}) for index in range(count)]

    def views(self, indices: Sequence[int], size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the conditions of some prompts at (height, width): [B, C, H, W] in 0..1 by name; null is zeros."""
        return {
            name: torch.stack([_view(name, each[index], size) for index in indices])
            for name, each in self.records.items()
        }

    def texts(self, index: int, size: tuple[int, int]) -> dict[str, str]:
        """Return text entries with the requested conditions for an image of (height, width), for later evaluation."""
        texts = {}
        for name, each in self.records.items():
            record = each[index]
            if record is None:
                continue
            if name == "depth":
                texts[DEPTH_TEXT] = depth_text(_view(name, record, size))
            elif isinstance(record.pose, list):
                scale = (size[1] / record.width, size[0] / record.height)
                texts[POSE_TEXT] = json.dumps(
                    people_to_list(move_people(people_from_source(record.pose), scale, (0, 0)))
                )
        return texts


def read_control_inputs(given: Sequence[str], count: int) -> ControlInputs:
    """Read each `NAME=PLACE` for `count` prompts; PLACE is a file, a folder, a data set or `none`.

    Raises:
        RecipeError: an unknown condition, or one given twice.
        DataError: nothing found, a number of conditions other than 1 or `count`, an unusable condition, or files of two
            conditions whose names don't match; names them.
    """
    records: dict[str, list[HumanRecord | None]] = {}
    stems: dict[str, list[str]] = {}
    for name, place in parse_conditions(given).items():
        found: list[HumanRecord | None] = [None] if place == NULL else _read(name, Path(place))
        if len(found) not in (1, count):
            raise DataError(f"--control {name}={place}: holds {len(found)} conditions for {count} prompts")
        if len(found) > 1 and all(record is not None and record.source == "file" for record in found):
            stems[name] = [record.key for record in found if record is not None]
        records[name] = found * count if len(found) == 1 else found
    if len(stems) == len(CONDITIONS):
        for pair in zip(*stems.values(), strict=True):
            if len(set(pair)) > 1:
                raise DataError(f"--control: files of one prompt must have one name, found {' and '.join(pair)}")
    return ControlInputs(records)


def _read(name: str, place: Path) -> list[HumanRecord | None]:
    files = _condition_files(place)
    if files is None:
        try:
            known: list[HumanRecord] = read_source(place, (), SourceSettings(), LoadReport())
        except DataError as error:
            wanted = "a picture, a .json, a folder of these or a data set"
            raise DataError(f"--control {name}={place}: expected {wanted}; {error}") from error
        if all(getattr(record, name) is None for record in known):
            raise DataError(f"--control {name}={place}: no record of this data set has a {name}")
        found = [record if getattr(record, name) is not None else None for record in known]
    else:
        found = [_from_file(name, path) for path in files]
    for record in found:
        for finding in read_conditions(record, [name], ANY_SHAPE)[1] if record is not None else ():
            where = record.location if record is not None else place
            raise DataError(f"--control {name}: {where}: {finding.reason} ({finding.value})")
    return found


def _condition_files(place: Path) -> list[Path] | None:
    """Return the condition files at a place, in natural order; None if it is a data set."""
    suffixes = PICTURE_SUFFIXES | {".json"}
    if place.is_file():
        return [place] if place.suffix.lower() in suffixes else None
    try:
        kind = source_kind(place)  # a data set may contain JSON files too
    except DataError:
        kind = "folder"  # a folder of JSON files is not a data set
    if kind != "folder":
        return None
    files = (path for path in place.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(files, key=natural_order) or None


def _from_file(name: str, path: Path) -> HumanRecord:
    if path.suffix.lower() == ".json":
        if name != "pose":
            raise DataError(f"--control {name}={path}: expected a picture, found JSON")
        return _from_json(path)
    try:
        facts = inspect(path, ANY_SHAPE)
    except PictureError as error:
        raise DataError(f"--control {name}={path}: {error}") from error
    condition = {name: path}
    return HumanRecord(path.stem, b"", facts.width, facts.height, "", source="file", location=str(path), **condition)  # type: ignore[arg-type]


def _from_json(path: Path) -> HumanRecord:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        width, height, people = int(content["width"]), int(content["height"]), content["people"]
        if min(width, height) < 1:
            raise ValueError(f"size {width}x{height}")
        people_from_source(people)
    except (OSError, ValueError, OverflowError, KeyError, TypeError, DataError) as error:
        wanted = '{"width", "height", "people"}'
        raise DataError(
            f"--control pose={path}: expected JSON {wanted}, found {type(error).__name__}: {error}"
        ) from error
    return HumanRecord(path.stem, b"", width, height, "", pose=people, source="file", location=str(path))


def _hash(records: Mapping[str, HumanRecord | None]) -> str:
    """Hash of what is stored of some conditions and of their sizes, not of how it was stored."""
    found = []
    for name, record in records.items():
        stored = None if record is None else getattr(record, name)
        plain = stored is None or isinstance(stored, list)
        content = stored if plain else hashlib.sha256(read_bytes(cast(Stored, stored))).hexdigest()
        found.append([name, content, None if record is None else [record.width, record.height, record.depth_kind]])
    return digest(json.dumps(found, default=str))


def _view(name: str, record: HumanRecord | None, size: tuple[int, int]) -> Tensor:
    """Return one condition [C, H, W], resized like that of a training sample."""
    if record is None:
        return torch.zeros(CONDITIONS[name], *size)
    conditions, _ = read_conditions(record, [name], ANY_SHAPE)
    draw = ViewDraw(size, 0, 0, flip=False)
    pictures = {key: item for key, item in conditions.items() if not isinstance(item, list)}
    moved = {key: item.as_subclass(Tensor) for key, item in JointTransform(size).apply(draw, pictures).items()}
    return conditions_in_view(conditions, moved, [name], draw, (record.height, record.width), size)[name]


def depth_text(depth_1hw: Tensor) -> str:
    """Return a depth map in 0..1, near = 1, as text: a base64 greyscale PNG of at most 64 x 64 pixels."""
    scale = min(1.0, _DEPTH_SIDE / max(depth_1hw.shape[1:]))
    size = [max(1, round(side * scale)) for side in depth_1hw.shape[1:]]
    small = T.resize(depth_1hw, size, antialias=True)[0].clamp(0, 1)
    return base64.b64encode(encode_depth(small.numpy(), "relative")).decode("ascii")
