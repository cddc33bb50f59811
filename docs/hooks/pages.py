"""What the site makes while it is built: settings, conflicts between them, lists of modules, formulas as MathML.

A page of `docs/` has a line such as `{{ settings train.recipe:TrainRecipe }}`, `{{ conflicts }}`, `{{ effects }}` or
`{{ api train }}` where the generated part goes. Formulas become MathML, so that a page needs no script and no network
to show them.
"""

import html
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from conflicts import conflicts_page
from latex2mathml.converter import convert

import fairhuman
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.settings_reference import SettingEntry, settings_of, summary

SOURCE = Path(fairhuman.__file__).parent
_MARK = re.compile(r"^\{\{ (settings|conflicts|effects|api)(?: ([\w.:]+))? \}\}$", flags=re.MULTILINE)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', flags=re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put generated parts in the place of their marks."""
    level = 3 if "\n## " in markdown else 2
    parts: dict[str, Callable[[str], str]] = {
        "settings": lambda place: settings_page(place, level),
        "conflicts": lambda _: conflicts_page(),
        "effects": lambda _: effects_table(),
        "api": api_page,
    }
    return _MARK.sub(lambda mark: parts[mark[1]](mark[2]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML."""

    def formula(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        text = convert(html.unescape(found[2]).strip(), display=display)
        return f'<div class="formula">{text}</div>' if display == "block" else text

    return _FORMULA.sub(formula, content)


def settings_page(place: str, level: int) -> str:
    """Markdown of all settings of a class, given as `module:class`: a definition a setting, then a heading a section.

    Args:
        place: module and class, without `fairhuman.`.
        level: of the sections' headings.
    """
    module, _, name = place.partition(":")
    kind = getattr(import_module(f"fairhuman.{module}"), name)
    return "\n".join([summary(kind), "", *_section(list(settings_of(kind)), "", level)])


def _section(entries: list[SettingEntry], prefix: str, level: int) -> list[str]:
    """The settings right below `prefix`, then its sections, each with its own."""
    depth = prefix.count(".")
    own = [entry for entry in entries if entry.name.startswith(prefix)]
    lines: list[str] = []
    for entry in own:
        if entry.name.count(".") == depth and not entry.section:
            lines += _definition(entry)
    for entry in own:
        if entry.name.count(".") == depth and entry.section:
            inside = next(one.name for one in own if one.name.startswith((f"{entry.name}.", f"{entry.name}[")))
            lines += _head(entry, min(level, 5))
            lines += _section(own, inside.rpartition(".")[0] + ".", level + 1)
    return lines


def _head(entry: SettingEntry, level: int) -> list[str]:
    kinds = {"section": "", "section or null": "may be null", "table of sections": "named sections"}
    type_ = kinds.get(entry.type, entry.type)
    default = {"its own settings": "", "required": "**required**"}.get(entry.default, f"default `{entry.default}`")
    facts = "; ".join(part for part in (type_, default, _effect(entry).removeprefix("; ")) if part)
    return ["", f"{'#' * level} `{entry.name}`", "", f"{_sentence(entry.description)} <small>{facts}</small>", ""]


def _definition(entry: SettingEntry) -> list[str]:
    facts = ", ".join(part for part in (entry.type, html.escape(entry.range).replace("[", "&#91;")) if part)
    default = "**required**" if entry.default == "required" else f"default `{_short(entry.default)}`"
    meaning, effect = _sentence(entry.description), _effect(entry)
    return ["", f"`{entry.name}`", f":   {meaning}", f"    <small>{facts}; {default}{effect}</small>", ""]


def _effect(entry: SettingEntry) -> str:
    return f"; has an effect with {html.escape(entry.effect, quote=False)}" if entry.effect else ""


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:80].rstrip()} ..."


def _sentence(text: str) -> str:
    text = html.escape(text, quote=False).replace("None", "null")
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".?!" else ".")


def effects_table() -> str:
    """Markdown of the settings of training that have an effect only with others."""
    rows = [f"| `{name}` | {'; '.join(map(str, needs))} |" for name, needs in TrainRecipe.EFFECTS.items()]
    return "\n".join(["| setting | has an effect with |", "|---|---|", *rows])


def api_page(package: str) -> str:
    """Directives for mkdocstrings: the package where it says what is public, then each of its public modules."""
    folder = SOURCE / package.replace(".", "/")
    names = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if path.name != "__init__.py" and not any(part.startswith("_") for part in parts):
            names.append(".".join(("fairhuman", *parts)))
    return "\n\n".join(f"::: {name}" for name in names)
