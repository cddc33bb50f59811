"""Runs: resuming after any kind of stop; the files they write."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fairhuman import config
from fairhuman.data.export.closeups import CloseupSettings
from fairhuman.data.export.run import export_dataset
from fairhuman.data.pictures.notes import LoadReport, Note
from fairhuman.errors import FairHumanError, RecipeError, TrainingError
from fairhuman.models.lora import LoraModel
from fairhuman.models.sdxl import load_pipeline
from fairhuman.record import HumanRecord
from fairhuman.train import guard
from fairhuman.train.data import _read_sources, split
from fairhuman.train.guard import explain_failures, locked
from fairhuman.train.loop import train
from fairhuman.train.memory import MemoryChange, memory_of
from fairhuman.train.metrics import Metrics
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import STOP, Run, Watcher, set_up
from fairhuman.train.validation import held_out_losses
from helpers.figures import write_shapes
from helpers.runs import Crash, Stop, metrics_without_times, read_lines
from helpers.shapes import write_shape
from helpers.tiny_pictures import encoded, picture

MakeRecipe = Callable[..., TrainRecipe]
BALANCERS = pytest.mark.skipif(
    find_spec("quadprog") is None, reason="quadprog isn't installed; it comes with the extra 'balancers'"
)


def lora_bytes(recipe: TrainRecipe) -> bytes:
    return (recipe.out / "lora" / "pytorch_lora_weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    "values",
    [
        {"strategy": "mpd", "accumulate": 2, "ema": {"decay": 0.9}, "validation": {"every": 2, "share": 0.3}},
        {"strategy": "uw", "schedule": {"name": "cosine", "warmup_steps": 2}, "lora": {"rank": 4, "dropout": 0.3}},
        pytest.param({"strategy": "dwa", "fairness": {"dwa_window": 1, "measure_every": 2}}, marks=pytest.mark.slow),
        pytest.param({"strategy": "rlw", "optimizer": {"name": "sgd", "momentum": 0.9}}, marks=pytest.mark.slow),
        pytest.param(
            {
                "strategy": "ls",
                "fairness": {"weights": {"face": 0.35, "hand": 0.25}},
                "view": {"crop": "center"},
                "cache": {"latents": True, "text": True},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param({"strategy": "nash", "precision": "fp16", "gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param(
            {"strategy": "torchjd:GradVac", "fairness": {"mode": "exact"}}, marks=[BALANCERS, pytest.mark.slow]
        ),
    ],
    ids=lambda values: values["strategy"],
)
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(make_recipe: MakeRecipe, values: dict) -> None:
    whole, broken = make_recipe("whole", **values), make_recipe("broken", **values)
    train(whole)
    with pytest.raises(RuntimeError, match="crash"):
        train(broken, [Crash(3)])
    assert [path.name for path in (broken.out / "checkpoints").iterdir()] == ["step-0000002"]
    assert train(broken).finished
    assert lora_bytes(broken) == lora_bytes(whole)
    assert metrics_without_times(broken.out) == metrics_without_times(whole.out)
    if whole.validation.every:
        assert read_lines(broken.out / "validation.jsonl") == read_lines(whole.out / "validation.jsonl")


def test_in_fp16_a_step_without_a_weighted_objective_changes_nothing(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "handless", [(32, 32)] * 4, hands=[])
    weights = {"global": 0.0, "face": 0.0}
    recipe = make_recipe(data=str(data), precision="fp16", strategy="ls", fairness={"weights": weights}, steps=2)
    run = train(recipe)
    assert run.finished
    assert [row["stationary"] for row in metrics_without_times(recipe.out)] == [True, True]
    assert not any(weight.any() for name, weight in run.model.pipeline.unet.named_parameters() if "lora_B" in name)
    assert run.scaler is not None
    assert run.scaler.get_scale() == 2.0**16


def test_an_orderly_stop_saves_the_step_it_is_at(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    run = train(recipe, [Stop(3)])
    assert (run.step, run.finished, run.stopped_by) == (3, False, 15)
    assert sorted(path.name for path in (recipe.out / "checkpoints").iterdir()) == ["step-0000002", "step-0000003"]
    whole = make_recipe("whole")
    train(whole)
    assert train(recipe).finished
    assert lora_bytes(recipe) == lora_bytes(whole)


def test_a_stop_ends_a_validation_which_the_resumed_run_makes(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"validation": {"every": 2, "share": 0.3}, "steps": 3, "checkpoint_every": 4}
    whole, stopped = (make_recipe(out, **values) for out in ("whole", "stopped"))
    train(whole)
    runs: list[Run] = []

    class Started(Watcher):
        def on_start(self, run: Run) -> None:
            runs.append(run)

    def signalled(*args: Any) -> object:
        def on_pass() -> None:
            passes.append(1)
            runs[0].stopped_by = 15 if runs[0].step == 2 else None
            args[-1]()

        return held_out_losses(*args[:-1], on_pass)

    passes: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr("fairhuman.train.loop.held_out_losses", signalled)
        run = train(stopped, [Started()])
    assert (run.step, run.stopped_by) == (2, 15)
    assert [path.name for path in (stopped.out / "checkpoints").iterdir()] == ["step-0000002"]
    assert [line["step"] for line in read_lines(stopped.out / "validation.jsonl")] == [0]
    assert len(passes) == 2 * len(stopped.validation.timesteps) + 1, "all of step 0 in two batches, one of step 2"
    assert train(stopped).finished
    assert read_lines(stopped.out / "validation.jsonl") == read_lines(whole.out / "validation.jsonl")
    assert lora_bytes(stopped) == lora_bytes(whole)


class StopByFile(Watcher):
    """Asks for a stop by a file after a step, as the studio does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, run: Run, metrics: Metrics) -> None:
        assert metrics["peak_memory_mib"]
        if run.step == self.step:
            (run.recipe.out / STOP).touch()


