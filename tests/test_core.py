"""The core is light: what the wheel brings, and what runs with torch alone."""

import email
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from fairhuman.cli.app import app
from fairhuman.cli.extras import COMMANDS, EXTRAS, missing_extra
from fairhuman.fairness import STRATEGIES
from fairhuman.train.settings import GRADIENT_BALANCING, LOSS_WEIGHTING
from helpers.figures import write_figures
from helpers.hidden import canonical, run_seeing, with_requirements
from helpers.places import RECIPES
from helpers.tiny_pictures import noise

ROOT = Path(__file__).parents[1]
TORCH = with_requirements(["torch"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as setuptools leaves files in the folder that it builds."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "recipes", copy / "recipes")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", copy / "wheels", copy], check=True)
    return next((copy / "wheels").iterdir())


def required(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist")
    return [Requirement(text) for text in found or []]


def of_extra(requirements: list[Requirement], extra: str) -> set[str]:
    """Names of packages of an extra, and of those that it includes."""
    own = [one for one in requirements if one.marker and one.marker.evaluate({"extra": extra})]
    named = {one.name for one in own if one.name != "fairhuman"}
    return named.union(
        *(of_extra(requirements, inner) for one in own if one.name == "fairhuman" for inner in one.extras)
    )


def test_the_wheel_requires_torch_alone(wheel: Path) -> None:
    requirements = required(wheel)
    assert [str(one) for one in requirements if one.marker is None] == ["torch>=2.9"]
    for extra in ("train", "synth", "data", "evaluate", "web", "cluster", "all"):
        assert of_extra(requirements, extra) >= {"typer", "rich", "pydantic", "pyyaml"}, extra
    for extra in ("train", "synth", "data", "evaluate", "web", "cluster"):
        assert of_extra(requirements, "all") >= of_extra(requirements, extra)
    for extra in ("detect", "balancers", "eightbit", "wandb", "postgresql", "docs", "dev"):
        assert of_extra(requirements, extra), extra


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("fairhuman/")}
    source = ROOT / "src"
    files = {path.relative_to(source) for path in (source / "fairhuman").rglob("*") if path.is_file()}
    files |= {Path("fairhuman") / path.relative_to(ROOT) for path in RECIPES.rglob("*") if path.is_file()}
    assert inside == {path.as_posix() for path in files if "__pycache__" not in path.parts}
    kinds = {
        "models/small/": 15,
        "models/clip/": 2,
        "report/[^/]+.html": 14,
        "web/templates/": 10,
        "web/static/": 8,
        "study/[^/]+.json": 1,
    }
    for kind, least in kinds.items():
        assert sum(re.match(f"fairhuman/{kind}", name) is not None for name in inside) >= least, kind
    assert "fairhuman/py.typed" in inside


def test_the_extras_are_those_of_the_project(wheel: Path) -> None:
    requirements = required(wheel)
    for extra, packages in EXTRAS.items():
        assert set(packages) == of_extra(requirements, extra), extra
    modules = metadata.packages_distributions()
    for packages in EXTRAS.values():
        for package, module in packages.items():
            if module not in ("bitsandbytes", "mediapipe", "wandb"):  # the user's choice, not installed here
                assert canonical(package) in map(canonical, modules[module])


def test_every_command_says_what_it_needs() -> None:
    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {name.partition(" ")[0] for name in COMMANDS} == names
    assert all(extra in EXTRAS for needed in COMMANDS.values() for extra in needed)


