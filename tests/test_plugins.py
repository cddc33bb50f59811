"""Parts of users' own packages: the example package, installed, and packages that are broken."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SOURCES, SourceSettings, read_source, source_format, source_kind
from fairhuman.detect.settings import DetectSettings, detector_names, open_detectors
from fairhuman.errors import DataError, PluginError, RecipeError
from fairhuman.evaluate.run import GROUPS, EvaluationInputs, evaluate, measure_named
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.fairness import STRATEGIES, FairBackward, strategy_named
from fairhuman.train.fairness import build_strategy
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils import plugins
from helpers.figures import write_figures

ROOT = Path(__file__).parents[1]
Typed = Callable[..., tuple[int, str, str]]
RECIPE = {"data": "people", "out": "run", "steps": 1}
OWN = sorted(one.name for one in entry_points(group=plugins.STRATEGIES) if one.value.startswith("fairhuman."))
MODULES = ("fairhuman_example", "broken_parts")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package is installed into, by pip, as a user's would be."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = folder / "source"
    subprocess.run(["cp", "-r", ROOT / "examples" / "plugin", source], check=True)  # a build leaves files there
    subprocess.run([*pip, "--target", folder / "packages", source], check=True)
    return folder / "packages"


@pytest.fixture
def forget() -> Iterator[None]:
    """Of an earlier test, before and after."""

    def clear() -> None:
        plugins.load_plugin.cache_clear()
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
            del sys.modules[name]

    clear()
    yield
    clear()


@pytest.fixture
def installed(site: Path, forget: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def install(tmp_path: Path, forget: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`install("strategies", "name = module:Class", code)` makes a package whose module `broken_parts` is `code`."""

    def add(group: str, point: str, code: str = "", package: str = "broken") -> None:
        folder = tmp_path / package
        info = folder / f"{package}-2.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.0\n")
        (info / "entry_points.txt").write_text(f"[fairhuman.{group}]\n{point}\n")
        (folder / "broken_parts.py").write_text(code)
        monkeypatch.syspath_prepend(folder)

    return add


def test_a_strategy_of_another_package_trains(installed: None) -> None:
    recipe = config.build(TrainRecipe, RECIPE, ["strategy=softmax", "fairness.options.temperature=0.5"])
    assert "fairhuman_example" not in sys.modules, "a recipe is checked by the name alone"
    assert not recipe.needs_gram
    assert not recipe.amortised
    strategy = build_strategy(recipe, torch.device("cpu"))
    assert type(strategy) is strategy_named("softmax")
    model = torch.nn.Linear(2, 3, bias=False)
    losses = model(torch.ones(2)).square()
    step = FairBackward(model.parameters(), strategy)(list(losses))
    assert step is not None
    torch.testing.assert_close(step.weights, 3 * (losses.detach().double() / 0.5).softmax(0))


def test_a_run_by_a_strategy_of_another_package_is_resumed_from_its_recipe(installed: None, tmp_path: Path) -> None:
    recipe = config.build(TrainRecipe, RECIPE, ["strategy=softmax", "fairness.options.temperature=0.5"])
    config.save(recipe, tmp_path / "recipe.yaml")
    again = config.load(TrainRecipe, tmp_path / "recipe.yaml")
    assert again == recipe
    assert config.differences(again, recipe) == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["strategy=softmux"],
            f"strategy: did you mean 'softmax'? It must be one of {', '.join([*STRATEGIES, 'softmax', *OWN])}, or a "
            "strategy of an installed package (see fairhuman doctor), found 'softmux'",
        ),
        (["fairness.options.temperature=1"], "fairness.options are of strategies that other packages add, found"),
    ],
)
def test_what_a_recipe_may_not_say(installed: None, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        config.build(TrainRecipe, RECIPE, overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("temprature=1", "the strategy 'softmax' has no option 'temprature'; did you mean 'temperature'?"),
        ("temperature=0", "of the strategy 'softmax': temperature must be > 0, got 0"),
    ],
)
def test_options_that_do_not_fit(installed: None, option: str, message: str) -> None:
    recipe = config.build(TrainRecipe, RECIPE, ["strategy=softmax", f"fairness.options.{option}"])
    with pytest.raises(RecipeError) as error:
        build_strategy(recipe, torch.device("cpu"))
    assert str(error.value).startswith("fairness.options")
    assert str(error.value).endswith(message)


def test_a_strategy_without_options(install: Callable[..., None]) -> None:
    code = "from fairhuman.fairness import LinearScalarization\nclass Own(LinearScalarization):\n    "
    install("strategies", "own = broken_parts:Own", code + "def __init__(self):\n        super().__init__()\n")
    recipe = config.build(TrainRecipe, RECIPE, ["strategy=own", "fairness.options.power=2"])
    with pytest.raises(RecipeError, match=r"^fairness.options: the strategy 'own' takes no options, found power$"):
        build_strategy(recipe, torch.device("cpu"))