def test_a_file_in_the_folder_stops_the_run_that_is_there_and_no_later_one(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=3)
    recipe.out.mkdir()
    (recipe.out / STOP).touch()  # left by a process that was killed
    run = train(recipe, [StopByFile(1)])
    assert (run.step, run.finished, run.stopped_by) == (1, False, 15)
    assert not (recipe.out / STOP).exists()
    assert train(recipe).finished


def test_a_run_that_is_still_being_set_up_can_be_stopped(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(steps=2)

    def set_up_slowly(*given: Any) -> Run:
        (recipe.out / STOP).touch()
        return set_up(*given)

    monkeypatch.setattr("fairhuman.train.loop.set_up", set_up_slowly)
    assert (train(recipe).step, (recipe.out / STOP).exists()) == (1, False)


def test_a_finished_run_is_unchanged(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=1)
    train(recipe)
    before = lora_bytes(recipe)
    assert train(recipe).finished
    assert lora_bytes(recipe) == before
    assert len(read_lines(recipe.out / "metrics.jsonl")) == 1


def test_full_training_from_a_random_start_gives_a_pipeline(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(model="small-untrained", kind="full", full={"text_encoders": True}, steps=2)
    run = train(recipe)
    loaded = load_pipeline(str(recipe.out / "model"))
    for part in ("unet", "text_encoder", "text_encoder_2"):
        ours, theirs = getattr(run.model.pipeline, part).state_dict(), getattr(loaded, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(loaded.unet.conv_in.weight, load_pipeline("small-untrained").unet.conv_in.weight)


def test_training_lowers_the_held_out_losses(make_recipe: MakeRecipe) -> None:
    values = {
        "model": "small-untrained",
        "kind": "full",
        "steps": 30,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "checkpoint_every": 30,
    }
    recipe = make_recipe(**values, validation={"every": 30, "share": 0.3})
    train(recipe)
    first, last = read_lines(recipe.out / "validation.jsonl")
    for name in ("global", "face", "hand"):
        before, after = ((row["objectives"][name]) for row in (first, last))  # type: ignore[index]
        assert before["area"] == after["area"]
        assert sum(after["error"]) < 0.9 * sum(before["error"]), name


def test_weights_and_losses_of_every_objective_are_logged(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=2)
    train(recipe)
    rows = read_lines(recipe.out / "metrics.jsonl")
    expected = {"step", "images", "lr", "grad_norm", "images_per_s", "skipped", "cos/global-face", "cos/face-hand"}
    for name in ("global", "face", "hand"):
        expected |= {f"loss/{name}", f"weight/{name}"}
    for name in ("face", "hand"):
        expected |= {f"area/{name}", f"coverage/{name}", f"known/{name}"}
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert expected <= set(row)
        present = [name for name in ("global", "face", "hand") if row[f"loss/{name}"] is not None]
        weights = [row[f"weight/{name}"] for name in present]
        assert sum(weights) == pytest.approx(len(present))  # type: ignore[arg-type]
    assert list((recipe.out / "tensorboard").iterdir())


def test_any_annotated_region_can_be_an_objective(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "feet"
    folder.mkdir()
    rows = read_lines(people / "metadata.jsonl")
    for row in rows:
        row["file_name"] = str(row["file_name"])
        row["feet"] = [[10.0, 50.0, 30.0, 64.0]]
    (folder / "images").symlink_to(people / "images")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(FairHumanError, match="feet"):
        train(make_recipe("no", regions={"names": ["face", "hand", "feet"]}))
    for path in (folder / "images").resolve().iterdir():
        assert path.suffix == ".png"
    (folder / "images").unlink()
    (folder / "images").mkdir()
    for path in (people / "images").iterdir():
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    recipe = make_recipe("four", data=str(folder), steps=1, regions={"names": ["face", "hand", "feet"]})
    train(recipe)
    row = read_lines(recipe.out / "metrics.jsonl")[0]
    assert row["loss/feet"] is not None
    assert row["cos/hand-feet"] is not None


def test_other_settings_in_the_same_folder_are_refused_by_name(make_recipe: MakeRecipe) -> None:
    train(make_recipe(steps=1))
    with pytest.raises(
        RecipeError, match=r"holds a run with other settings.*\n  learning_rate: 0.001 there, 0.5 now\n"
    ):
        train(make_recipe(steps=1, learning_rate=0.5))
    assert train(make_recipe(steps=2, keep_checkpoints=1, source={"workers": 1})).step == 2


def test_one_run_a_folder(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    with pytest.raises(TrainingError, match="broken"), locked(recipe.out, True):
        raise TrainingError("broken")
    assert not (recipe.out / ".lock").read_text(), "no machine holds it"
    with locked(recipe.out, True), pytest.raises(TrainingError, match="another run is writing here"):
        train(recipe)


def test_a_loss_that_is_not_finite_says_what_to_change(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(learning_rate=1e30, optimizer={"name": "sgd"})
    with pytest.raises(TrainingError, match=r"the \w+ loss.*a lower learning_rate \(now 1e\+30\)"):
        train(recipe)


def test_a_full_disk_says_so(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    with (
        pytest.raises(TrainingError, match=r"the disk is full.*the same command again"),
        explain_failures(recipe),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x" * 100_000)


def test_out_of_memory_says_what_to_change(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(kind="full", batch_size=8, model=str(write_shape(tmp_path / "model")))
    needed = memory_of(recipe).needed
    monkeypatch.setattr(guard, "device_bytes", lambda: needed - 2**20)
    with (
        pytest.raises(
            TrainingError,
            match=r"about 0.\d GiB.*fit: fairness.gradients=bf16 \(0.7 GiB\); "
            r"or precision=bf16 \(0.7 GiB\); or optimizer",
        ),
        explain_failures(recipe),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    config.save(recipe, recipe.out / "recipe.yaml")
    (recipe.out / "checkpoints" / "step-0000002").mkdir(parents=True)
    (recipe.out / "summary.json").write_text('{"processes": 1}')
    for overrides, said in (
        (("keep_checkpoints=1",), f"GiB). Add it to the same command, which resumes {recipe.out}"),
        (("precision=bf16",), f". In {recipe.out}, which has checkpoints, precision=bf16 can't change: add out=NEW"),
    ):
        change = MemoryChange(overrides, memory_of(recipe))
        monkeypatch.setattr(guard, "cheapest_changes", lambda *_, change=change: [change])
        with pytest.raises(TrainingError, match=f"{re.escape(said)}$"), explain_failures(recipe):
            raise torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(guard, "cheapest_changes", lambda *_: [])
    with pytest.raises(TrainingError, match=r"none: it needs a larger device"), explain_failures(recipe):
        raise torch.OutOfMemoryError("CUDA out of memory")
    said = "GET was unable to find an engine to execute this computation"
    with pytest.raises(TrainingError, match=rf"out of memory \({said}\): the run needs"), explain_failures(recipe):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="an illegal memory access"), explain_failures(recipe):
        raise RuntimeError("an illegal memory access")


def test_a_resolution_that_does_not_fit_the_model_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(FairHumanError, match=r"multiple of 16 \(VAE factor 4, U-Net 4\), found \(40, 40\)"):
        train(make_recipe(resolution=40))


def test_a_missing_extra_says_how_to_install_it(make_recipe: MakeRecipe) -> None:
    with pytest.raises(TrainingError, match=r"pip install 'fairhuman\[eightbit\]'"):
        train(make_recipe("a", optimizer={"name": "adamw8bit"}))
    with pytest.raises(TrainingError, match=r"pip install 'fairhuman\[wandb\]'"):
        train(make_recipe("b", track={"wandb": "project"}))


def test_an_unreadable_checkpoint_is_named(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    train(recipe, [Stop(2)])
    (recipe.out / "checkpoints" / "step-0000002" / "state.pt").write_bytes(b"no")
    with pytest.raises(TrainingError, match=r"step-0000002/state.pt: is damaged.* delete .*/checkpoints to start anew"):
        train(recipe)


def test_the_lora_that_is_saved_is_the_averaged_one(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(ema={"decay": 0.5}, steps=3)
    run = train(recipe)
    assert run.average is not None
    saved = load_file(recipe.out / "lora" / "pytorch_lora_weights.safetensors")
    shadows = dict(zip(run.model.trainable_state(), run.average.shadow_params, strict=True))
    for name, tensor in saved.items():
        key = name.removeprefix("unet.").replace(".weight", ".default.weight")
        assert torch.equal(tensor, shadows[key]), name


def test_a_result_appears_whole_or_not_at_all(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(steps=1)

    def half(model: LoraModel, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pytorch_lora_weights.safetensors").write_bytes(b"half")
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(LoraModel, "save", half)
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe)
    assert not recipe.product.exists()
    train(recipe)
    assert len(load_file(recipe.product / "pytorch_lora_weights.safetensors")) > 0
    assert sorted(path.name for path in recipe.product.parent.iterdir() if path.name.startswith(".")) == [".lock"]


def test_every_run_shows_what_the_model_sees(make_recipe: MakeRecipe) -> None:
    from PIL import Image

    recipe = make_recipe(steps=1)
    train(recipe)
    with Image.open(recipe.out / "overlay.png") as sheet:
        assert min(sheet.size) > 100
    drawn = (recipe.out / "overlay.png").read_bytes()
    train(recipe.model_copy(update={"steps": 2}))
    assert (recipe.out / "overlay.png").read_bytes() == drawn, "a run that goes on keeps it"
    summary = json.loads((recipe.out / "summary.json").read_text(encoding="utf-8"))
    assert summary["pictures"] == 12
    assert json.loads((recipe.out / "data_report.json").read_text(encoding="utf-8"))["counts"] == {}


def test_settings_may_change_after_a_failed_start(make_recipe: MakeRecipe) -> None:
    with pytest.raises(FairHumanError, match="nowhere"):
        train(make_recipe(model="nowhere"))
    with pytest.raises(RuntimeError, match="crash"):
        train(make_recipe(learning_rate=0.5), [Crash(1)])
    assert train(make_recipe(steps=1)).finished


def test_a_run_cannot_resume_before_its_checkpoint(make_recipe: MakeRecipe) -> None:
    train(make_recipe(steps=2))
    with pytest.raises(RecipeError, match=r"steps is 1, but the run in .* is at step 2 already"):
        train(make_recipe(steps=1))


def test_steps_cannot_change_if_the_learning_rate_depends_on_them(make_recipe: MakeRecipe) -> None:
    train(make_recipe(steps=1, schedule={"name": "cosine"}))
    with pytest.raises(
        RecipeError, match=r"a run of 1 steps, after which the cosine schedule ends. .*: `.* schedule.name=constant`"
    ):
        train(make_recipe(steps=2, schedule={"name": "cosine"}))


def copy_of(people: Path, folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = read_lines(people / "metadata.jsonl")[:count]
    for row in rows:
        (folder / str(row["file_name"])).write_bytes((people / str(row["file_name"])).read_bytes())
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def test_other_records_are_noticed_on_resume(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    recipe = make_recipe(data=str(copy_of(people, tmp_path / "all", 12)))
    train(recipe, [Stop(2)])
    with pytest.raises(FairHumanError, match="records, or their mixture, differ from those of the run") as told:
        train(make_recipe(data=str(copy_of(people, tmp_path / "fewer", 11))))
    assert "(12 + 0 there, 11 + 0 now, trained on + held out)" in str(told.value)
    assert "10_name" not in str(told.value)
    assert train(make_recipe(data=str(people))).finished  # the same records at another place


def test_the_held_out_records_do_not_depend_on_the_others(make_recipe: MakeRecipe) -> None:
    def record(number: int) -> HumanRecord:
        return HumanRecord(f"{number}.jpg", b"", 64, 64, "")

    recipe = make_recipe(validation={"every": 1, "share": 0.2})
    every = [record(number) for number in range(100)]
    train_all, held_all = split(every, recipe)
    train_most, held_most = split(every[5:], recipe)
    assert (len(train_all), len(held_all)) == (80, 20)
    held_keys = {r.key for r in held_all}
    assert held_keys.isdisjoint(r.key for r in train_all)
    assert len(held_keys & {r.key for r in held_most}) >= len(held_most) - 5
    assert len(held_keys & {r.key for r in train_most}) <= 1


def test_records_of_one_photo_are_held_out_together(make_recipe: MakeRecipe) -> None:
    """Close-ups with their photo, or without it, and equal pictures."""
    recipe = make_recipe(validation={"every": 1, "share": 0.2})
    photos = [HumanRecord(f"{number}.jpg", b"", 64, 64, "") for number in range(50)]
    twins = [HumanRecord(f"{number} again.jpg", b"", 64, 64, "", origin=f"{number}.jpg") for number in range(5)]
    cut = [
        HumanRecord(f"{number}.jpg-face-{k}", b"", 64, 64, "", origin=f"{number}.jpg")
        for number in ["0 again", *range(20, 60)]
        for k in range(2)
    ]
    photo_of = {"0 again.jpg": "0.jpg"}
    trained, held_out = split([*photos, *twins, *cut], recipe)
    parts = [{photo_of.get(r.origin or r.key, r.origin or r.key) for r in part} for part in (trained, held_out)]
    assert parts[0].isdisjoint(parts[1])
    assert 25 <= len(held_out) <= 27, "a fifth of 137"
    first = sorted(photos, key=lambda r: hashlib.sha256(f"{recipe.seed} {r.key}".encode()).digest())[:10]
    assert {r.key for r in split(photos, recipe)[1]} == {r.key for r in first}, "as it always was"
    trained, held_out = split(cut[:6], recipe)  # of three photos
    assert (len(trained), len(held_out)) == (4, 2)
    assert split(cut[:2], recipe) == (cut[:2], []), "never all"


def test_close_ups_in_another_source_are_held_out_with_their_photo(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    people, again = tmp_path / "people", tmp_path / "again"
    people.mkdir()
    rows = []
    for number in range(12):
        (people / f"{number}.png").write_bytes(encoded(picture(64, 64, number)))
        rows.append({"file_name": f"{number}.png", "caption": "a person", "faces": [[8, 8, 40, 40]], "hands": []})
    (people / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    near = CloseupSettings(region="face", min_side=8, size=32)
    export_dataset(people, tmp_path / "faces", "imagefolder", near=near)
    shutil.copytree(people, again)
    (again / "12.png").write_bytes((again / "3.png").read_bytes())
    (again / "metadata.jsonl").write_text("\n".join(map(json.dumps, [*rows, {**rows[0], "file_name": "12.png"}])))
    sources = [{"path": str(path)} for path in (again, people, tmp_path / "faces")]
    records, _ = _read_sources(make_recipe(data=sources), LoadReport())
    origins = {record.key: record.origin for record in records}
    assert origins["0/12.png"] == "0/3.png"
    assert origins["2/5.png-face-0"] == "0/5.png"
    assert origins["1/5.png"] is None


def test_vanished_pictures_are_reported_and_too_many_end_the_run(
    make_recipe: MakeRecipe, people: Path, tmp_path: Path
) -> None:
    class Vandal(Watcher):
        def __init__(self, folder: Path, count: int) -> None:
            self.victims = sorted((folder / "images").iterdir())[:count]
            self.told: list[str] = []

        def on_start(self, run: Run) -> None:
            for path in self.victims:
                path.unlink()

        def on_data_notes(self, run: Run, notes: Sequence[Note]) -> None:
            self.told += [str(note) for note in notes]

    few, many = (Vandal(copy_of(people, tmp_path / str(n), 12), n) for n in (2, 8))
    some = {"data": str(tmp_path / "2"), "source": {"max_reject_share": 0.5}}
    run = train(make_recipe("few", steps=12, schedule={"name": "constant"}, **some), [few])
    assert run.finished
    assert len(few.told) == 2, "one for each, though each of two epochs came to them"
    data_report = run.recipe.out / "data_report.json"
    assert json.loads(data_report.read_text(encoding="utf-8"))["counts"] == {"skipped": {"file does not exist": 2}}
    with pytest.raises(FairHumanError, match=r"of 12 pictures have become unreadable.*max_reject_share = 20 %"):
        train(make_recipe("many", data=str(tmp_path / "8"), steps=12), [many])


def test_a_disk_that_is_full_while_a_checkpoint_is_written_says_so(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """On a real small disk, at several fill levels: each writer has its own way to fail."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(disk)], check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("needs to mount a small disk")
        pytest.skip("needs the right to mount a small disk")
    try:
        for fill in (0, 900, 1600, 2200):
            out = disk / str(fill)
            (disk / "ballast").write_bytes(b"x" * fill * 1024)
            recipe = make_recipe(out=f"disk/{fill}", lora={"rank": 16}, checkpoint_every=1)
            with pytest.raises(TrainingError, match=r"the disk is full.*the same command again"):
                train(recipe)
            assert not list((out / "checkpoints").glob("step-*/*.partial"))
            shutil.rmtree(out)
            (disk / "ballast").unlink()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("out", ["/proc/nowhere/run", "{people}/metadata.jsonl"])
def test_an_out_that_cannot_be_written_is_named(make_recipe: MakeRecipe, people: Path, out: str) -> None:
    recipe = make_recipe().model_copy(update={"out": Path(out.format(people=people))})
    with pytest.raises(TrainingError, match=r"(/proc/nowhere|metadata.jsonl)[^:]*: "):
        train(recipe)


def test_files_of_a_run_are_readable_by_others(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=1, checkpoint_every=1)
    train(recipe)
    for path in recipe.out.rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044, path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
def test_a_compiled_run_takes_the_same_steps(make_recipe: MakeRecipe) -> None:
    plain, compiled = make_recipe("plain", steps=2), make_recipe("compiled", steps=2, compile=True)
    train(plain)
    train(compiled)
    ours, theirs = (load_file(r.out / "lora" / "pytorch_lora_weights.safetensors") for r in (plain, compiled))
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.abs().max()) for tensor in ours.values())
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-3 * largest) for name in ours)
