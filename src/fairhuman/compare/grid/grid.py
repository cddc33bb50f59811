"""A grid of pictures: one row per prompt, one column per method, with close-ups of faces and hands.

As in Figures 1-4 of the FairHuman supplement, but rows can be drawn at random instead of hand-picked, and close-ups are
cut at the same place for all methods. Conditions (Figure 4) are shown in leading columns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fairhuman.compare.grid.conditions import condition_pictures
from fairhuman.compare.grid.frames import ZOOMED, Boxes, Detect, detected_frames
from fairhuman.compare.grid.grid_figure import HEIGHT, GridCell, GridRow, grid_figure, save_figure
from fairhuman.compare.grid.matching import MatchedRow, match_pictures, setting_notes, unread_prompts
from fairhuman.compare.grid.zoom import ZoomFrame, choose_frames, cut
from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.stored import PictureError
from fairhuman.errors import DataError, RecipeError
from fairhuman.generate.control_inputs import ControlInputs, read_control_inputs
from fairhuman.report.html import picture_uri, render
from fairhuman.report.text import prompt_count
from fairhuman.utils.files import write_text

ZOOM = 320  # side of a close-up on the page in pixels
PAGE_PIXELS = 40_000_000  # of all pictures of a page together, about 15 MB; more pictures are shown smaller


def write_grid(
    methods: Mapping[str, Path],
    out: Path,
    *,
    rows: Sequence[int] | None = None,
    count: int | None = None,
    seed: int = 0,
    zoom_on: str | None = None,
    expected: Sequence[Boxes] | None = None,
    detect: Detect | None = None,
    control: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write `grid.html`, `grid.png` and `grid.pdf` into `out`, and return the path of the page.

    Args:
        methods: name to a folder of pictures, in the order of the columns; see `matching`.
        out: output folder.
        rows: numbers of the rows to show, from 0, in this order; the page states that they were picked by hand.
        count: number of rows to draw at random. Without `rows` and `count`, all rows are shown.
        seed: seed of the random rows.
        zoom_on: method whose detected faces and hands define the close-ups of all methods.
        expected: alternatively, boxes for each matched row, in pixels of the first method's picture. Without `zoom_on`
            and `expected`, there are no close-ups.
        detect: returns boxes by part in an RGB picture [H, W, 3], uint8; by default MediaPipe's detectors in a separate
            process.
        control: `NAME=PLACE` of each condition that the pictures were sampled with; see `read_control_inputs`.
        tell: called with what the user should know, such as that there is nothing to cut close-ups around.

    Raises:
        RecipeError: an argument is out of range, or there are more rows than a figure can hold.
        DataError: pictures don't match or can't be read; names method and file.
        DetectorError: the detectors can't be loaded, or fail.
    """
    _check_zoom(methods, zoom_on, expected)
    matched = match_pictures(methods)
    numbers, choice = choose_rows(len(matched), rows, count, seed)
    if expected is not None and len(expected) != len(matched):
        raise RecipeError(f"expected must hold boxes for each of the {len(matched)} rows, found {len(expected)}")
    chosen = [matched[number] for number in numbers]
    boxes = [expected[number] for number in numbers] if expected is not None else None
    frames = _frames(chosen, zoom_on, boxes, detect)
    zooming = zoom_on is not None or expected is not None
    parts = ZOOMED if any(frames) else ()
    grid = [_grid_row(number, row, of_row, parts) for number, row, of_row in zip(numbers, chosen, frames, strict=True)]
    if control:
        grid = _with_conditions(grid, chosen, read_control_inputs(control, 1 + max(row.key[0] for row in matched)))
    nothing = _nothing_to_zoom(zoom_on) if zooming and not parts else ""
    if nothing:
        tell(nothing)
    for line in unread_prompts(chosen):
        tell(line)
    zoom_notes = [nothing] if nothing else _zoom_notes(zoom_on, zooming, grid)
    notes = [choice, *zoom_notes, *setting_notes(chosen)]
    save_figure(grid_figure(grid, [*notes, _size_note(grid, HEIGHT)]), out)
    write_text(out / "grid.html", _page(grid, chosen, notes, nothing, zoom_on))
    return out / "grid.html"


def _check_zoom(methods: Mapping[str, Path], zoom_on: str | None, expected: Sequence[Boxes] | None) -> None:
    if zoom_on is not None and zoom_on not in methods:
        raise RecipeError(f"zoom_on must be one of {', '.join(methods)}, found {zoom_on!r}")
    if zoom_on is not None and expected is not None:
        raise RecipeError(f"zoom_on and expected both define the close-ups; give only one, found zoom_on {zoom_on!r}")


def _page(
    grid: Sequence[GridRow], rows: Sequence[MatchedRow], notes: Sequence[str], nothing: str, zoom_on: str | None
) -> str:
    height = _page_height(grid)
    return render(
        "grid.html",
        title=f"{prompt_count([row.prompt for row in rows])} by {', '.join(cell.method for cell in grid[0].cells)}",
        columns=[title for title, _ in grid[0].columns],
        widest=max(384, *(2 * cell.size[0] for row in grid for cell in row.cells)),  # small pictures stay small
        notes=[*notes, _size_note(grid, height)],
        nothing=nothing,
        rows=[
            (
                row,
                [(name, picture_uri(picture)) for name, picture in row.conditions.items()],
                [(cell, picture_uri(_at_height(cell, matched, height)), _uris(cell)) for cell in row.cells],
            )
            for row, matched in zip(grid, rows, strict=True)
        ],
        where="expected" if zoom_on is None else f"found in {zoom_on}",
    )


