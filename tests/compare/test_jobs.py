"""Commands side by side: each once and in order, failures told with their log, signals handed on."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from fairhuman import config
from fairhuman.cli.app import app
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.compare import jobs
from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options, training_job
from fairhuman.errors import FairHumanError
from fairhuman.generate.record import to_entry
from fairhuman.generate.sample import save_png
from fairhuman.models.settings import BaseSettings
from fairhuman.report.text import duration
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils import torch_device
from fairhuman.utils.display import Display


def job(folder: Path, name: str, *arguments: str, needs: Path | None = None, done: float = 0.0) -> Command:
    return Command(name, arguments or ("--version",), folder / f"{name}.log", lambda: done, needs=needs)


def test_what_is_done_is_left_and_what_needs_another_waits_for_it(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    first = job(tmp_path, "first")
    commands = [job(tmp_path, "last", needs=first.log), job(tmp_path, "finished", done=1.0), first]
    assert run_jobs(commands, ConsoleDisplay(console)) is None
    shown = console.export_text()
    assert shown.index("first done") < shown.index("last done")
    assert "finished done" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.log", "last.log"]
    assert first.log.read_text().startswith("fairhuman ")


def test_a_training_job_of_any_kind_is_done_when_result_and_report_are_there(tmp_path: Path) -> None:
    for kind, product in (("lora", "lora"), ("full", "model"), ("controlnet", "controlnet"), ("mole", "mole")):
        recipe = TrainRecipe(kind=kind, steps=1, data=tmp_path, out=tmp_path / "runs" / kind)
        made = training_job(kind, recipe)
        assert made.done() == 0.0
        (recipe.out / product).mkdir(parents=True)
        config.save(recipe, recipe.out / "recipe.yaml")
        assert made.done() == 0.0, "its report isn't written yet"
        (recipe.out / "report.html").touch()
        assert made.done() == 1.0
        with (recipe.out / "validation.jsonl").open("w") as file:
            print('{"step": 0}', file=file, flush=True)
            assert made.done() == 0.99, "a signal came while the result was evaluated"
            print('{"step": 1}', file=file, flush=True)
            assert made.done() == 1.0
        other = training_job(kind, recipe.model_copy(update={"seed": 1}))
        assert other.done() == 0.0, "the result of other settings"


def test_a_run_of_an_earlier_version_is_not_taken_for_one_with_today_s_settings(tmp_path: Path) -> None:
    recipe = TrainRecipe(steps=1, data=tmp_path, out=tmp_path / "runs" / "lora")
    made = training_job("lora", recipe)
    recipe.product.mkdir(parents=True)
    (recipe.out / "report.html").touch()
    values = recipe.model_dump(mode="json")
    del values["view"]["min_in_view"]  # it counted every region, as with 0
    (recipe.out / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert made.done() == 0.0


def test_a_failure_says_what_the_command_said(tmp_path: Path) -> None:
    with pytest.raises(
        FairHumanError, match=r"(?s)wrong failed with exit code 2; end of .*wrong.log:.*No such command"
    ):
        run_jobs([job(tmp_path, "wrong", "nonsense")], Display())


def test_one_who_is_told_of_ends_decides_what_a_failure_means(tmp_path: Path) -> None:
    ends: dict[str, str] = {}
    commands = [job(tmp_path, "wrong", "nonsense"), job(tmp_path, "right")]
    console = Console(record=True, width=200)
    assert (
        run_jobs(commands, ConsoleDisplay(console), 1, lambda job, error: ends.update({job.name: str(error)})) is None
    )
    assert console.export_text().splitlines() == ["wrong failed", "right done, 100 % of total, about 0 s left"]
    assert list(ends) == ["wrong", "right"], "the others go on"
    assert ends["right"] == "None"
    assert ends["wrong"].startswith("wrong failed with exit code 2")


def test_a_need_that_nobody_meets_is_named(tmp_path: Path) -> None:
    with pytest.raises(FairHumanError, match=r"waits needs .*missing, which no other command wrote"):
        run_jobs([job(tmp_path, "waits", needs=tmp_path / "missing")], Display())


def test_a_signal_ends_the_running_commands_and_is_returned(tmp_path: Path) -> None:
    slow = job(tmp_path, "slow", "sample", str(tmp_path / "out"), "--prompt", "a", "--steps", "900")
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    assert run_jobs([slow, job(tmp_path, "next")], Display(), at_once=1) == signal.SIGTERM
    assert time.monotonic() - started < 30
    assert not (tmp_path / "next.log").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def gpus_of(monkeypatch: pytest.MonkeyPatch, names: list[str], commands: list[Command], at_once: int) -> list[str]:
    """GPUs that the commands see, and the most commands at once, where GPUs have these names."""
    seen, running, most = [], set(), 0

    def start(command: list[str], *, env: dict[str, str], **_: object) -> object:
        nonlocal most
        seen.append(env.get("CUDA_VISIBLE_DEVICES", "none"))
        running.add(len(seen))
        most, own, polls = max(most, len(running)), len(seen), iter([None, 0])

        def poll() -> int | None:
            code = next(polls)
            running.discard(own if code == 0 else None)
            return code

        return SimpleNamespace(poll=poll)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch_device, "visible_gpus", lambda: names)
    freed: list[bool] = []
    monkeypatch.setattr(torch_device, "free_gpu_memory", lambda: freed.append(not seen))
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=start, DEVNULL=None, STDOUT=None))
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0)
    console = Console(record=True, width=200)
    assert run_jobs(commands, ConsoleDisplay(console), at_once) is None
    assert freed == [True], "what this process held is freed before a command starts"
    return [*seen, f"{most} at once", *console.export_text().splitlines()[:1]]


def test_each_command_has_a_gpu_and_large_models_have_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [job(tmp_path, name) for name in "abcd"]
    large = [replace(one, large=True) for one in small]
    told = "2 at once were asked for; on 1 GPU it is one on each"
    assert gpus_of(monkeypatch, [], large, 2)[:5] == ["none"] * 4 + ["2 at once"]
    assert gpus_of(monkeypatch, ["0"], large, 2) == ["0"] * 4 + ["1 at once", told]
    assert gpus_of(monkeypatch, ["0"], small, 2)[:5] == ["0"] * 4 + ["2 at once"]
    assert gpus_of(monkeypatch, ["3", "5"], large, 2)[:5] == ["3", "5", "3", "5", "2 at once"]
    assert gpus_of(monkeypatch, ["3", "5"], small, 4)[:5] == ["3", "5", "3", "5", "4 at once"]


def test_a_model_that_ships_needs_no_gpu_of_its_own(tmp_path: Path) -> None:
    recipe = TrainRecipe(steps=1, data=tmp_path, out=tmp_path / "run")
    sdxl = "stabilityai/stable-diffusion-xl-base-1.0"
    trained = [training_job("run", recipe.model_copy(update={"model": model})).large for model in ("small", sdxl)]
    drawn = [
        sampling_job("pictures", tmp_path, tmp_path / "prompts.txt", 1, options).large
        for options in ([], ["--model", "small-flow"], ["--model", tmp_path])
    ]
    assert (trained, drawn) == ([False, True], [False, False, True])


def test_a_sampling_job_counts_its_pictures(tmp_path: Path) -> None:
    sampled = sampling_job("samples", tmp_path / "out", tmp_path / "prompts.txt", 4, ["--steps", 5], tmp_path / "lora")
    assert (sampled.done(), sampled.ready) == (0.0, False)
    (tmp_path / "out").mkdir()
    for number in range(3):
        (tmp_path / "out" / f"{number}.png").touch()
    assert sampled.done() == 0.75
    assert sampled.arguments[-4:] == ("--steps", "5", "--lora", str(tmp_path / "lora"))


def test_pictures_of_a_lora_that_is_trained_anew_wait_for_it_and_are_replaced(tmp_path: Path) -> None:
    """As in a demo whose run was deleted."""
    out, lora = tmp_path / "out", tmp_path / "pytorch_lora_weights.safetensors"
    sampled = sampling_job("samples", out, tmp_path / "prompts.txt", 1, ["--steps", 5], lora)
    out.mkdir()
    save_png(Image.new("RGB", (8, 8)), out / "00000-00.png", to_entry({"lora": {"content": "the old one's"}}))
    assert 0 < sampled.done() < 1
    save_file({"unet.a.lora_A.weight": torch.zeros(2, 2), "unet.a.lora_B.weight": torch.zeros(2, 2)}, lora)
    assert sampled.done() == 0.0
    with pytest.raises(FairHumanError, match=r"(?s)unrecognized arguments: --redraw"):
        run_jobs([replace(sampled, arguments=("doctor",))], Display())


def test_sampling_leaves_guidance_and_precision_to_the_base_and_the_machine_unless_given() -> None:
    own = sampling_options("small-flow", 5, None, (64, 64), 0)
    assert "--guidance" not in own
    assert "--precision" not in own
    given = sampling_options("small-flow", 5, 2.5, (64, 64), 0)
    assert given[given.index("--guidance") + 1] == 2.5


def test_sampling_takes_every_setting_of_the_base() -> None:
    given = {"vae": "v", "prediction": "v", "zero_snr": True, "quantize": "nf4", "offload": True}
    assert given.keys() == BaseSettings.model_fields.keys()
    options = list(map(str, sampling_options("small", 5, None, (64, 64), 0, BaseSettings.model_validate(given))))
    command = typer.main.get_command(app).commands["sample"]  # type: ignore[attr-defined]
    read = command.make_context("sample", ["out", *options]).params
    assert {name: str(read[name]).lower() for name in given} == {name: str(one).lower() for name, one in given.items()}


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (40, 89.6, 200, 7600)] == ["40 s", "90 s", "3 min", "2.1 h"]
