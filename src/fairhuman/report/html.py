"""Rendering of self-contained HTML pages: images and figures are embedded as data URIs, all text is escaped."""

import base64
import io
import itertools
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from fairhuman.report.plots import to_svg
from fairhuman.utils.files import write_text

_AFTER_PART = re.compile(r"(?<=[/\\_-])(?=[^/\\_-])")
_TABLE = re.compile(r"<table>(\s*<thead>(.*?)</thead>)", re.DOTALL)
_HEAD = re.compile(r"<th\b([^>]*)>(.*?)</th>", re.DOTALL)
_SMALL = re.compile(r"<small>.*?</small>|<br>", re.DOTALL)
_ENLARGED = re.compile('(popovertarget|popover id)="enlarged"')
FITTING = 3  # columns of a table that fit onto a phone


def breakable(name: str) -> Markup:
    """A file name or other long name, escaped, that a browser may break only behind `/`, `_` or `-`."""
    return Markup("<wbr>").join(escape(part) for part in _AFTER_PART.split(name))


def finished(page: str) -> Markup:
    """The body of a page with `stackable` tables and an id of its own for each picture that can be enlarged."""
    places = itertools.count(2)  # a picture and its button share one
    return stackable(_ENLARGED.sub(lambda found: f'{found[1]}="enlarged-{next(places) // 2}"', page))


def stackable(page: str) -> Markup:
    """Tables that are too wide for a phone get the class `cards` and their column heads as CSS strings `--c1`, `--c2`,
    ..., with which `style.css` shows each row as a card there.

    Too wide are more than three columns, or more than one of text. What is `small` in a head is left out.
    """
    return Markup(_TABLE.sub(_with_heads, page))


def _with_heads(table: re.Match[str]) -> str:
    heads = _HEAD.findall(table[2])
    if len(heads) <= FITTING and sum("text" in attributes for attributes, _ in heads) < 2:
        return table[0]
    texts = [Markup(_SMALL.sub(" ", content).replace("<wbr>", "\u200b")).striptags() for _, content in heads]
    labels = escape("; ".join(f"--c{number}: {_css_string(text)}" for number, text in enumerate(texts, start=1)))
    return f'<table class="cards" style="{labels}">{table[1]}'


def _css_string(text: str) -> str:
    return '"' + re.sub(r'[\\"\n\r\f]', lambda found: f"\\{ord(found[0]):x} ", text) + '"'


# Every template autoescapes, because captions, file names and settings are untrusted.
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"breakable": breakable, "finished": finished}


def render(template: str, **context: object) -> str:
    """Render `report/<template>`; a variable missing from `context` is an error."""
    return _TEMPLATES.get_template(template).render(**context)


def render_to(path: Path, template: str, **context: object) -> Path:
    """Write a page as `render` makes it to `path`, which is returned."""
    write_text(path, render(template, **context))
    return path


def picture_uri(picture: Image.Image, longest: int | None = None, quality: int = 88) -> str:
    """An image as a JPEG data URI, shrunk if its longer side exceeds `longest` pixels."""
    picture = picture.convert("RGB")
    if longest is not None:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return _data_uri("image/jpeg", buffer.getvalue())


def figure_uri(figure: Figure) -> str:
    """A figure as an SVG data URI."""
    return _data_uri("image/svg+xml", to_svg(figure))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
