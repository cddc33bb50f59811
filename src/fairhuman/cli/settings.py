"""`fairhuman settings`: every setting explained."""

import difflib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.errors import RecipeError

if TYPE_CHECKING:
    from fairhuman.utils.settings_reference import SettingEntry

# What `key=value` and recipes set, by the command's name without its group.
CLASSES: Mapping[str, str] = {
    "train": "train.recipe:TrainRecipe",
    "data": "data.pipeline.settings:BuildRecipe",
    "compare": "compare.settings:CompareRecipe",
    "reproduce": "compare.paper.recipe:ReproduceRecipe",
    "validation": "data.validation.settings:ValidationSetSettings",
    "show": "data.look.reading:LookSettings",
    "closeups": "data.export.closeups:CloseupSettings",
    "detectors": "detect.settings:DetectSettings",
    "evaluate": "evaluate.settings:EvaluateSettings",
    "losses": "evaluate.settings:LossSettings",
    "grid": "compare.settings:DrawSettings",
    "refine": "refine.settings:RefineSettings",
    "cost": "compare.paper.settings:CostSettings",
    "paper": "compare.paper.settings:SheetSettings",
    "memory": "bench.settings:MemoryTableSettings",
    "studio": "studio.settings:StudioSettings",
    "study": "study.study:StudySettings",
    "power": "study.power:PowerSettings",
}
# Commands of a group, which may be named with it.
GROUPED: Mapping[tuple[str, str], str] = {
    ("data", "build"): "data",
    ("data", "validation"): "validation",
    ("data", "check"): "show",
    ("data", "show"): "show",
    ("data", "stats"): "show",
    ("data", "benchmark-detectors"): "detectors",
    ("study", "create"): "study",
    ("study", "power"): "power",
}
WITHOUT = ("sample", "synth", "merge", "demo", "doctor")  # commands that take options alone
INDENT = "    "


def settings(
    of: Annotated[str, Argument(metavar="[COMMAND]", help=f"{', '.join(CLASSES)}.")] = "train",
    section: Annotated[str | None, Argument(help="A section, such as lora, or one setting, such as lora.rank.")] = None,
    more: Annotated[str | None, Argument(hidden=True)] = None,
) -> None:
    """Explain every setting of a command: name, default, type, range and meaning.

    Example: fairhuman settings train lora
    """
    from fairhuman.utils.settings_reference import settings_of

    if (of, section) in GROUPED:  # `data build`
        of, section, more = GROUPED[of, section or ""], more, None
    if more is not None:
        raise RecipeError(f"settings: expected a command and a section, found {more!r} too")
    if of not in CLASSES:
        if of in WITHOUT:
            raise RecipeError(f"settings: {of} has options, not settings: fairhuman {of} --help")
        near = difflib.get_close_matches(of, CLASSES, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(CLASSES)}"
        raise RecipeError(f"settings: there are none of {of!r}; {hint}")
    module, _, name = CLASSES[of].partition(":")
    entries = list(settings_of(getattr(import_module(f"fairhuman.{module}"), name)))
    display = ConsoleDisplay()
    for line in _lines(_within(entries, section, of), display.width):
        display.say(line)


def _within(entries: Sequence["SettingEntry"], section: str | None, of: str) -> list["SettingEntry"]:
    """The entries of a section and its head, or one setting; all if `section` is None."""
    if section is None:
        return list(entries)
    found = [
        entry for entry in entries if entry.name == section or entry.name.startswith((f"{section}.", f"{section}["))
    ]
    if not found:
        names = [entry.name for entry in entries]
        near = [name for name in names if name.rpartition(".")[2] == section][:3]
        near = near or difflib.get_close_matches(section, names, 1, 0.6)
        sections = ", ".join(entry.name for entry in entries if entry.section and "." not in entry.name)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"sections are {sections}"
        raise RecipeError(f"settings: {of} has no setting {section!r}; {hint}")
    return found


def _lines(entries: Sequence["SettingEntry"], width: int) -> Iterator[str]:
    """Two lines or more for each entry, and an empty line before a section."""
    for number, entry in enumerate(entries):
        if entry.section:
            if number:
                yield ""
            yield f"{entry.name}:" if entry.default == "its own settings" else f"{entry.name}: {entry.default}"
        else:
            default = f" = {entry.default}" if entry.default != "required" else ", required"
            yield f"{entry.name}{default}  ({', '.join(part for part in (entry.type, entry.range) if part)})"
        effect = f" (has an effect with {entry.effect})" if entry.effect else ""
        text = entry.description + effect
        yield from textwrap.wrap(text, max(40, width), initial_indent=INDENT, subsequent_indent=INDENT)
