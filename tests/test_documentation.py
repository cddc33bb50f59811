"""The documentation builds without a warning, and what it generates is complete."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
import textwrap
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import fairhuman
from fairhuman.config import Settings
from fairhuman.utils.settings_reference import settings_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

import conflicts  # noqa: E402 - lies beside the pages that it makes

Place = tuple[str, int]


def settings_classes() -> list[type[Settings]]:
    """All classes of settings that a recipe can hold; bodies of web requests are none."""
    for module in pkgutil.walk_packages(fairhuman.__path__, "fairhuman."):
        if module.name.endswith((".settings", ".recipe", ".study.study", ".power", ".rows", ".filters")):
            import_module(module.name)
    found: list[type[Settings]] = []
    waiting = list(Settings.__subclasses__())
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return [kind for kind in found if not kind.__module__.endswith((".app", ".api"))]


def rules() -> dict[Place, str]:
    """Every `raise` of a validator: file and line to the validator's name."""
    found: dict[Place, str] = {}
    for kind in settings_classes():
        decorators = kind.__pydantic_decorators__
        for one in [*decorators.model_validators.values(), *decorators.field_validators.values()]:
            function: Any = inspect.unwrap(getattr(one.func, "__func__", one.func))
            lines, start = inspect.getsourcelines(function)
            for node in ast.walk(ast.parse(textwrap.dedent("".join(lines)))):
                if isinstance(node, ast.Raise):
                    found[function.__code__.co_filename, start + node.lineno - 1] = function.__qualname__
    return found


def raised(error: BaseException) -> set[Place]:
    """File and line of every frame of the rules that an example broke."""
    cause = error.__cause__
    assert isinstance(cause, ValidationError), error
    errors = [problem["ctx"]["error"] for problem in cause.errors() if "error" in problem.get("ctx", {})]
    return {(frame.filename, frame.lineno or 0) for one in errors for frame in traceback.extract_tb(one.__traceback__)}


def test_every_rule_between_settings_has_an_example_that_breaks_it() -> None:
    wanted = rules()
    assert len(wanted) > 30
    reached: set[Place] = set()
    for command in conflicts.COMMANDS:
        for example in command.examples:
            reached |= raised(command.refusal(example))
    assert not {f"{Path(file).name}:{line} {wanted[file, line]}" for file, line in wanted.keys() - reached}


@pytest.mark.parametrize("command", conflicts.COMMANDS, ids=lambda command: command.place)
def test_what_the_examples_start_from_is_valid(command: Any) -> None:
    from fairhuman import config

    config.build(command.kind(), {}, command.base)


def test_every_class_of_settings_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "settings").glob("*.md"))
    named = [mark.partition(" }}")[0] for mark in pages.split("{{ settings ")[1:]]
    shown: set[type] = set()
    for place in named:
        module, _, name = place.partition(":")
        kind = getattr(import_module(f"fairhuman.{module}"), name)
        assert len(list(settings_of(kind))) >= len(kind.model_fields)
        shown |= {kind, *kind.__mro__, *inner(kind)}
    assert not {kind.__qualname__ for kind in settings_classes()} - {kind.__qualname__ for kind in shown}


def inner(kind: type) -> set[type]:
    """Classes of the sections of a class, at any depth."""
    from fairhuman.config import _models

    direct = {one for field in kind.model_fields.values() for one in _models(field.annotation)}  # type: ignore[attr-defined]
    return direct.union(*(inner(one) for one in direct), *(one.__mro__ for one in direct))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Offline too: nothing is fetched by the build, and no page asks another host for a script, a style or a font."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text, page
        assert "{{ " not in text, page
        for tag in ("<script", "<link", "<img"):
            fetched = [part.partition(">")[0] for part in text.split(tag)[1:]]
            outside = [one for one in fetched if "://" in one and 'rel="canonical"' not in one]
            assert not outside, (page, outside)