@pytest.mark.parametrize("dry_run", [("--dry-run",), ()])
def test_a_strategy_that_fails_does_so_before_data_and_model_are_loaded(
    install: Callable[..., None], tmp_path: Path, typed: Typed, dry_run: tuple[str, ...]
) -> None:
    install("strategies", "own = broken_parts:Own", "import no_such_package")
    (tmp_path / "recipe.yaml").write_text("steps: 1\ndata: nowhere\nmodel: none/such\nstrategy: own\n")
    code, _, errors = typed("train", tmp_path / "recipe.yaml", f"out={tmp_path / 'run'}", *dry_run)
    assert (code, "the strategy 'own' of broken 2.0 can't be loaded: ModuleNotFoundError" in errors) == (1, True)
    code, _, errors = typed("train", tmp_path / "recipe.yaml", f"out={tmp_path / 'run'}", "strategy=mpd")
    assert (code, "nowhere" in errors) == (1, True), "what comes next"


def test_our_own_strategies_come_first(install: Callable[..., None]) -> None:
    install("strategies", "mpd = broken_parts:Own", "raise AssertionError('it must not be imported')")
    assert strategy_named("mpd") is STRATEGIES["mpd"]
    assert config.build(TrainRecipe, RECIPE, ["strategy=mpd"]).needs_gram


def test_a_strategy_that_balances_gradients(install: Callable[..., None]) -> None:
    install(
        "strategies",
        "own = broken_parts:Own",
        "from fairhuman.fairness import AlphaFair\nclass Own(AlphaFair):\n    pass\n",
    )
    recipe = config.build(TrainRecipe, RECIPE, ["strategy=own", "fairness.options.alpha=3.0"])
    assert recipe.needs_gram
    assert recipe.amortised
    assert build_strategy(recipe, torch.device("cpu")).alpha == 3.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_package", "can't be loaded: ModuleNotFoundError: No module named"),
        ("", "can't be loaded: AttributeError: module 'broken_parts' has no attribute 'Own'"),
        ("Own = 3", "must be a subclass of LossWeighting or GradientBalancing, found 3"),
    ],
)
def test_a_package_that_fails_is_named(install: Callable[..., None], code: str, message: str) -> None:
    install("strategies", "own = broken_parts:Own", code)
    recipe = config.build(TrainRecipe, RECIPE, ["strategy=own"])
    for call in (lambda: recipe.needs_gram, lambda: build_strategy(recipe, torch.device("cpu"))):
        with pytest.raises(PluginError) as error:
            call()
        assert str(error.value).startswith(f"the strategy 'own' of broken 2.0 {message}")
    with pytest.raises((ImportError, TypeError)) as plain:
        strategy_named("own")
    assert str(plain.value).startswith(f"the strategy 'own' of broken 2.0 {message}")


def test_a_name_in_two_packages(install: Callable[..., None]) -> None:
    install("strategies", "own = broken_parts:Own", package="one")
    install("strategies", "own = broken_parts:Own", package="two")
    message = r"the strategy 'own' is in several packages, (one 2\.0 and two|two 2\.0 and one) 2\.0: uninstall"
    with pytest.raises(ValueError, match=message):
        strategy_named("own")
    with pytest.raises(PluginError, match=message):
        plugins.load_plugin(plugins.STRATEGIES, "own")


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ValueError, match=r"^there is no strategy 'mdp'; did you mean 'mpd'\?$"):
        strategy_named("mdp")
    with pytest.raises(ValueError, match=r"^there is no strategy 'zzz'; known are ls, dwa, uw, "):
        strategy_named("zzz")
    with pytest.raises(PluginError, match=r"^no installed package has the metric 'zzz'$"):
        measure_named("zzz")


