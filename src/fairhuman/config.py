"""Typed settings: load, override, validate, save.

A recipe is a YAML file that is validated against a settings class. `extends: OTHER.yaml` starts from another file in
the same folder, or from `recipes/NAME.yaml` that ships. The command line overrides any setting with `key=value` or
`section.key=value`.
"""

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from fairhuman.errors import RecipeError
from fairhuman.utils.files import write_text
from fairhuman.utils.parse import parse_yaml, read_yaml
from fairhuman.utils.settings_reference import type_in_words


class Settings(BaseModel):
    """Base of all settings classes: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Settings that affect only execution (speed, timeouts), not the result.
    EXECUTION: ClassVar[frozenset[str]] = frozenset()

    def decisive(self) -> dict[str, Any]:
        """Return all values except those in `EXECUTION`, JSON-ready: what a stored result depends on."""
        plain = self.model_dump(mode="json", exclude=set(self.EXECUTION))
        for name in plain:
            value = getattr(self, name)
            if isinstance(value, Settings):
                plain[name] = value.decisive()
        return plain


SettingsT = TypeVar("SettingsT", bound=BaseModel)
RECIPES = Path("recipes")
COMMAND_LINE = "the command line"  # a place of settings, in messages
_PACKAGE = Path(__file__).parent
# In the package where it is installed, in the repository where it runs from there.
SHIPPED = next((path for path in (_PACKAGE / RECIPES, _PACKAGE.parents[1] / RECIPES) if path.is_dir()), _PACKAGE)


def load(
    kind: type[SettingsT], path: Path, overrides: Sequence[str] = (), values: dict[str, Any] | None = None
) -> SettingsT:
    """Read a recipe file, replace its settings by `values`, and apply overrides.

    Raises:
        RecipeError: names the file or setting, the rule, the value found and, for an unknown name, the closest match.
    """
    levels = [(str(file), own) for file, own in read_levels(path)]
    typed = overridden(values or {}, overrides)
    places = places_of([*levels, (COMMAND_LINE, typed)])
    return build(kind, overridden(merge(read(path), values or {}), overrides), (), str(path), places)


def build(
    kind: type[SettingsT],
    values: dict[str, Any],
    overrides: Sequence[str] = (),
    origin: str = "recipe",
    places: Mapping[str, str] = types.MappingProxyType({}),
) -> SettingsT:
    """Apply overrides to `values` and validate them as a `kind`.

    Errors name the place of the setting that is wrong: that in `places` (see `places_of`), otherwise `origin`.
    """
    try:
        return kind.model_validate(_with_lists(kind, overridden(values, overrides)))
    except ValidationError as error:
        lines = (_explain(kind, origin, places, problem) for problem in _problems(kind, error))
        raise RecipeError("\n".join(lines)) from error


def places_of(levels: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return where each setting was given, by dotted name.

    `levels` are places and their settings; the last one wins.
    """
    return {name: place for place, values in levels for name in flatten(values)}


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `values` with overrides `key=value` applied.

    Raises:
        RecipeError: an override has another form.
    """
    values = _copy(values)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise RecipeError(f"override {override!r}: expected key=value{_form_hint(override, overrides)}")
        _set(values, key.split("."), _parse(text, override), override)
    return values


def _form_hint(override: str, overrides: Sequence[str]) -> str:
    """What may be meant by an override that isn't key=value."""
    if override.endswith(".yaml"):
        return "; where a command's recipe is optional, it is given as --recipe"
    if any(other.startswith("=") or other.endswith("=") for other in overrides):
        return " without spaces around ="
    return ""


def save(settings: BaseModel, path: Path) -> None:
    """Write the resolved settings atomically; `load` reads them back."""
    write_text(path, to_yaml(settings))


