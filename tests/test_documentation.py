"""The documentation builds without a warning, and what it generates is complete."""

import ast
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import conflicts
import pytest
from pydantic import ValidationError

import fairhuman
from fairhuman.cli.settings import CLASSES
from fairhuman.config import Settings
from fairhuman.utils.settings_reference import settings_of
from helpers.places import ROOT

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
    ours = [kind for kind in found if kind.__module__.startswith("fairhuman.")]
    written = ("RefineManifest",)  # by the program, into the folder that it works on
    return [kind for kind in ours if not kind.__module__.endswith((".app", ".api")) and kind.__name__ not in written]


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
    assert {problem["type"] for problem in cause.errors()} == {"value_error"}, error  # else it breaks another rule
    errors = [problem["ctx"]["error"] for problem in cause.errors()]
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


def classes_in_the_reference() -> list[type[Settings]]:
    """The classes that the pages of settings list."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "settings").glob("*.md"))
    places = [mark.partition(" }}")[0].partition(":") for mark in pages.split("{{ settings ")[1:]]
    return [getattr(import_module(f"fairhuman.{module}"), name) for module, _, name in places]


def test_every_setting_in_the_reference_has_a_description() -> None:
    bare = [
        f"{kind.__name__}: {entry.name}"
        for kind in classes_in_the_reference()
        for entry in settings_of(kind)
        if not entry.description
    ]
    assert not bare


def test_pages_of_settings_name_the_command_that_prints_them() -> None:
    """In the repository a page has marks in the place of its lists."""
    for page in (ROOT / "docs" / "settings").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        shown = [name for name, place in CLASSES.items() if f"{{{{ settings {place} }}}}" in text]
        assert [name for name in shown if not re.search(rf"`(fairhuman settings )?{name}`", text)] == []
        assert "{{" not in text or "`make docs`" in text


def test_every_class_of_settings_is_in_the_reference() -> None:
    shown: set[type] = set()
    for kind in classes_in_the_reference():
        assert len(list(settings_of(kind))) >= len(kind.model_fields)
        shown |= {kind, *kind.__mro__, *inner(kind)}
    missing = {kind.__qualname__ for kind in settings_classes()} - {kind.__qualname__ for kind in shown}
    assert not missing


def inner(kind: type) -> set[type]:
    """Classes of the sections of a class, at any depth."""
    from fairhuman.config import _models

    direct = {one for field in kind.model_fields.values() for one in _models(field.annotation)}  # type: ignore[attr-defined]
    return direct.union(*(inner(one) for one in direct), *(one.__mro__ for one in direct))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Offline too: nothing is fetched by the build, and no page asks another host for a script, a style or a font."""
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


