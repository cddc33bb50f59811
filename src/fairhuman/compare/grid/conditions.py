"""What pictures of a grid were asked to follow, as columns before those of the methods."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from fairhuman.compare.grid.matching import MatchedRow
from fairhuman.data.condition.people import SHAPES, people_from_list
from fairhuman.errors import DataError
from fairhuman.generate.control_inputs import POSE_TEXT, ControlInputs, read_control_inputs

_SAME = 0.5  # pixels that a point of the pose that was followed may be off the one that is shown


def read_columns(given: Sequence[str], rows: Sequence[MatchedRow]) -> ControlInputs:
    """Read `NAME=PLACE` of each condition for the prompts of all rows; errors as of `read_control_inputs`."""
    return read_control_inputs(given, 1 + max(row.key[0] for row in rows))


def condition_pictures(
    asked: ControlInputs, row: MatchedRow, sizes: Mapping[str, tuple[int, int]], height: int
) -> dict[str, Image.Image]:
    """The conditions of a row's prompt by name, as a network sees them, at a height.

    Args:
        asked: of all prompts.
        row: its pictures that know which pose they were asked for are held against it.
        sizes: (height, width) of the row's pictures by method; the first one's aspect ratio is shown.
        height: in pixels.

    Raises:
        DataError: a condition of another aspect ratio, or a picture that was asked for another pose; names it.

    """
    index = row.key[0]
    first = next(iter(sizes.values()))
    asked.check(first, [index])
    for name, drawn in row.pictures.items():
        shown, followed = asked.texts(index, sizes[name]).get(POSE_TEXT), drawn.entries.get(POSE_TEXT)
        if shown is not None and followed is not None and not _same(shown, followed):
            raise DataError(
                f"--control: {drawn.file.name} of method {name!r} was asked for another pose than the one given for "
                f"prompt {index}; give what it was drawn with"
            )
    views = asked.views([index], (height, max(1, round(first[1] * height / first[0]))))
    return {name: _picture(view_bchw[0]) for name, view_bchw in views.items()}


def _picture(view_chw: Tensor) -> Image.Image:
    pixels_hwc = (255 * view_chw).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels_hwc.repeat(3 // pixels_hwc.shape[2], axis=2))


def _same(one: str, other: str) -> bool:
    ours, theirs = (people_from_list(json.loads(text)) for text in (one, other))
    return len(ours) == len(theirs) and all(
        np.allclose(getattr(a, part), getattr(b, part), rtol=0, atol=_SAME)
        for a, b in zip(ours, theirs, strict=True)
        for part in SHAPES
    )
