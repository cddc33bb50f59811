"""Condition columns of a grid: the pose or depth that its pictures follow."""

from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch import Tensor

from fairhuman.compare.grid.matching import MatchedRow
from fairhuman.data.condition.people import SHAPES, people_from_list
from fairhuman.errors import DataError
from fairhuman.generate.control_inputs import POSE_TEXT, ControlInputs
from fairhuman.utils.parse import parse_json

_SAME = 0.5  # tolerance in pixels between the pose shown and the pose a picture followed


def condition_pictures(
    asked: ControlInputs, row: MatchedRow, sizes: Mapping[str, tuple[int, int]], height: int
) -> dict[str, Image.Image]:
    """The conditions of a row's prompt by name, as a control network receives them, scaled to a height.

    A pose stored in a picture of the row must match the given one. `sizes` are (height, width) by method; the first
    defines the aspect ratio.

    Raises:
        DataError: a condition has another aspect ratio, or a picture followed another pose; names it.
    """
    index = row.key[0]
    first = next(iter(sizes.values()))
    asked.check(first, [index])
    for name, drawn in row.pictures.items():
        shown, followed = asked.texts(index, sizes[name]).get(POSE_TEXT), drawn.entries.get(POSE_TEXT)
        if shown is not None and followed is not None and not _same(shown, followed):
            raise DataError(
                f"--control: {drawn.file.name} of method {name!r} followed another pose than the one given for "
                f"prompt {index}; give the pose it was sampled with"
            )
    views = asked.views([index], (height, max(1, round(first[1] * height / first[0]))))
    return {name: _picture(view_bchw[0]) for name, view_bchw in views.items()}


def _picture(view_chw: Tensor) -> Image.Image:
    pixels_hwc = (255 * view_chw).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels_hwc.repeat(3 // pixels_hwc.shape[2], axis=2))


def _same(one: str, other: str) -> bool:
    ours, theirs = (people_from_list(parse_json(text)) for text in (one, other))
    return len(ours) == len(theirs) and all(
        np.allclose(getattr(a, part), getattr(b, part), rtol=0, atol=_SAME)
        for a, b in zip(ours, theirs, strict=True)
        for part in SHAPES
    )