def people_csv(folder: Path) -> Path:
    write_figures(folder, 3, 64, seed=1)
    lines = list(map(json.loads, (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()))
    quoted = [[json.dumps(row[part]).replace('"', '""') for part in ("faces", "hands")] for row in lines]
    rows = [
        f'{row["file_name"]},a person,"{faces}","{hands}"' for row, (faces, hands) in zip(lines, quoted, strict=True)
    ]
    (folder / "people.csv").write_text("file_name,caption,faces,hands\n" + "\n".join(rows) + "\n")
    return folder


def test_a_source_of_another_package_is_read_where_it_is_named(installed: None, tmp_path: Path) -> None:
    folder = people_csv(tmp_path / "people")
    expected = read_source(folder, ("face", "hand"), SourceSettings(), LoadReport())
    assert source_kind(folder) == "imagefolder", "nobody has named the other one"
    (folder / "metadata.jsonl").unlink()
    found = read_source(folder, ("face", "hand"), SourceSettings(format="csv"), LoadReport())
    assert [record.boxes for record in found] == [record.boxes for record in expected]
    assert [record.location for record in found] == ["people.csv:2", "people.csv:3", "people.csv:4"]
    assert list(SOURCES) == [*SOURCES], "the table is as it was"
    with pytest.raises(RecipeError, match=r"^format: unknown source format 'cvs'; did you mean 'csv'\?$"):
        source_kind(folder, "cvs")


def test_the_lines_of_a_source_of_another_package(installed: None, tmp_path: Path) -> None:
    """A bad line or cell is a finding with its place; a file that isn't text is an error with its name."""
    folder = people_csv(tmp_path / "people")
    table = folder / "people.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    name = lines[1].partition(",")[0]
    bad = ["\ufeff" + lines[0], f"{name},a person", *lines[1:], f"{name},a person,[[1],[]"]
    table.write_text("\n".join(bad), encoding="utf-8")
    report = LoadReport()
    settings = SourceSettings(format="csv", max_reject_share=1.0)
    records = read_source(folder, ("face", "hand"), settings, report)
    found = [(note.file, note.line, note.reason) for note in report.notes if note.action != "warned"]
    assert found == [
        ("people.csv", 2, "line has not as many cells as the head line"),
        ("people.csv", 6, "not a list of boxes, taken as not annotated"),
    ]
    assert [record.annotated("face") for record in records] == [True, True, True, False]
    table.write_bytes(table.read_bytes() + b"\xff\xfe")
    with pytest.raises(DataError, match=r"people.csv: must be UTF-8, but isn't at b'.*\\xff'"):
        read_source(folder, ("face", "hand"), settings, LoadReport())


def test_a_source_that_is_none(install: Callable[..., None]) -> None:
    install("sources", "own = broken_parts:OWN", "OWN = {}")
    with pytest.raises(PluginError, match=r"^the source 'own' of broken 2.0 must be a SourceFormat, found \{\}$"):
        source_format("own")


def test_a_metric_of_another_package_is_measured(installed: None, tmp_path: Path) -> None:
    write_figures(tmp_path / "a", 3, 64, seed=1)
    settings = config.build(EvaluateSettings, {}, ["metrics=[contrast]"])
    assert "fairhuman_example" not in sys.modules
    job = EvaluationInputs({"a": tmp_path / "a"}, None, None, None, tmp_path / "cache")
    assert evaluate(job, settings, tmp_path / "out") is not None
    (found,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert (found["name"], found["n"]) == ("contrast", 3)
    assert 0.0 < found["value"] < 128.0
    with pytest.raises(
        RecipeError, match=r"metrics.0: did you mean 'contrast'\? .* strict, .*contrast, or a metric of .*, found"
    ):
        config.build(EvaluateSettings, {}, ["metrics=[contrst]"])


def test_a_metric_that_fails_does_so_before_pictures_are_read(install: Callable[..., None], tmp_path: Path) -> None:
    install("metrics", "own = broken_parts:own", "own = 1")
    settings = config.build(EvaluateSettings, {}, ["metrics=[own]"])
    job = EvaluationInputs({"a": tmp_path / "none"}, None, None, None, tmp_path / "cache")
    with pytest.raises(PluginError, match=r"^the metric 'own' of broken 2.0 must be a function, found 1$"):
        evaluate(job, settings, tmp_path / "out")
    assert measure_named("strict") is GROUPS["strict"]
    with pytest.raises(DataError):
        evaluate(job, config.build(EvaluateSettings, {}, ["metrics=[strict]"]), tmp_path / "out")


def test_a_detector_of_another_package_finds(installed: None) -> None:
    picture = torch.zeros(40, 30, 3, dtype=torch.uint8).numpy()
    settings = config.build(DetectSettings, {"face": None, "hand": None, "person": "whole-picture"})
    assert detector_names(settings) == {"person": "whole-picture, fairhuman-example 1.0"}
    assert "fairhuman_example" not in sys.modules
    with open_detectors(settings) as find:
        (found,) = find(picture)["person"]
    assert (found.box.x1, found.box.y1, found.score) == (30.0, 40.0, 1.0), "in pixels before it was enlarged"
    wrong = config.build(DetectSettings, {"face": "whole-picture", "hand": None, "person": None})
    with pytest.raises(ValueError, match="finds persons alone"), open_detectors(wrong):
        pass
    with pytest.raises(RecipeError, match=r"hand: did you mean 'whole-body'\? .* mediapipe, onnx, whole-body"):
        config.build(DetectSettings, {"hand": "whole-bdy"})
