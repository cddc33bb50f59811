"""The grid as a figure in PNG and PDF, with one figure pixel per picture pixel."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageFont

from fairhuman.errors import RecipeError
from fairhuman.report.plots import INK, without_glyph_warnings
from fairhuman.utils.files import write_atomically

HEIGHT = 320  # height of all pictures in pixels
GAP, MARGIN, LINE, TEXT = 6, 14, 18, 13  # pixels: gap between items, outer margin, line height, font size
PROMPT_LINES = 3  # maximum lines of a prompt in the figure; the page shows all of it
DPI = 100
MAX_PIXELS = 30_000  # maximum side of the figure
SOFT = "#5b5b5b"


@dataclass(frozen=True, slots=True)
class GridCell:
    """A method's picture at the common height, and its close-ups by part; None without a frame."""

    method: str
    file: str
    size: tuple[int, int]
    picture: Image.Image
    zooms: Mapping[str, Image.Image | None]


@dataclass(frozen=True, slots=True)
class GridRow:
    """The pictures of all methods for one prompt, and their conditions by name."""

    number: int
    prompt: str
    cells: Sequence[GridCell]
    conditions: Mapping[str, Image.Image] = field(default_factory=dict)

    @property
    def columns(self) -> list[tuple[str, Image.Image]]:
        """All pictures with their titles, from left to right."""
        return [*self.conditions.items(), *((cell.method, cell.picture) for cell in self.cells)]


def grid_figure(grid: Sequence[GridRow], notes: Sequence[str]) -> Figure:
    """The grid as a figure at 100 dpi; characters missing from DejaVu Sans appear as boxes.

    Raises:
        RecipeError: a side would exceed 30,000 pixels.
    """
    titles = [title for title, _ in grid[0].columns]
    widths = [max(row.columns[column][1].width for row in grid) for column in range(len(titles))]
    parts = list(grid[0].cells[0].zooms)
    zoom = (min(widths) - GAP * (len(parts) - 1)) // max(len(parts), 1)
    width = sum(widths) + GAP * (len(widths) - 1) + 2 * MARGIN
    head = [_lines(title, of_column, 2) for title, of_column in zip(titles, widths, strict=True)]
    prompts = [_lines(row.prompt, width - 2 * MARGIN, PROMPT_LINES) for row in grid]
    foot = [line for note in notes for line in _lines(note, width - 2 * MARGIN, PROMPT_LINES)]
    pictures = HEIGHT + (GAP + zoom if parts else 0)
    tops = np.cumsum([MARGIN + LINE * max(map(len, head)), *(pictures + LINE * (len(p) + 1) for p in prompts)])
    height = int(tops[-1]) + LINE * len(foot) + MARGIN
    if max(width, height) > MAX_PIXELS:
        raise RecipeError(
            f"rows: a figure can have {MAX_PIXELS} pixels per side, {len(grid)} rows take {height}; choose fewer"
        )
    figure, axes = _canvas(width, height)
    for row, prompt, top in zip(grid, prompts, tops[:-1].tolist(), strict=True):
        left = MARGIN
        zooms: list[Mapping[str, Image.Image | None]] = [{}] * len(row.conditions) + [cell.zooms for cell in row.cells]
        for (_, picture), close_ups, of_column in zip(row.columns, zooms, widths, strict=True):
            _draw(axes, picture, left, top)
            for number, (part, close_up) in enumerate(close_ups.items()):
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


def _lines(text: str, width: int, most: int) -> list[str]:
    """Wrap text to lines of about `width` pixels, estimated from its mean character width; truncated with …"""
    text = " ".join(text.split())
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT)
    letters = int(0.92 * width * len(text) / max(font.getlength(text), 1.0))
    return textwrap.wrap(text, max(letters, 2), max_lines=most, placeholder="…")


def _canvas(width: int, height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
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


def save_figure(figure: Figure, out: Path) -> None:
    """Save as PNG and PDF. Text stays text in the PDF, and the same grid gives the same bytes."""
    with without_glyph_warnings(), mpl.rc_context({"pdf.fonttype": 42}):
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            write_atomically(out / f"grid.{kind}", partial(figure.savefig, format=kind, metadata=metadata))
