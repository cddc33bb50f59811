"""YAML and JSON of others: what they hold, and that no small file stands for a huge value."""

import time
from pathlib import Path

import pytest

from fairhuman.utils.parse import MAX_CHARACTERS, MAX_DEPTH, ParseError, parse_json, parse_yaml, read_yaml

ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)
MAPPINGS = "\n".join(
    ["a0: &a0 {x: 1, y: 2}"] + [f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 20)]
)
MERGES = "\n".join(
    ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "at most 20000 values"),
        (MAPPINGS, "at most 20000 values"),
        (MERGES, "at most 20000 values"),
        ("[" + "1," * 500_000 + "]", "at most 20000 values"),
        ("a: &a [*a]", "must not contain itself"),
        ("a: &a {b: *a}", "must not contain itself"),
        ("a: &a {<<: *a}", "must not contain itself"),
        ("[" * 50_000, "at most 100 levels"),
        ("{a: " * 50_000, "at most 100 levels"),
        ("- " * 50_000, "at most 100 levels"),
        ("9" * 5000, "at most 300 digits"),
        ("0x" + "f" * 5000, "at most 300 digits"),
        ('"a\\0b"', "U+0000"),
        ("a\0b", "special characters are not allowed"),
        ("x" * (MAX_CHARACTERS + 1), "at most 1048576 characters"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("{[1]: 2}", "unhashable"),
        ("!!int x", "invalid literal"),
        ("!!timestamp 2020-13-45", "month"),
        ("!!timestamp foo", "not of the type that its tag states"),
        ("!!int ''", "not of the type that its tag states"),
        ("!!bool foo", "not of the type that its tag states"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: [1", "expected"),
    ],
)
def test_yaml_that_is_refused_is_one_line_at_once(text: str, said: str) -> None:
    start = time.monotonic()
    with pytest.raises(ParseError, match=said.replace("+", r"\+")) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 5


def test_yaml_of_settings_is_read_as_before() -> None:
    text = (
        "a: &a {n: 1, f: 1.5, e: 1e-4, t: text, y: yes, none: null, list: [1, 2]}\nb: {<<: *a, n: 2}\nout: 2026-11-28\n"
    )
    found = parse_yaml(text)
    assert found["a"] == {"n": 1, "f": 1.5, "e": "1e-4", "t": "text", "y": True, "none": None, "list": [1, 2]}
    assert found["b"] == {**found["a"], "n": 2}
    assert found["out"] == "2026-11-28", "a date is a text"
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested at most"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested at most"),
        ('{"a": ' * 101 + "1" + "}" * 101, "nested at most"),
        ("9" * 5000, "at most 300 digits"),
        ('{"a": -' + "9" * 301 + "}", "at most 300 digits"),
        ("{", "Expecting"),
        (b"\xff\xfe\xfd", "decode"),
    ],
)
def test_json_that_is_refused_is_one_line(text: str | bytes, said: str) -> None:
    with pytest.raises(ParseError, match=said) as error:
        parse_json(text)
    assert "\n" not in str(error.value)


def test_json_is_read_as_before() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(f'{{"a": [1, 2.5, null, "{"9" * 400}"], "b": {"9" * 300}}}') == {
        "a": [1, 2.5, None, "9" * 400],
        "b": int("9" * 300),
    }
    assert parse_json(deep) is not None
    assert parse_json("\ufeff1".encode()) == parse_json("1".encode("utf-16")) == 1


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ParseError, match="at most 1048576 characters"):
        read_yaml(Path("/dev/zero"))