def to_yaml(settings: BaseModel) -> str:
    """Return the resolved settings as YAML, without an empty line."""
    return yaml.dump(settings.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_short_yaml(settings: BaseModel) -> str | None:
    """Return the settings that aren't at their default as YAML that is read as the same; None: it would not be."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    try:
        same = type(settings).model_validate(values) == settings
    except ValidationError:
        return None
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True) if same and values else None


def differences(a: BaseModel, b: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ between `a` and `b` as {dotted name: (value in a, value in b)}."""
    left, right = flatten(a.model_dump(mode="json")), flatten(b.model_dump(mode="json"))
    names = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def read(path: Path) -> dict[str, Any]:
    """Return the settings that a recipe file names, and those of the recipe that it extends.

    Raises:
        RecipeError: it can't be read, or extends itself.
    """
    values: dict[str, Any] = {}
    for _, own in read_levels(path):
        values = merge(values, own)
    return values


def read_levels(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Return the own settings of a recipe file and of those that it extends, the file itself last; errors as `read`."""
    by = f" ({seen[-1]} extends it)" if seen else ""
    try:
        if path.resolve() in [one.resolve() for one in seen]:
            raise RecipeError(f"{path}: extends itself: {' extends '.join(map(str, (*seen, path)))}")
        values = read_yaml(path)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe{by}{_recipes_at_hand(path)}") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: expected a YAML file of settings, found a folder{by}; give a file in it") from error
    except (OSError, RuntimeError, ValueError) as error:  # a RuntimeError: a loop of links, before Python 3.13
        raise RecipeError(f"{path}: expected a YAML file, {' '.join(str(error).split())}{by}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping of settings, found {type(values).__name__}{by}")
    if (name := values.pop("extends", None)) is None:
        return [(path, values)]
    if not isinstance(name, str):
        raise RecipeError(f"{path}: extends must name one recipe file, found {name!r}")
    beside, ships = path.parent / name, _that_ships(Path(name))
    base = beside if ships is None or beside.exists() else ships
    return [*read_levels(base, (*seen, path)), (path, values)]


def shipped(path: Path) -> Path | None:
    """Return the file that ships with the package for a path in `recipes/` where there is none; None: no such file."""
    return None if path.exists() else _that_ships(path)


def _that_ships(path: Path) -> Path | None:
    file = SHIPPED.joinpath(*path.parts[1:])
    return file if path.parts[:1] == RECIPES.parts and file.is_file() else None


def _recipes_at_hand(path: Path) -> str:
    """Return what to name instead of a recipe that isn't there: the nearest name, or all.

    These are beside it or in `recipes/`; if there are none, they are those that ship with the package.
    """
    folders = dict.fromkeys((path.parent, RECIPES))
    found = {file.name: file for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}
    found = found or {file.name: RECIPES / file.name for file in sorted(SHIPPED.glob("*.yaml"))}
    near = difflib.get_close_matches(path.with_suffix(".yaml").name, found, 1, 0.6)
    if near:
        return f"; did you mean {found[near[0]]}?"
    names = ", ".join(str(found[name]) for name in sorted(found)[:20])
    return f"; recipes at hand are {names}" if names else ""


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `over`, recursively by section; an empty mapping in `over` replaces what is there."""
    merged = dict(base)
    for key, value in over.items():
        both = value and isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}


def _parse(text: str, override: str) -> Any:
    """The value of an override. It has no comments: `photos #1`, which YAML would cut, stays whole."""
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise RecipeError(f"override {override[:200]!r}: the value is not valid YAML: {error}") from error
    if (glued := next(_glued(value), None)) is not None:
        spaced = glued.replace(":", ": ", 1)
        raise RecipeError(f"override {override[:200]!r}: write '{spaced}' with a space, and the override in quotes")
    return text.strip() if "#" in text and _ends_in_comment(text.rstrip()) else value


def _glued(value: Any) -> Iterator[str]:
    """Keys as of `{face:0.3}`, which YAML reads as the key `face:0.3` without a value."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if inner is None and isinstance(key, str) and ":" in key:
            yield key
        yield from _glued(inner)


def _ends_in_comment(text: str) -> bool:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return node is None or node.end_mark.index < len(text)


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"override {override!r}: {key} is the value {inner!r}, not a section")
        values = inner
    values.update(merge(values, {keys[-1]: value}))


def _with_lists(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with `face, hand` or a single value as a list, for settings that take lists of plain values."""
    listed = dict(values)
    for name, value in values.items():
        field = kind.model_fields.get(name)
        inner = next(_models(field.annotation), None) if field is not None else None
        if field is None or value is None:
            continue
        if isinstance(value, dict) and inner is not None and get_origin(field.annotation) not in (dict, Mapping):
            listed[name] = _with_lists(inner, value)
        elif not isinstance(value, dict | list | tuple):
            kinds = list(_alternatives(field.annotation))
            lists = [one for one in kinds if get_origin(one) in (list, tuple) and _PLAIN.issuperset(_elements(one))]
            if isinstance(value, str) and "," in value and lists and not {str, Path, Any} & set(kinds):
                listed[name] = [part.strip() for part in value.split(",")]
            elif lists and (not _PLAIN & set(kinds) or (isinstance(value, str) and _names_none(value, field, lists))):
                listed[name] = [value]
    return listed


_PLAIN = frozenset({str, int, float, bool, Path, Literal})


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union; others as they are, and `Literal` for each one's own."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for one in arguments:
            yield from _alternatives(one)
    elif origin is Annotated:
        yield from _alternatives(arguments[0])
    else:
        yield Literal if origin is Literal else annotation


def _elements(annotation: Any) -> set[Any]:
    """The types of a list's elements."""
    return {one for argument in get_args(annotation) if argument is not Ellipsis for one in _alternatives(argument)}


def _names_none(value: str, field: FieldInfo, lists: list[Any]) -> bool:
    """Whether a text is an element of a list of texts rather than one of the names beside it, or nearly one of them."""
    names = [name for one in get_args(field.annotation) if get_origin(one) is Literal for name in get_args(one)]
    texts = any(str in _elements(one) for one in lists)
    return bool(names) and texts and not difflib.get_close_matches(value, names, 1, 0.75)


def _problems(kind: type[BaseModel], error: ValidationError) -> Iterator[Any]:
    """Yield one problem for each place.

    Pydantic names a problem for each type of a union, and adds "too short" to a list whose items are invalid.
    """
    found = list(_of_unions(kind, error.errors()))
    for problem in found:
        place = problem["loc"]
        inside = any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found)
        if not (problem["type"] == "too_short" and inside):
            yield problem


def _of_unions(kind: type[BaseModel], problems: list[Any]) -> Iterator[Any]:
    """Yield the problems, those of one union as one: the bound that is broken, else which types it has."""
    told = set()
    for problem in problems:
        end, union = _union(kind, problem["loc"])
        setting = problem["loc"][:end]
        if union is None or len(problem["loc"]) == end:
            yield problem
        elif setting not in told:
            told.add(setting)
            own = [one for one in problems if one["loc"][:end] == setting]
            bound = next((one for one in own if {"ge", "gt", "le", "lt"} & set(one.get("ctx", ()))), None)
            whole = next((one for one in own if len(one["loc"]) == end + 1), problem)["input"]
            yield (bound or {"type": "union", "msg": f"expected {type_in_words(union)}", "input": whole}) | {
                "loc": setting
            }


def _union(kind: type[BaseModel], place: tuple[Any, ...]) -> tuple[int, Any]:
    """The length of the name of the setting at a place, and its type if that is a union of plain types; else None."""
    end, union = 0, None
    for at, part in enumerate(place, 1):
        if (field := kind.model_fields.get(part)) is not None:
            inner = next(_models(field.annotation), None)
            several = len({*_alternatives(field.annotation)} - {type(None)}) > 1
            end, union, kind = at, field.annotation if several and inner is None else None, inner or kind
    return end, union


