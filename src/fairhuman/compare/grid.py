"""A grid of the same prompts by several methods: a row a prompt, a column a method, faces and hands close up.

As in Figures 1-4 of the FairHuman supplement, but with rows that are drawn, not picked, and close-ups of one place in
all methods.
"""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageFont

from fairhuman.compare.frames import ZOOMED, Boxes, Detect, detected_frames
from fairhuman.compare.matching import MatchedRow, match_pictures, setting_notes
from fairhuman.compare.zoom import Frame, choose_frames, cut
from fairhuman.data.decode import decode
from fairhuman.data.stored import PictureError
from fairhuman.errors import DataError, RecipeError
from fairhuman.files import write_atomically, write_text
from fairhuman.report.html import picture_uri, render
from fairhuman.report.plots import INK

HEIGHT = 320  # pixels of all pictures in the grid
ZOOM = 192  # pixels a side of a close-up in the page
GAP, MARGIN, LINE, TEXT = 6, 14, 18, 13  # pixels in the figure: between things, around, a line of text, its letters
PROMPT_LINES = 3  # the page has the whole prompt
DPI = 100
MOST_PIXELS = 30_000  # of a side of the figure
SOFT = "#5b5b5b"


@dataclass(frozen=True, slots=True)
class GridCell:
    """A method's picture at the common height, and its close-ups; None where there is no frame."""

    method: str
    file: str
    size: tuple[int, int]
    picture: Image.Image
    zooms: Mapping[str, Image.Image | None]


@dataclass(frozen=True, slots=True)
class GridRow:
    """A prompt by all methods."""

    number: int
    prompt: str
    cells: Sequence[GridCell]


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
) -> Path:
    """Write `grid.html`, `grid.png` and `grid.pdf` into `out`, and return the path of the page.

    Args:
        methods: a name to a folder of pictures each, in the order of the columns; see `matching`.
        out: the folder.
        rows: numbers of the rows to show, from 0, in this order; the page says that they were picked.
        count: shows so many rows, drawn at random by `seed`. Neither `rows` nor `count`: all.
        seed: of that draw.
        zoom_on: the method in whose pictures faces and hands are looked for; their frames are cut from all methods.
        expected: instead of that, where they are expected: boxes for each matched row, in pixels of the first method's
            picture. Neither: no close-ups.
        detect: finds boxes by part in an RGB picture [H, W, 3], uint8; by default MediaPipe's, in a process of its own.

    Raises:
        RecipeError: an argument out of range, or more rows than a figure can hold.
        DataError: pictures that don't match, or can't be read: names method and file.
        DetectorError: the detectors can't be loaded, or fail.
    """
    if zoom_on is not None and zoom_on not in methods:
        raise RecipeError(f"zoom_on must be one of {', '.join(methods)}, found {zoom_on!r}")
    if zoom_on is not None and expected is not None:
        raise RecipeError(f"zoom_on and expected both say where to zoom; give one, found zoom_on {zoom_on!r} beside it")
    matched = match_pictures(methods)
    numbers, choice = choose_rows(len(matched), rows, count, seed)
    if expected is not None and len(expected) != len(matched):
        raise RecipeError(f"expected must hold boxes for each of the {len(matched)} rows, found {len(expected)}")
    chosen = [matched[number] for number in numbers]
    zooming = zoom_on is not None or expected is not None
    frames: list[dict[str, Frame]] = [{} for _ in chosen]
    if zoom_on is not None:
        frames = _detected_frames(zoom_on, chosen, detect)
    elif expected is not None:
        frames = _expected_frames(next(iter(methods)), chosen, [expected[number] for number in numbers])
    parts = ZOOMED if zooming else ()
    grid = [_grid_row(number, row, of_row, parts) for number, row, of_row in zip(numbers, chosen, frames, strict=True)]
    notes = [choice, *_zoom_notes(zoom_on, zooming, grid), *setting_notes(chosen), _size_note(grid)]
    figure = grid_figure(grid, notes)
    _save(figure, out)
    page = render(
        "grid.html",
        title=f"{len(grid)} prompts by {', '.join(methods)}",
        methods=list(methods),
        notes=notes,
        rows=[(row, [(cell, picture_uri(cell.picture), _uris(cell)) for cell in row.cells]) for row in grid],
        where="expected" if zoom_on is None else f"found in {zoom_on}",
    )
    write_text(out / "grid.html", page)
    return out / "grid.html"


