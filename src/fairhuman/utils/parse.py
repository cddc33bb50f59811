"""Reading YAML and JSON that others wrote, within limits.

A small file can stand for a huge value: YAML's aliases repeat a part as often as they are named, and so do aliases of
aliases. Deep nesting ends in a RecursionError, a long integer in a slow conversion. All of that is a ValueError here,
as any other syntax error is.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS = 2**20  # of a YAML text; settings are written by people
MAX_NODES = 20_000  # values in a YAML text, with each part counted as often as aliases repeat it
MAX_DEPTH = 100  # mappings and lists inside each other
MAX_DIGITS = 300  # of an integer; a float has at most 309 before the point
_LONG = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")


class ParseError(ValueError):
    """A text can't be read: it breaks the syntax or a limit."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file as `parse_yaml` does, and no more of it than the limit.

    Raises:
        OSError: the file can't be read.
        ParseError: as `parse_yaml`, or the file isn't UTF-8.
    """
    with path.open(encoding="utf-8") as file:
        try:
            return parse_yaml(file.read(MAX_CHARACTERS + 1))
        except UnicodeDecodeError as error:
            raise ParseError(str(error)) from error


def parse_yaml(text: str) -> Any:
    """Read YAML with plain values: texts, numbers, booleans, null, lists and mappings. A date is a text.

    Raises:
        ParseError: the text isn't YAML, gives a key twice or exceeds a limit of this module; one line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ParseError(f"must have at most {MAX_CHARACTERS} characters, found more")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (AttributeError, IndexError, KeyError) as error:  # a stated type, such as !!int, of a text that has another
        raise ParseError(f"a value is not of the type that its tag states ({error})") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise ParseError(" ".join(str(error).split()) or type(error).__name__) from error


def as_typed(value: object) -> str:
    """Return a plain value as it is typed on the command line: `null`, `true`, `[face,hand]`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(as_typed, value))}]" if isinstance(value, list | tuple) else str(value)


def parse_json(text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read JSON. `object_hook` replaces each object as soon as it is read, as that of `json.loads`.

    Raises:
        ParseError: the text isn't JSON, is nested deeper than `MAX_DEPTH`, or has an integer of more than `MAX_DIGITS`
            digits.
    """
    try:
        plain = text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
        value = json.loads(plain, parse_int=_int if _LONG.search(plain) else None, object_hook=object_hook)
    except RecursionError as error:
        raise ParseError(_too_deep()) from error
    except ValueError as error:
        raise ParseError(str(error)) from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return value
    raise ParseError(_too_deep())


def _inside(value: object) -> Iterator[object]:
    """The lists and mappings in a list or mapping."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, dict | list):
                yield inner


def _int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ParseError(f"an integer must have at most {MAX_DIGITS} digits, found {len(digits)}")
    return int(digits)


def _too_deep() -> str:
    return f"must be nested at most {MAX_DEPTH} levels deep"


class _Loader(yaml.SafeLoader):
    """SafeLoader within the limits of this module, which are checked before any value is made."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node, unless it is too deep or one too many."""
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        self._check_count(self._nodes)
        if self._depth > MAX_DEPTH:
            raise ParseError(_too_deep())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        """The only document of the text, once its size is checked."""
        node = super().get_single_node()
        if node is not None:
            self._size(node, {})
        return node

    def _size(self, node: yaml.Node, known: dict[int, int | None]) -> int:
        """Number of values of a node. `known` has those of earlier nodes; None: unfinished, so it holds itself."""
        if id(node) in known:
            size = known[id(node)]
            if size is None:
                raise ParseError("a part must not contain itself")
            return size
        known[id(node)] = None
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
            total = 1
        else:
            self._check_keys(node)
            inner = (
                node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
            )
            total = 1 + sum(self._size(each, known) for each in inner)
        self._check_count(total)
        known[id(node)] = total
        return total

    def _check_count(self, values: int) -> None:
        if values > MAX_NODES:
            raise ParseError(f"must hold at most {MAX_NODES} values, with each part counted as often as it is repeated")

    def _check_keys(self, node: yaml.Node) -> None:
        """Refuse a key that is given twice, of which PyYAML takes the last."""
        lines: dict[tuple[str, str], int] = {}
        keys = [pair[0] for pair in node.value] if isinstance(node, yaml.MappingNode) else []
        for key in (one for one in keys if isinstance(one, yaml.ScalarNode)):
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"twice in line {line}" if lines[name] == line else f"in lines {lines[name]} and {line}"
                raise ParseError(f"the key {key.value!r} is given {where}: leave one out")
            lines[name] = line

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if "\0" in node.value:
            raise ParseError("a text must not contain the character U+0000")
        if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            raise ParseError(f"an integer must have at most {MAX_DIGITS} digits, found {len(node.value)}")


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def escape_control(text: str, keep: str = "") -> str:
    """Escape control characters but those in `keep`: a file's name or content may hold terminal escape sequences."""
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )
