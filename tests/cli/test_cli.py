"""The command line as a user meets it: in a process of its own."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from fairhuman.generate.sample import save_png
from fairhuman.train.preflight import GPU, HUB_WEIGHTS
from helpers import warm
from helpers.figures import give_poses, write_figures
from helpers.launched import command, wait_for_step
from helpers.official import HAS_MEDIAPIPE
from helpers.places import ROOT
from helpers.runs import read_lines

ELSEWHERE = (GPU, HUB_WEIGHTS)
PAGES = (
    "README.md",
    "training/photos/README.md",
    *(
        f"docs/{name}.md"
        for name in ("data", "evaluation", "comparing", "photos", "published-recipes", "settings/index")
    ),
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_figures(folder, 8, 64, seed=2)
    give_poses(folder)
    return folder


def environment() -> dict[str, str]:
    """The same number of threads for all runs: sums over other numbers of them round otherwise on some machines."""
    return {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return warm.run(command(*arguments), cwd=cwd, env=environment())


def start(*arguments: object, hangs_at: int | None = None) -> warm.Popen:
    return warm.Popen(command(*arguments, hangs_at=hangs_at), env=environment(), stdout=warm.PIPE, stderr=warm.STDOUT)


def recipe_file(folder: Path, people: Path, **values: object) -> Path:
    settings: dict[str, object] = {
        "data": str(people),
        "out": str(folder / "run"),
        "steps": 8,
        "batch_size": 1,
        "resolution": 32,
        "checkpoint_every": 1,
        **({"lora": {"rank": 2}} if values.get("kind", "lora") == "lora" else {}),
        "validation": {"every": 0},
        "preview": {"count": 0},
        **values,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def metrics(folder: Path) -> list[dict[str, object]]:
    path = folder / "metrics.jsonl"
    return read_lines(path) if path.is_file() else []


def test_help_of_every_command_has_an_example(typed: Callable[..., tuple[int, str, str]]) -> None:
    def listed(*group: str) -> set[str]:
        listing = typed(*group, "--help")[1].partition("Commands:")[2]
        return set(re.findall(r"^  ([\w-]+)  ", listing, flags=re.MULTILINE))

    commands, of_data, of_study = listed(), listed("data"), listed("study")
    assert {"demo", "train", "sample", "data", "study"} <= commands
    assert {"build", "review", "benchmark-detectors"} <= of_data
    assert {"create", "serve", "links", "report", "export", "power"} <= of_study
    in_groups = [*(f"data {name}" for name in of_data), *(f"study {name}" for name in of_study)]
    for name in [*(commands - {"data", "study"}), *in_groups]:
        code, shown, _ = typed(*name.split(), "--help")
        assert code == 0
        assert f"Example: fairhuman {name}" in " ".join(shown.split())


def test_wrong_usage_is_2_and_failure_is_1(tmp_path: Path, people: Path) -> None:
    assert run("train").returncode == 2
    assert run("nonsense").returncode == 2
    path = recipe_file(tmp_path, people)
    wrong = run("train", path, "stpes=3")
    assert wrong.returncode == 2
    assert "unknown setting 'stpes'; did you mean 'steps'" in wrong.stderr
    failed = run("train", path, f"data={tmp_path / 'nowhere'}")
    assert failed.returncode == 1
    assert "there is no such file or folder" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_package_runs_as_a_module() -> None:
    wrong = [sys.executable, "-m", "fairhuman", "evaluate", "here", "metrcs=[fid]"]
    done = subprocess.run(wrong, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "did you mean 'metrics'?" in done.stderr) == (2, True), done.stderr


def test_a_dry_run_shows_everything_and_writes_nothing(tmp_path: Path, people: Path) -> None:
    shown = run("train", recipe_file(tmp_path, people), "strategy=nash", "--dry-run")
    assert shown.returncode == 0
    text, empty, findings = shown.stdout.partition("\n\n")
    assert (yaml.safe_load(text)["strategy"], empty) == ("nash", "\n\n")
    found = dict(line.split(": ", 1) for line in findings.splitlines())
    assert [name.split() for name in found] == [
        *(["ok", "model"], ["ok", "data"], ["note", "regions"], ["note", "view"]),
        *(["ok", "memory"], ["ok", "disk"], ["note", "hours"]),
    ]
    assert "8 pictures to train on" in found["ok      data"]
    assert "to train on" in found["note    regions"]
    assert "not known" in found["note    hours"]
    assert not (tmp_path / "run").exists()


def mole_starts(folder: Path) -> dict[str, str]:
    """Random experts of rank 2, to train gates on."""
    from fairhuman.models.mole import MoleModel
    from fairhuman.models.sdxl import load_pipeline
    from fairhuman.models.settings import MoleSettings

    for stage in ("face", "hand"):
        model = MoleModel(load_pipeline("small"), MoleSettings(stage=stage, rank=2), seed=0)
        for parameter in model.trainable_parameters():
            parameter.data += 0.05
        model.save(folder / stage)
    return {f"start_{stage}": str(folder / stage) for stage in ("face", "hand")}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("lora", {}),
        *(
            pytest.param(kind, values, marks=pytest.mark.slow, id=name)
            for name, kind, values in (
                ("full", "full", {}),
                ("controlnet", "controlnet", {"fairness": {"mode": "output", "every": 3}}),
                ("adapter", "t2i_adapter", {"strategy": "uw"}),
                ("expert", "mole", {"mole": {"stage": "hand", "rank": 2}}),
                ("gates", "mole", {"mole": {"stage": "gates", "rank": 2}, "ema": {"decay": 0.9}}),
            )
        ),
    ],
)
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_kill_9_before_a_step_is_saved_and_the_same_command_give_the_same_result(
    tmp_path: Path, people: Path, kind: str, values: dict[str, Any], step: int
) -> None:
    if values.get("mole", {}).get("stage") == "gates":
        values = {**values, "mole": {**values["mole"], **mole_starts(tmp_path / "experts")}}
    path = recipe_file(tmp_path, people, kind=kind, **values)
    product = "model" if kind == "full" else kind
    arguments = ("train", path)
    assert run(*arguments, f"out={tmp_path / 'whole'}").returncode == 0
    process = start(*arguments, hangs_at=step)
    wait_for_step(process, tmp_path / "run", step)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / product).exists()
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert (f"resuming from step {step - 1}" in again.stdout) == (step > 1)
    ours, theirs = (
        {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
        for folder in (tmp_path / name / product for name in ("run", "whole"))
    )
    assert any(name.suffix == ".safetensors" for name in theirs)
    assert ours == theirs
    assert [row["step"] for row in metrics(tmp_path / "run")] == list(range(1, 9))
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, people: Path, number: signal.Signals) -> None:
    path = recipe_file(tmp_path, people, steps=500, checkpoint_every=500)
    starts: Any = subprocess if number == signal.SIGINT else warm  # one of them in a process from scratch
    process = starts.Popen(
        command("train", path), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_step(process, tmp_path / "run", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number, err
    assert "run the same command again to resume" in out
    again = "Ctrl-C again" if number == signal.SIGINT else "another signal"
    assert f"Ending after this step; {again} stops at once\n" in err
    done = len(metrics(tmp_path / "run"))
    assert f"step {done} is done; saving a checkpoint and writing the report\n" in out
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{done:07d}"]


def test_sample_draws_a_picture_per_prompt_with_its_settings_inside(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "prompts.txt").write_text("a man\n\na woman waving\n", encoding="utf-8")
    size = ("--height", 32, "--width", 32, "--steps", 2, "--seed", 5)
    drawn = run("sample", tmp_path / "out", "--prompts", tmp_path / "prompts.txt", *size)
    assert drawn.returncode == 0, drawn.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00000-00.png", "00001-00.png"]
    with Image.open(tmp_path / "out" / "00001-00.png") as picture:
        assert picture.size == (32, 32)
        assert (picture.info["prompt"], picture.info["seed"], picture.info["steps"]) == ("a woman waving", "5", "2")
    assert run("sample", tmp_path / "out").returncode == 2
    missing = run("sample", tmp_path / "out", "--prompt", "a", "--lora", tmp_path / "none")
    assert missing.returncode == 1
    assert "found none" in missing.stderr


def test_sample_checks_before_it_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fairhuman.cli import main

    out, file = tmp_path / "out", tmp_path / "file"
    file.touch()
    wrong: list[tuple[int, str, Path, tuple[object, ...]]] = [
        (2, "LoRA weight: expected a finite number, found nan", out, ("--lora-weight", "nan", "--dry-run")),
        (2, "guidance: input should be a finite number", out, ("--guidance", "inf", "--dry-run")),
        (2, "1000 timesteps can't be split into 1500 steps", out, ("--steps", 1500, "--dry-run")),
        (2, "--prompt: expected a text", out, ("--prompt", " ", "--dry-run")),
        (1, "found no such folder", out, ("--model", tmp_path / "none", "--dry-run")),
        (1, "found none", out, ("--lora", tmp_path / "none", "--dry-run")),
        (1, f"{file}: can't be written", file, ()),
        (1, "/proc/pictures: can't be written", Path("/proc/pictures"), ()),
    ]
    for code, message, place, options in wrong:
        monkeypatch.setattr(sys, "argv", ["fairhuman", "sample", str(place), "--prompt", "a", *map(str, options)])
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr().err
        assert (stopped.value.code, shown.count("\n")) == (code, 1), shown
        assert message in shown
    assert not out.exists()


def test_a_dry_run_says_what_would_be_drawn(tmp_path: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    asked = ("sample", tmp_path / "out", "--prompt", "a", "--count", 2, "--suffix", ", 8k", "--dry-run")
    code, said, errors = typed(*asked, "--height", 64)
    assert code == 0, errors
    assert said.splitlines() == [
        "1 prompt x 2 pictures, 128 x 64 pixels (width x height), 30 steps, guidance 7.5, seed 0, suffix ', 8k'",
        "0 of 2 pictures are there and would be kept",
    ]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 110 prompts by two methods, as `fairhuman sample` writes them."""
    folder = tmp_path_factory.mktemp("samples")
    for method, shade in (("base", 20), ("mpd", 200)):
        for number in range(110):
            texts = {"prompt": f"person {number}", "prompt_index": str(number), "picture_index": "0", "seed": "0"}
            save_png(Image.new("RGB", (64, 64), (shade, number, 0)), folder / method / f"{number:05d}-00.png", texts)
    return folder