def choose_rows(total: int, rows: Sequence[int] | None, count: int | None, seed: int) -> tuple[list[int], str]:
    """The numbers of the rows to show, and a sentence that says how they were chosen.

    Raises:
        RecipeError: both `rows` and `count`, a row that there isn't, or twice; a count or seed out of range.
    """
    if rows is not None and count is not None:
        raise RecipeError(f"rows and count both choose rows; give one, found rows {list(rows)} and count {count}")
    if rows is not None:
        wrong = [row for row in rows if not 0 <= row < total]
        if wrong or not rows or len(set(rows)) < len(rows):
            raise RecipeError(f"rows must be different numbers from 0 to {total - 1}, at least one, found {list(rows)}")
        return list(rows), f"Rows {', '.join(map(str, rows))} of {total} (the first is 0), picked by hand."
    if count is None:
        return list(range(total)), f"All {total} rows, none left out."
    if not 1 <= count <= total or seed < 0:
        raise RecipeError(f"count must be from 1 to {total} and seed at least 0, found count {count}, seed {seed}")
    drawn = np.random.default_rng(seed).choice(total, count, replace=False)
    return sorted(drawn.tolist()), f"{count} of {total} rows, drawn at random with seed {seed}."


def grid_figure(grid: Sequence[GridRow], notes: Sequence[str]) -> Figure:
    """The grid as a figure of one pixel a picture's pixel at 100 dpi; letters that DejaVu Sans lacks are boxes.

    Raises:
        RecipeError: it would be larger than 30,000 pixels.
    """
    titles = [cell.method for cell in grid[0].cells]
    widths = [max(row.cells[column].picture.width for row in grid) for column in range(len(titles))]
    parts = list(grid[0].cells[0].zooms)
    zoom = (min(widths) - GAP * (len(parts) - 1)) // max(len(parts), 1)
    width = sum(widths) + GAP * (len(widths) - 1) + 2 * MARGIN
    head = [_lines(title, of_column, 2) for title, of_column in zip(titles, widths, strict=True)]
    prompts = [_lines(row.prompt, width - 2 * MARGIN, PROMPT_LINES) for row in grid]
    foot = [line for note in notes for line in _lines(note, width - 2 * MARGIN, PROMPT_LINES)]
    pictures = HEIGHT + (GAP + zoom if parts else 0)
    tops = np.cumsum([MARGIN + LINE * max(map(len, head)), *(pictures + LINE * (len(p) + 1) for p in prompts)])
    height = int(tops[-1]) + LINE * len(foot) + MARGIN
    if max(width, height) > MOST_PIXELS:
        raise RecipeError(f"rows: a figure may have {MOST_PIXELS} pixels a side, {len(grid)} rows take {height}; fewer")
    figure, axes = _canvas(width, height)
    for row, prompt, top in zip(grid, prompts, tops[:-1].tolist(), strict=True):
        left = MARGIN
        for cell, of_column in zip(row.cells, widths, strict=True):
            _draw(axes, cell.picture, left, top)
            for number, (part, close_up) in enumerate(cell.zooms.items()):
                place = (left + number * (zoom + GAP), top + HEIGHT + GAP)
                if close_up is None:
                    _write(axes, [f"no {part}"], place[0], place[1] + zoom // 2, SOFT)
                else:
                    _draw(axes, close_up.resize((zoom, zoom), Image.Resampling.LANCZOS), *place)
            left += of_column + GAP
        _write(axes, prompt, MARGIN, top + pictures + GAP)
    left = MARGIN
    for lines, of_column in zip(head, widths, strict=True):
        _write(axes, lines, left, MARGIN - 4, weight="bold")
        left += of_column + GAP
    _write(axes, foot, MARGIN, int(tops[-1]), SOFT)
    return figure


def _detected_frames(name: str, rows: Sequence[MatchedRow], detect: Detect | None) -> list[dict[str, Frame]]:
    return detected_frames([np.asarray(_open(name, row)) for row in rows], detect)


def _expected_frames(name: str, rows: Sequence[MatchedRow], expected: Sequence[Boxes]) -> list[dict[str, Frame]]:
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


def _grid_row(number: int, row: MatchedRow, frames: Mapping[str, Frame], parts: Sequence[str]) -> GridRow:
    cells = []
    for name, drawn in row.pictures.items():
        picture = _open(name, row)
        width = max(1, round(picture.width * HEIGHT / picture.height))
        shown = picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)
        zooms = {part: cut(picture, frames[part], ZOOM) if part in frames else None for part in parts}
        cells.append(GridCell(name, drawn.file.name, picture.size, shown, zooms))
    return GridRow(number, row.prompt if row.prompt is not None else cells[0].file, cells)


