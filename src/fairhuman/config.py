"""Typed settings: load, override, validate, save.

A recipe is a YAML file that is validated against a settings class. `extends: OTHER.yaml` starts from another file in
the same folder. The command line overrides any setting with `key=value` or `section.key=value`.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fairhuman.errors import RecipeError
from fairhuman.utils.files import write_text


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


def load(
    kind: type[SettingsT], path: Path, overrides: Sequence[str] = (), values: dict[str, Any] | None = None
) -> SettingsT:
    """Read a recipe file, replace its settings by `values`, and apply overrides.

    Raises:
        RecipeError: names the file or setting, the rule, the value found and, for an unknown name, the closest match.
    """
    return build(kind, merge(_read(path), values or {}), overrides, str(path))


def build(
    kind: type[SettingsT], values: dict[str, Any], overrides: Sequence[str] = (), origin: str = "recipe"
) -> SettingsT:
    """Apply overrides to `values` and validate them as a `kind`. `origin` names the source in error messages."""
    values = _copy(values)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            hint = "; where a command's recipe is optional, it is given as --recipe" if key.endswith(".yaml") else ""
            raise RecipeError(f"override {override!r}: expected key=value{hint}")
        _set(values, key.split("."), _parse(text, override), override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(kind, origin, problem) for problem in _problems(error))) from error


def save(settings: BaseModel, path: Path) -> None:
    """Write the resolved settings atomically; `load` reads them back."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def differences(a: BaseModel, b: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ between `a` and `b` as {dotted name: (value in a, value in b)}."""
    left, right = flatten(a.model_dump(mode="json")), flatten(b.model_dump(mode="json"))
    names = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise RecipeError(f"{path}: extends itself")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: expected a YAML file, {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    base = values.pop("extends", None)
    if base is None:
        return values
    return merge(_read(path.parent / str(base), (*seen, path.resolve())), values)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `over`, recursively by section."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}


def _parse(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: the value is not valid YAML") from error


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"override {override!r}: {key} is the value {inner!r}, not a section")
        values = inner
    values[keys[-1]] = value


def _problems(error: ValidationError) -> Iterator[Any]:
    """Yield the problems, without the "too short" that pydantic adds to a list whose items are invalid."""
    found = error.errors()
    for problem in found:
        place = problem["loc"]
        inside = any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found)
        if not (problem["type"] == "too_short" and inside):
            yield problem


def _explain(kind: type[BaseModel], origin: str, problem: Any) -> str:
    """Return one line for one pydantic error: the setting, the rule and the value found."""
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{origin}: unknown setting {name!r}; {hint}"
    if problem["type"] == "missing":
        return f"{origin}: the setting {name!r} is missing"
    own = problem["type"] == "value_error"  # raised by our validators; pydantic prefixes its own text
    message = str(problem["ctx"]["error"]) if own else problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{origin}: {name}: {message}, found {problem['input']!r}" if name else f"{origin}: {message}"


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
            flat[prefix + key] = value
    return flat
