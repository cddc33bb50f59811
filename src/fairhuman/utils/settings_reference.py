"""Every setting of a class of settings as a plain entry: name, type, default, range, description.

The reference in the documentation and the command line print these entries. Classes are given by the caller, so this
module depends on pydantic alone.
"""

import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

REQUIRED = "required"
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", type(None): "null"}
_COUNTED = ("whole number", "number", "text", "path", "any value", "section", "list", "table")
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class SettingEntry:
    """One setting, or the head of a section of settings.

    Attributes:
        name: dotted, as in `key=value` overrides; `[]` stands for a place in a list, `NAME` for a key of a table.
        type: what the value may be, in words.
        default: as YAML; `required` where there is none.
        range: bounds of the value, empty where there are none.
        description: one sentence, from the field or from the `Attributes` of the class's docstring.
        section: whether further settings stand below this name.
        effect: what it needs to have an effect, and its section doesn't say; empty where it always has one.
    """

    name: str
    type: str
    default: str
    range: str
    description: str
    section: bool = False
    effect: str = ""


def settings_of(kind: type[BaseModel], prefix: str = "", values: BaseModel | None = None) -> Iterator[SettingEntry]:
    """Yield an entry for every setting of `kind` in the order of the class; a section is followed by its own settings.

    A class may have a table `EFFECTS`: dotted names to the conditions under which a setting has an effect.

    Args:
        kind: a class of settings.
        prefix: put before each name, such as `lora.`.
        values: where defaults are read instead of the class, such as the default of a section.
    """
    effects: Mapping[str, Sequence[object]] = getattr(kind, "EFFECTS", {})
    for entry in _entries(kind, prefix, values):
        needs = effects.get(entry.name.removeprefix(prefix), ())
        yield replace(entry, effect="; ".join(map(str, needs))) if needs else entry


def _entries(kind: type[BaseModel], prefix: str, values: BaseModel | None) -> Iterator[SettingEntry]:
    """The entries of `settings_of`, without effects."""
    documented = _attributes(kind)
    for name, field in kind.model_fields.items():
        default = _default(field) if values is None else getattr(values, name)
        inner = _section(field.annotation)
        description = field.description or documented.get(name, "")
        if inner is None:
            yield SettingEntry(
                prefix + name, type_in_words(field.annotation), _as_yaml(field, default), _range(field), description
            )
            continue
        suffix, model = inner
        shown = default if isinstance(default, BaseModel) else None
        text = "its own settings" if shown is not None else _as_yaml(field, default)
        yield SettingEntry(
            prefix + name, type_in_words(field.annotation), text, _range(field), description or summary(model), True
        )
        yield from _entries(model, f"{prefix}{name}{suffix}.", shown)


def type_in_words(annotation: Any) -> str:
    """Name a type as a reader of YAML would: `list of whole numbers`, `one of lora, full`, `path or null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_in_words(arguments[0])
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_in_words(one) for one in arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"list of {len(arguments)}: {', '.join(type_in_words(one) for one in arguments)}"
    if origin in (list, tuple) or (isinstance(origin, type) and issubclass(origin, AbstractSet)):
        return f"list{_each(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"table{_each(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _WORDS.get(annotation, "any value")


def _each(annotation: Any) -> str:
    """What a list or table holds, in the plural where a word has one."""
    words = type_in_words(annotation)
    head, space, rest = words.partition(" of ") if words.startswith(("list of", "table of")) else (words, "", "")
    return f" of {head}s{space}{rest}" if head in _COUNTED else f", each {words}"


def summary(kind: type[BaseModel]) -> str:
    """Return the first paragraph of a class's own docstring on one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def _section(annotation: Any) -> tuple[str, type[BaseModel]] | None:
    """The class of settings inside a type, and the suffix of the section's name: `[]`, `.NAME` or nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "", annotation
    if isinstance(annotation, TypeVar):
        return None
    origin, arguments = get_origin(annotation), get_args(annotation)
    listed = isinstance(origin, type) and issubclass(origin, list | tuple)
    table = isinstance(origin, type) and issubclass(origin, Mapping)
    for inner in arguments[:1] if origin is Annotated else arguments:
        found = _section(inner)
        if found is not None:
            return ("[]" if listed else ".NAME" if table else "") + found[0], found[1]
    return None


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True) if not field.is_required() else REQUIRED


def _as_yaml(field: FieldInfo, default: Any) -> str:
    if field.is_required() and default == REQUIRED:
        return REQUIRED
    return flow_yaml(TypeAdapter(Any).dump_python(default, mode="json"))


def flow_yaml(plain: Any) -> str:
    """A plain value as YAML on one line."""
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _range(field: FieldInfo) -> str:
    parts = []
    for rule in field.metadata:
        parts += [f"{sign} {_number(getattr(rule, name))}" for name, sign in _BOUNDS.items() if hasattr(rule, name)]
        if (least := getattr(rule, "min_length", None)) is not None:
            parts.append("not empty" if least == 1 else f"at least {least} long")
        if (most := getattr(rule, "max_length", None)) is not None:
            parts.append(f"at most {most} long")
        if (step := getattr(rule, "multiple_of", None)) is not None:
            parts.append(f"multiple of {step}")
        if (pattern := getattr(rule, "pattern", None)) is not None:
            parts.append(f"matches {pattern}")
    return ", ".join(parts)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _attributes(kind: type[BaseModel]) -> dict[str, str]:
    """Descriptions under `Attributes:` in a class's docstring, by name."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for name, text in re.findall(r"^ {4}(\w+): ((?:.|\n(?! {4}\w+: )(?=.| {5}))*)", listed, flags=re.MULTILINE):
        found[name] = " ".join(text.split())
    return found