def _page_height(grid: Sequence[GridRow]) -> int:
    """Height of all pictures on the page: that of the highest, as far as `PAGE_PIXELS` allow, and at least `HEIGHT`."""
    cells = [cell for row in grid for cell in row.cells]
    shapes = sum(cell.size[0] / cell.size[1] for cell in cells)
    return max(min(max(cell.size[1] for cell in cells), round(math.sqrt(PAGE_PIXELS / shapes))), HEIGHT)


def _at_height(cell: GridCell, row: MatchedRow, height: int) -> Image.Image:
    return cell.picture if height == HEIGHT else _resized(_open(cell.method, row), height)


def _resized(picture: Image.Image, height: int) -> Image.Image:
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def choose_rows(total: int, rows: Sequence[int] | None, count: int | None, seed: int) -> tuple[list[int], str]:
    """The numbers of the rows to show, and a sentence that states how they were chosen.

    Raises:
        RecipeError: both `rows` and `count` are given, a row doesn't exist or is repeated, or count or seed is out of
            range.
    """
    if rows is not None and count is not None:
        raise RecipeError(f"rows and count both choose rows; give only one, found rows {list(rows)} and count {count}")
    if rows is not None:
        wrong = [row for row in rows if not 0 <= row < total]
        if wrong or not rows or len(set(rows)) < len(rows):
            raise RecipeError(f"rows must be different numbers from 0 to {total - 1}, at least one, found {list(rows)}")
        return list(rows), f"Rows {', '.join(map(str, rows))} of {total} (the first is 0), picked by hand."
    if count is None:
        return list(range(total)), f"All {total} rows."
    if not 1 <= count <= total:
        raise RecipeError(
            f"--count must be from 1 to {total}, as the methods have {total} rows in common, found {count}"
        )
    if seed < 0:
        raise RecipeError(f"--seed must be at least 0, found {seed}")
    drawn = np.random.default_rng(seed).choice(total, count, replace=False)
    return sorted(drawn.tolist()), f"{count} of {total} rows, drawn at random with seed {seed}."


def _frames(
    rows: Sequence[MatchedRow], zoom_on: str | None, expected: Sequence[Boxes] | None, detect: Detect | None
) -> list[dict[str, ZoomFrame]]:
    """Close-up frames of each row by part, from detections in the pictures of `zoom_on` or from expected boxes."""
    if zoom_on is not None:
        return detected_frames([np.asarray(_open(zoom_on, row)) for row in rows], detect)
    if expected is None:
        return [{} for _ in rows]
    name = next(iter(rows[0].pictures))  # expected boxes are in pixels of the first method's pictures
    frames = []
    for row, boxes in zip(rows, expected, strict=True):
        try:
            frames.append(choose_frames(boxes, _open(name, row).size, ZOOMED))
        except ValueError as error:
            raise RecipeError(f"expected: {row.pictures[name].file.name} of {name!r}: {error}") from error
    return frames


def _open(name: str, row: MatchedRow) -> Image.Image:
    try:
        return decode(row.pictures[name].file).picture
    except PictureError as error:
        raise DataError(f"method {name!r}: {error}") from error


def _grid_row(number: int, row: MatchedRow, frames: Mapping[str, ZoomFrame], parts: Sequence[str]) -> GridRow:
    cells = []
    for name, drawn in row.pictures.items():
        picture = _open(name, row)
        zooms = {part: cut(picture, frames[part], ZOOM) if part in frames else None for part in parts}
        cells.append(GridCell(name, drawn.file.name, picture.size, _resized(picture, HEIGHT), zooms))
    return GridRow(number, row.prompt if row.prompt is not None else cells[0].file, cells)


def _with_conditions(grid: Sequence[GridRow], rows: Sequence[MatchedRow], asked: ControlInputs) -> list[GridRow]:
    sizes = [{cell.method: (cell.size[1], cell.size[0]) for cell in row.cells} for row in grid]
    return [
        replace(row, conditions=condition_pictures(asked, matched, of_row, HEIGHT))
        for row, matched, of_row in zip(grid, rows, sizes, strict=True)
    ]


def _zoom_notes(zoom_on: str | None, zooming: bool, grid: Sequence[GridRow]) -> list[str]:
    if not zooming:
        return ["No close-ups."]
    place = f"detected in the pictures of {zoom_on}" if zoom_on else "of the expected boxes"
    notes = [
        f"Close-ups: the largest face and the largest hand {place}. All methods share the same frame, so a close-up "
        "can miss the part if a method drew the person elsewhere."
    ]
    for part in ZOOMED:
        without = [str(row.number) for row in grid if row.cells[0].zooms[part] is None]
        if without:
            reason = f"was found in {zoom_on}" if zoom_on else "is expected"
            notes.append(f"No {part} {reason} in row {', '.join(without)}, so no {part} close-up for any method.")
    return notes


def _nothing_to_zoom(zoom_on: str | None) -> str:
    place = f"was found in the pictures of {zoom_on}" if zoom_on else "is expected in these rows"
    return f"No close-ups: no face and no hand {place}. Place them by another method, or by the boxes of a data set."


def _size_note(grid: Sequence[GridRow], height: int) -> str:
    sizes: dict[str, dict[str, None]] = {}
    for row in grid:
        for cell in row.cells:
            sizes.setdefault(cell.method, {})[f"{cell.size[0]} x {cell.size[1]}"] = None
    listed = "; ".join(
        f"{name}: {', '.join(of_method) if len(of_method) < 4 else f'{len(of_method)} sizes'}"
        for name, of_method in sizes.items()
    )
    differ = "Sizes differ. " if len({size for of_method in sizes.values() for size in of_method}) > 1 else ""
    return f"{differ}All pictures are scaled to a height of {height} px; original sizes: {listed}."


def _uris(cell: GridCell) -> list[tuple[str, str | None]]:
    return [(part, picture_uri(close_up) if close_up else None) for part, close_up in cell.zooms.items()]