def _zoom_notes(zoom_on: str | None, zooming: bool, grid: Sequence[GridRow]) -> list[str]:
    if not zooming:
        return ["No close-ups."]
    place = f"where the detectors find them in {zoom_on}" if zoom_on else "where they were expected beforehand"
    notes = [
        f"Close-ups: the largest face and the largest hand {place}; the same frame in all methods, which misses where "
        "another method put the person elsewhere."
    ]
    for part in ZOOMED:
        without = [str(row.number) for row in grid if row.cells[0].zooms[part] is None]
        if without:
            reason = f"found in {zoom_on}" if zoom_on else "expected"
            notes.append(f"No {part} is {reason} in row {', '.join(without)}: no close-up of it in any method there.")
    return notes


def _size_note(grid: Sequence[GridRow]) -> str:
    sizes: dict[str, dict[str, None]] = {}
    for row in grid:
        for cell in row.cells:
            sizes.setdefault(cell.method, {})[f"{cell.size[0]} x {cell.size[1]}"] = None
    listed = "; ".join(
        f"{name}: {', '.join(of_method) if len(of_method) < 4 else f'{len(of_method)} sizes'}"
        for name, of_method in sizes.items()
    )
    differ = "Sizes differ. " if len({size for of_method in sizes.values() for size in of_method}) > 1 else ""
    return f"{differ}All pictures are scaled to a height of {HEIGHT} pixels; drawn in {listed}."


def _uris(cell: GridCell) -> list[tuple[str, str | None]]:
    return [(part, picture_uri(close_up) if close_up else None) for part, close_up in cell.zooms.items()]


def _lines(text: str, width: int, most: int) -> list[str]:
    """The text in lines of about `width` pixels, by the mean width of its own letters; the rest is left out, with …"""
    text = " ".join(text.split())
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT)
    letters = int(0.92 * width * len(text) / max(font.getlength(text), 1.0))
    return textwrap.wrap(text, max(letters, 2), max_lines=most, placeholder="…")


def _canvas(width: int, height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def _draw(axes: Axes, picture: Image.Image, left: int, top: int) -> None:
    extent = (left, left + picture.width, top + picture.height, top)
    axes.imshow(np.asarray(picture), extent=extent, interpolation="none", aspect="auto")


def _write(axes: Axes, lines: Sequence[str], left: int, top: int, colour: str = INK, weight: str = "normal") -> None:
    for number, line in enumerate(lines):
        axes.text(
            left,
            top + (number + 0.5) * LINE,
            line,
            fontsize=TEXT * 72 / DPI,
            color=colour,
            weight=weight,
            va="center",
            parse_math=False,
            clip_on=True,
        )


def _save(figure: Figure, out: Path) -> None:
    """PNG and PDF; text stays text in the PDF, and the same grid gives the same bytes."""
    with warnings.catch_warnings(), mpl.rc_context({"pdf.fonttype": 42}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            write_atomically(
                out / f"grid.{kind}",
                partial(figure.savefig, format=kind, metadata=metadata),
            )