def documented_commands() -> list[str]:
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)]
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def only_elsewhere(code: int, said: str) -> bool:
    """Whether all that a dry run misses is weights of a hub, a GPU, or MediaPipe, which isn't in every environment."""
    missing = [line for line in said.splitlines() if line.startswith("missing")]
    return code == 1 and bool(missing) and all(is_elsewhere(line) for line in missing)


def is_elsewhere(line: str) -> bool:
    if not HAS_MEDIAPIPE and line.startswith("missing metrics: official confidences need mediapipe"):
        return True
    return line.split(":")[0].split(maxsplit=1)[1] in ELSEWHERE


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_works(
    line: str,
    tmp_path: Path,
    people: Path,
    samples: Path,
    typed: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`make` targets exist; the others run, those that need a hub, a GPU or hours with --dry-run or for two steps."""
    if line.startswith("fairhuman data build"):  # of pictures of 32 pixels, into a new folder
        source, _, *rest = line.removeprefix("fairhuman data build ").split(" ")
        line = " ".join(["fairhuman data build", source, str(tmp_path / "built"), *rest])
        line = re.sub(r" min_side=\d+", "", line) + " min_side=8"
    # into new folders
    line = re.sub(r"^(fairhuman data validation \S+) val\b", rf"\1 {tmp_path}/val", line)
    line = re.sub(r"^(fairhuman sample) samples/", rf"\1 {tmp_path}/samples/", line)
    # what a command before has made
    made = re.sub(r"\bruns/people\b|(?<=data=)runs/synthetic|(?<=[ =])(people|val)(?= |$)", "PEOPLE", line)
    made = re.sub(r"(?<=model=)runs/\S+", "small", made)
    line = re.sub(r"PEOPLE|PHOTOS", str(people), made).replace("runs/", f"{tmp_path}/runs/")
    line = re.sub(r"\bsamples/", f"{samples}/", line)
    (tmp_path / "prompts.txt").write_text("a person\n", encoding="utf-8")  # one's own, as photos are
    if not line.startswith("fairhuman train recipes/lora-small.yaml"):  # memory takes long to compute: see its tests
        monkeypatch.setattr("fairhuman.train.preflight._memory_of", lambda _: "not computed in this test")
    line = line.replace("prompts.txt", str(tmp_path / "prompts.txt")).replace(
        "--reference photos", f"--reference {people}"
    )
    program, *arguments = shlex.split(line)
    if program == "make":
        listed = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert listed.returncode == 0, listed.stderr
        return
    if "--lora" in arguments:  # what the command before has made
        lora = Path(arguments[arguments.index("--lora") + 1])
        layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
        tensors = {f"{layer}.lora_A.weight": torch.zeros(2, 64), f"{layer}.lora_B.weight": torch.zeros(64, 2)}
        lora.mkdir(parents=True)
        save_file(tensors, lora / "pytorch_lora_weights.safetensors")
    if program == "fairhuman":
        reads_only = arguments[0] == "settings" or arguments[:2] in (["data", "check"], ["data", "formats"])
        dry = [] if "--dry-run" in arguments or reads_only else ["--dry-run"]
        monkeypatch.chdir(ROOT)
        code, said, error = typed(*arguments, *dry)
        assert code == 0 or only_elsewhere(code, said), error or said
    else:
        assert program == "python"
        short = line.replace("--minutes 25", "--steps 2 --size 32")
        assert short != line
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", shlex.split(short)[1:])
        runpy.run_path(sys.argv[0], run_name="__main__")


def test_the_readme_s_four_lines_work() -> None:

    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert block is not None
    model = torch.nn.Linear(3, 3)
    before = model.weight.detach().clone()
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [torch.ones(2, 3)],
        "loss_global": lambda batch: model(batch)[:, 0].square().mean(),
        "loss_face": lambda batch: model(batch)[:, 1].square().mean(),
        "loss_hand": lambda batch: (model(batch)[:, 2] - 1).square().mean(),
    }
    exec(block.group(1), names)
    moved = (model.weight.detach() - before).norm().item() ** 2 + 0.0
    assert 0.0 < moved <= 0.1**2 + 1e-9
    assert names["step"].present == (True, True, True)  # type: ignore[attr-defined]