def _explain(kind: type[BaseModel], origin: str, places: Mapping[str, str], problem: Any) -> str:
    """Return one line for one pydantic error: the setting, the rule and the value found."""
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    origin = next((places[one] for cut in range(len(path)) if (one := name.rsplit(".", cut)[0]) in places), origin)
    if problem["type"] == "extra_forbidden":
        return f"{origin}: unknown setting {name!r}; {_suggestion(kind, path)}"
    if problem["type"] == "missing":
        typed = f": give it in the recipe, or as {name}=VALUE" if name in setting_names(kind) else ""
        return f"{origin}: the setting {name!r} is missing{typed}"
    own = problem["type"] == "value_error"  # raised by our validators; pydantic prefixes its own text
    message = str(problem["ctx"]["error"]) if own else problem["msg"][:1].lower() + problem["msg"][1:]
    if own and name not in places:
        origin = _place_named(message, places) or origin
    return f"{origin}: {name}: {message}, found {_shown(problem['input'])}" if name else f"{origin}: {message}"


def _shown(found: Any) -> str:
    """A value for a message, without the user and password of an address."""
    return re.sub(r"://[^/\s'\"]*@", "://...@", repr(found))


def _place_named(message: str, places: Mapping[str, str]) -> str | None:
    """The command line, if a rule between settings names one that was given there; else None."""
    typed = [name for name, place in places.items() if place == COMMAND_LINE]
    return COMMAND_LINE if any(_names(message, name) for name in typed) else None


def _names(message: str, name: str) -> bool:
    """Whether a message names a setting, or the table that it is in; a name without a dot is first or before a `=`."""
    if "." not in name:
        return re.search(rf"(?<![\w.]){re.escape(name)}=|^{re.escape(name)}\b", message) is not None
    tables = [name.rsplit(".", cut)[0] for cut in range(name.count("."))]
    return any(re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", message) for one in tables)


# What other trainers call a setting of a training run.
_EPOCHS = ("epochs", "num_epochs", "max_epochs", "max_train_epochs", "num_train_epochs")
_ELSEWHERE = {
    "lr": "learning_rate",
    "max_train_steps": "steps",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate",
    "network_dim": "lora.rank",
    "network_alpha": "lora.alpha",
    "mixed_precision": "precision",
}


def _suggestion(kind: type[BaseModel], path: list[str]) -> str:
    """Say which setting may be meant: one of the same section, or one of that name in another section."""
    section, last = path[:-1], _ELSEWHERE.get(path[-1], path[-1])
    known = {".".join([*section, name]): name for name in _fields(kind, section)}
    if path[-1] in _EPOCHS and {"steps", "accumulate"} <= set(known):
        return "there are no epochs: steps = pictures x repeats x epochs / (batch_size x accumulate x processes)"
    exact = [name for name in setting_names(kind) if last in (name, name.rpartition(".")[2])][:3]
    near = [name for name in known if known[name] in difflib.get_close_matches(last, known.values(), 1, 0.65)]
    typo = bool(difflib.get_close_matches(last, known.values(), 1, 0.9))
    near = (near or exact) if section or typo else (exact or near)
    near = near or difflib.get_close_matches(".".join(path), setting_names(kind), 1, 0.75)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"known are {', '.join(known)}"


def setting_names(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted names that overrides may use; the entries of a table count as part of it."""
    names = []
    for name, field in kind.model_fields.items():
        inner = [one for one in _alternatives(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
        names += setting_names(inner[0], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return names


def _fields(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Return the setting names of the section at `path`; list indices and union tags in it are skipped."""
    for part in path:
        field = kind.model_fields.get(part)
        if field is not None:
            kind = next(_models(field.annotation), kind)
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings classes inside a type such as `Section | None` or `list[Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values as {dotted name: value}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines in quotes, so that an empty line ends a recipe."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_Dumper.add_representer(str, _text)