def test_fairness_takes_torch_and_the_standard_library() -> None:
    code = (
        "import sys, torch; from fairhuman.fairness import FairBackward, MinimumPotentialDelay, strategy_named;"
        "net = torch.nn.Linear(3, 2); fair = FairBackward(net.parameters(), strategy_named('mpd')());"
        "step = fair(list(net(torch.ones(4, 3)).square().mean(0))); print(len(step.weights));"
        "print(*(name for name in sys.modules if name.startswith('fairhuman.') and '.fairness' not in name))"
    )
    done = run_seeing(TORCH, "-c", code)
    assert (done.returncode, done.stdout) == (0, "2\n\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "fairhuman's commands come with its extras (train, synth, data, evaluate, web, cluster), such as pip"),
        (("train", "a.yaml"), "fairhuman train needs the 'train' extra: pip install 'fairhuman[train]'\n"),
        (("data", "review", "x"), "fairhuman data review needs the 'web' extra: pip install 'fairhuman[web]'\n"),
        (
            ("demo", "out"),
            "fairhuman demo needs the 'train', 'synth', 'evaluate' extras: pip install 'fairhuman[train,",
        ),
    ],
)
def test_a_command_without_its_extra_says_so_in_a_line(arguments: tuple[str, ...], line: str) -> None:
    """With nothing but the standard library."""
    done = run_seeing(["none"], *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_a_missing_module_names_the_extra_that_brings_it(tmp_path: Path) -> None:
    write_figures(tmp_path, 1, 64, seed=1)
    seen = with_requirements({"torch", *EXTRAS["synth"]} - {"anny"}) - {"diffusers", "accelerate", "peft"}
    done = run_seeing(seen, "train", ROOT / "recipes" / "lora-small.yaml", f"data={tmp_path}", "out=y")
    assert (done.returncode, done.stderr) == (
        1,
        "fairhuman train needs the 'train' extra: pip install 'fairhuman[train]'\n",
    )


def test_only_a_missing_extra_is_called_one() -> None:
    assert missing_extra("torch.no_such_part", ["train", "x"]) is None
    assert missing_extra("no_such_package", ["train", "x"]) is None
    assert (
        missing_extra("wandb", ["train", "x"])
        == "fairhuman train needs the 'wandb' extra: pip install 'fairhuman[wandb]'"
    )


def test_settings_need_the_command_line_alone() -> None:
    assert COMMANDS["settings"] == ("cli",)
    for of in ("train", "data", "compare"):
        done = run_seeing(with_requirements(["torch", *EXTRAS["cli"]]), "settings", of)
        assert (done.returncode, done.stderr) == (0, ""), of


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["synth", "data", "evaluate", "web", "train"])
def test_an_extra_is_enough_for_its_commands(extra: str, tmp_path: Path) -> None:
    """Everything but the extra's packages, and what they require, is hidden."""
    write_figures(tmp_path / "people", 3, 64, seed=1)
    people, out = tmp_path / "people", tmp_path / "out"
    recipe, prompts = ROOT / "recipes" / "lora-small.yaml", tmp_path / "prompts.txt"
    prompts.write_text("one person\nanother person\n", encoding="utf-8")
    methods = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            noise(64, 64, 40, seed=10 * len(methods) + number).convert("RGB").save(tmp_path / name / f"{number}.png")
        methods += ["--method", f"{name}={tmp_path / name}"]
    arguments = {
        "train": ("train", recipe, f"data={people}", f"out={out}", "--dry-run"),
        "synth": ("synth", out, "--count", 2, "--size", 64, "--workers", 1),
        "data": ("data", "build", people, out, "min_side=null", "detect=null", "--workers", 0),
        "evaluate": ("evaluate", people, "metrics=[efficientnet]", "--out", out, "--cache", tmp_path / "cache"),
        "web": ("study", "create", out, *methods, "--prompts", prompts, "items=2", "--dry-run"),
    }
    done = run_seeing(with_requirements(["torch", *EXTRAS[extra]]), *arguments[extra], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_of_strategies_are_those_of_fairness() -> None:
    assert (*LOSS_WEIGHTING, *GRADIENT_BALANCING) == tuple(STRATEGIES)
    assert [name for name, kind in STRATEGIES.items() if kind.needs_gram] == list(GRADIENT_BALANCING)


@pytest.mark.slow
def test_wheel_and_core_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """torch and what it requires are linked from here rather than downloaded; pip finds them, and needs no more."""
    environment, links = tmp_path / "venv", tmp_path / "torch"
    venv.create(environment, with_pip=True)
    links.mkdir()
    for package in TORCH:
        for file in metadata.files(package) or []:
            top = Path(str(file)).parts[0]
            if top not in ("..", "__pycache__") and not (links / top).exists():
                (links / top).symlink_to(Path(str(metadata.distribution(package).locate_file(top))))
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "setuptools"], check=True)  # venv's own is too old
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, env=clean, cwd=tmp_path
        )

    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    (Path(purelib) / "torch.pth").write_text(f"{links}\n", encoding="utf-8")
    done = run(python, "-m", "pip", "install", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    listed = run(python, "-m", "pip", "list", "--format", "freeze").stdout.split()
    assert {canonical(line.partition("==")[0]) for line in listed} <= {*TORCH, "fairhuman", "pip"}
    doctor = run(environment / "bin" / "fairhuman", "doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "ready: doctor\n" in doctor.stdout
    assert "problems: none" in doctor.stdout
    train = run(environment / "bin" / "fairhuman", "train", "recipe.yaml")
    assert (train.returncode, train.stderr) == (
        1,
        "fairhuman train needs the 'train' extra: pip install 'fairhuman[train]'\n",
    )
    example = run(python, ROOT / "examples" / "plain_loop.py")
    assert example.returncode == 0, example.stderr
    assert "step 23: weights of picture, face, hands" in example.stdout