def example(heading: str) -> dict[str, Any]:
    """Names that the code below a heading of docs/extending.md defines."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = page.partition(f"\n## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    return names


def test_the_example_of_a_strategy() -> None:
    """Each objective contributes a gradient of length 1, whatever its loss is multiplied by."""
    import torch

    from fairhuman.fairness import FairBackward

    x = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    strategy = example("A strategy")["EqualLength"]()
    fair = FairBackward([x], strategy)
    step = fair([100.0 * x[0], 0.01 * x[1], None])
    assert step is not None
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([1.0, 1.0, 0.0]) / 2**0.5)
    gram = torch.diag(torch.tensor([4.0, 9.0], dtype=torch.float64))
    true = strategy.weights(gram)
    guessed = strategy.weights(25.0 * gram)  # five times too small
    norm = sum(w**2 * m for w, m in zip(guessed, gram.diagonal().tolist(), strict=True)) ** 0.5
    factor = strategy.natural_factor(guessed, norm)
    assert [factor * w for w in guessed] == pytest.approx(true)


def test_the_example_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from fairhuman.data import sources
    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.errors import DataError

    names = example("A source")
    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32), (8, 8, 8)).save(tmp_path / "b.png")
    table = "file,text,face\na.png,a man,1 2 10 12\nb.png,a woman,\n,nobody,\na.png,short\nb.png,wrong,1 2 x 4\n"
    (tmp_path / "pairs.csv").write_text(table, encoding="utf-8-sig")
    found = sources.SourceFormat("pairs.csv", names["is_pairs"], names["pairs_rows"], "file_name")
    monkeypatch.setattr(sources, "SOURCES", {"pairs": found, **sources.SOURCES})
    assert sources.source_kind(tmp_path) == "pairs"
    report = LoadReport()
    settings = sources.SourceSettings(max_reject_share=1.0)
    records = sources.read_source(tmp_path, ["face"], settings, report)
    assert [record.caption for record in records] == ["a man", "a woman", "wrong"]
    assert [record.annotated("face") for record in records] == [True, False, False]
    lost = [(note.file, note.line, note.reason) for note in report.notes if note.action in ("skipped", "dropped")]
    assert lost == [
        ("pairs.csv", 4, "no file_name"),
        ("pairs.csv", 5, "line has not as many cells as the head line"),
        ("pairs.csv", 6, "a box holds something that is not a number"),
    ]
    for content, message in (
        (table.encode("utf-16"), "must be UTF-8"),
        (
            b"picture,text\na.png,a man\n",
            "no record has the required column 'file_name'; found the columns caption, pict",
        ),
    ):
        (tmp_path / "pairs.csv").write_bytes(content)
        with pytest.raises(DataError, match=message):
            sources.read_source(tmp_path, [], settings, LoadReport())


def test_the_example_of_a_metric(tmp_path: Path) -> None:
    import numpy as np
    from accelerate import PartialState
    from PIL import Image

    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.data.pipeline.cache import DETECTION_ROWS, CachedRows
    from fairhuman.evaluate.pictures import read_pictures
    from fairhuman.evaluate.results import EvaluationResults
    from fairhuman.evaluate.settings import EvaluateSettings
    from fairhuman.evaluate.tools import EvaluationTools

    names = example("A metric")
    generator = np.random.default_rng(0)
    methods = {}
    for method, saturation in (("grey", 0.0), ("colour", 1.0)):
        (tmp_path / method).mkdir()
        for number in range(6):
            pixels = generator.integers(0, 256, (40, 30, 3)).astype(np.float64)
            grey = pixels.mean(axis=2, keepdims=True)
            mixed = (grey + saturation * (pixels - grey)).round().astype(np.uint8)
            Image.fromarray(mixed).resize((256, 256), Image.Resampling.NEAREST).save(
                tmp_path / method / f"{number}.png"
            )
        prompts = [f"prompt {number}" for number in range(6)]
        checked: CachedRows[str] = CachedRows(tmp_path / "checked", DETECTION_ROWS)
        methods[method] = read_pictures(tmp_path / method, prompts, checked, LoadReport())
    tools = EvaluationTools(EvaluateSettings(), tmp_path / "cache", PartialState(), lambda *_: None)
    found = EvaluationResults()
    names["measure_colourfulness"](methods, None, "grey", tools, found)
    grey, colour = (result.measured.value for result in found.results)
    assert grey == pytest.approx(0.0, abs=1e-3)
    pixels_hwc = np.asarray(methods["colour"][0].image(), np.float64)
    rg, yb = pixels_hwc[..., 0] - pixels_hwc[..., 1], pixels_hwc[..., :2].mean(axis=2) - pixels_hwc[..., 2]
    first = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert found.columns["colour"]["colourfulness"][0] == pytest.approx(first, rel=1e-4)
    assert colour > 50.0
    assert [one.difference.measured.value for one in found.contrasts] == [pytest.approx(colour - grey)]


def test_the_example_of_a_detector() -> None:
    import numpy as np

    kind = example("A detector")["MiddleFace"]
    with kind(["face"]) as detector:
        (found,) = detector.detect(np.zeros((40, 20, 3), np.uint8))
    assert (found.box.x0, found.box.y0, found.box.x1, found.box.y1, found.score) == (5.0, 10.0, 15.0, 30.0, 1.0)
    with pytest.raises(ValueError, match="middle-face finds faces alone, not hand"):
        kind(["hand"])


def test_the_example_of_a_package_names_what_the_examples_define() -> None:
    import tomllib

    from fairhuman.data.sources import SourceFormat

    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    last = page.partition("\n## In a package of your own\n")[2]
    points = tomllib.loads(textwrap.dedent(last.partition("    ```toml\n")[2].partition("    ```")[0]))["project"][
        "entry-points"
    ]
    examples = {name: example(f"A {name}") for name in ("strategy", "source", "metric", "detector")}
    exec(textwrap.dedent(last.partition("    ```text\n")[2].partition("    ```")[0]), examples["source"])
    assert isinstance(examples["source"]["PAIRS"], SourceFormat)
    groups = {"strategy": "strategies"}
    for name, defined in examples.items():
        (point,) = points[f"fairhuman.{groups.get(name, name + 's')}"].values()
        assert point.partition(":")[2] in defined


def test_the_readme_stays_under_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_pages_list_all_strategies_once() -> None:
    """The README in the order of the table, and a row each in the method."""
    from fairhuman.fairness import STRATEGIES

    assert f"Strategies: `{' '.join(STRATEGIES)}`;" in (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    table = page.partition("\n## The strategies\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`[ ,]", table, flags=re.MULTILINE)[1:] == list(STRATEGIES)


def test_extending_names_all_groups_of_entry_points() -> None:
    from fairhuman.utils import plugins

    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for group in (plugins.STRATEGIES, plugins.SOURCES, plugins.METRICS, plugins.DETECTORS):
        assert f"| `{group}` |" in page


EXAMPLES = ("fairness/equal_length.py", "data/sources/pairs.py", "evaluate/metrics/colourfulness.py")
"""Files that docs/extending.md writes."""
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_are_there(page: Path) -> None:
    """Names of modules too: `train/step.py` is below src/fairhuman. Those of examples and placeholders are none."""
    if page.name == "CHANGELOG.md":
        return  # it speaks of the past
    text = page.read_text(encoding="utf-8")
    places = (ROOT, ROOT / "src" / "fairhuman", page.parent)
    named = re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|md|ya?ml|json|sbatch))`", text)
    elsewhere = ("runs/", "people/", "models/hand", "images/", *EXAMPLES)
    ours = [name for name in named if not name.startswith(elsewhere)]
    missing = [name for name in ours if not any((place / name).exists() for place in places)]
    assert not missing


def test_links_of_pages_lead_somewhere() -> None:
    """Of pages in folders, too; anchors are checked where the site is built."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
