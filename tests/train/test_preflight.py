"""The findings of `fairhuman train --dry-run`, its exit codes, and what a failed start leaves behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml
from PIL import Image

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.errors import DataError, FairHumanError, ModelError, RecipeError, TrainingError
from fairhuman.train import model
from fairhuman.train.loop import train
from fairhuman.train.memory import Memory
from fairhuman.train.preflight import (
    HUB_WEIGHTS,
    StartFinding,
    check_at_once,
    check_main_memory,
    data_findings,
    findings,
    measured_speed,
    parse_memory,
    run_data,
)
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Watcher
from fairhuman.train.settings import NO_EIGHTBIT
from fairhuman.utils.torch_device import without_gpu
from helpers.places import RECIPES

MakeRecipe = Callable[..., TrainRecipe]
Typed = Callable[..., tuple[int, str, str]]


def found(recipe: TrainRecipe, memory: int | None = None) -> dict[str, tuple[str, str]]:
    return {one.what: (one.state, one.text) for one in findings(recipe, memory)}


def test_weights_of_the_hub_are_missing_without_a_network(
    typed: Typed, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    peaks = {"encode": 2**30, "texts": 2**20, "step": 2**30}  # whose computation takes a quarter of a minute
    monkeypatch.setattr("fairhuman.train.memory._peaks", lambda *_: peaks)
    recipe = RECIPES / "lora-sdxl.yaml"
    options = (f"data={people}", f"out={tmp_path / 'run'}", "model=nobody/such-a-model", "resolution=64")
    options += ("lora.rank=2", "strategy=ls")  # the cheapest memory to compute
    code, said, error = typed("train", recipe, *options, "--dry-run", "--device-memory", "80GB")
    text, _, lines = said.partition("\n\n")
    assert yaml.safe_load(text)["model"] == "nobody/such-a-model"
    assert code == 1, error
    assert f"missing {HUB_WEIGHTS}: nobody/such-a-model isn't on this machine" in lines
    assert [line for line in lines.splitlines() if line.startswith("missing")] == lines.splitlines()[:1]
    assert "memory: about " in lines


def test_settings_are_shown_whatever_is_missing(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "a.png")
    recipe = RECIPES / "lora-small.yaml"
    options = (f"out={tmp_path / 'run'}", "model=nowhere", "--dry-run")
    code, said, _ = typed("train", recipe, f"data={tmp_path / 'photos'}", *options)
    text, _, lines = said.partition("\n\n")
    assert (code, yaml.safe_load(text)["model"]) == (1, "nowhere")
    assert "missing model: model 'nowhere': expected 'small'" in lines
    assert "missing data: " in lines
    assert f"run `fairhuman data build {tmp_path / 'photos'} people min_side=null` first" in lines
    assert typed("train", recipe, "strategy=mdp", "--dry-run")[0] == 2
    assert "note    data: " in typed("train", recipe, f"data={tmp_path / 'photos'}", "build=true", *options)[1]


def test_what_depends_on_a_missing_model_is_not_known(make_recipe: MakeRecipe) -> None:
    assert found(make_recipe())["data"][1].endswith("of a picture's area is cropped away on average")
    missing = found(make_recipe(model="nowhere"))
    assert missing["data"][1].endswith("12 pictures to train on, 0 held out")
    assert "view" not in missing
    assert missing["memory"] == ("note", "not known: the model is missing")


def test_a_warm_up_as_long_as_the_run_is_noted(make_recipe: MakeRecipe) -> None:
    name = {"name": "cosine"}
    note = "schedule.warmup_steps=4 isn't below steps=4: the learning rate never reaches 0.001; lower it"
    long = make_recipe(schedule={**name, "warmup_steps": 4})
    assert found(long)["schedule"] == ("note", note)
    assert "schedule" not in found(make_recipe(schedule={**name, "warmup_steps": 3}))
    said: list[str] = []

    class Listener(Watcher):
        def on_message(self, text: str) -> None:
            said.append(text)

    train(long, [Listener()])
    assert note in said


def test_pictures_with_a_region_are_counted(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(people, tmp_path / "people")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows[:3]:
        row["logo"] = [[1, 1, 9, 9]]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = make_recipe(data=str(folder), regions={"names": ("face", "logo")}, validation={"every": 1, "share": 0.25})
    data = next(one for one in run_data(recipe, True, False) if not isinstance(one, StartFinding))
    counted = [sum(record.has("logo") for record in part.records) for part in data.datasets]
    assert sum(counted) == 3
    lines = [one.line() for one in data_findings(recipe, data, LoadReport(), True)]
    assert f"note    regions: logo: in {counted[0]} of 9 to train on and {counted[1]} of 3 held out" in lines


def test_a_device_that_is_too_small_is_missing_with_the_cheapest_change(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(batch_size=8, resolution=128)
    needed = float(found(recipe, 2**40)["memory"][1].split()[1])
    state, text = found(recipe, int((needed - 0.05) * 2**30))["memory"]
    assert state == "missing"
    assert "; cheapest change that fits: " in text


def test_shards_may_fit_where_the_whole_does_not(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(batch_size=8, resolution=128, kind="full", processes={"sharding": "fsdp"})
    state, text = found(recipe, 2**27)["memory"]
    assert state == "note"
    assert text.endswith(": so by one process; how much less shards take isn't known")


def test_a_folder_of_pictures_is_no_place_for_a_run(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    recipe.out.mkdir(parents=True)
    (recipe.out / "IMG_1.JPG").touch()
    with pytest.raises(RecipeError, match=r"holds IMG_1.JPG, which no run wrote; give a new folder"):
        check_at_once(recipe)
    assert next(findings(recipe)).line().startswith(f"missing out: '{recipe.out}': holds IMG_1.JPG")
    (recipe.out / "IMG_1.JPG").unlink()
    assert check_at_once(recipe) == 0


def test_a_folder_that_can_not_be_written_is_no_place_for_a_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recipe = make_recipe().model_copy(update={"out": tmp_path / "file" / "run"})
    assert next(findings(recipe)).line() == f"missing out: '{recipe.out}': can't be written: Not a directory"


@pytest.mark.parametrize("kind", ["a build", "metadata", "the data itself"])
def test_a_data_set_is_no_place_for_a_run(make_recipe: MakeRecipe, people: Path, kind: str) -> None:
    recipe = make_recipe()
    if kind == "the data itself":
        recipe = recipe.model_copy(update={"out": people})
    elif kind == "a build":
        (recipe.out / "manifest").mkdir(parents=True)
        (recipe.out / "recipe.yaml").write_text("regions: [face]\n")
    else:
        recipe.out.mkdir(parents=True)
        (recipe.out / "metadata.csv").touch()
    told = "is a data set, whose files a run would replace; give a new folder"
    with pytest.raises(RecipeError, match=f"^out '{recipe.out}': {told}$"):
        check_at_once(recipe)
    first = next(findings(recipe))
    assert (first.what, first.state, first.text) == ("out", "missing", f"'{recipe.out}': {told}")


def test_a_run_that_began_in_a_data_set_s_folder_goes_on(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    recipe.out.mkdir(parents=True)
    (recipe.out / "metadata.csv").touch()
    (recipe.out / "metrics.jsonl").touch()
    assert check_at_once(recipe) == 0


def test_hours_come_from_a_measured_run_alone(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=2)
    unknown = f"not known: no run with these settings was measured in {recipe.out.parent} yet"
    assert found(recipe)["hours"] == ("note", unknown)
    train(recipe)
    assert found(recipe)["hours"] == ("ok", "step 2 of 2 is done; nothing is left to train")
    other = make_recipe("other", steps=50, learning_rate=0.5)
    measured = measured_speed(other)
    assert measured is not None
    rates = [json.loads(line)["images_per_s"] for line in (recipe.out / "metrics.jsonl").read_text().splitlines()]
    assert min(rates) <= measured[0] <= max(rates)
    assert found(other)["hours"][1].endswith(f"measured in {recipe.out}, without previews")
    assert measured_speed(make_recipe("other", lora={"rank": 2})) is None, "its steps cost less"


@pytest.mark.parametrize("processes", [None, 1, 4])
def test_a_measured_speed_is_of_one_process(make_recipe: MakeRecipe, processes: int | None) -> None:
    recipe = make_recipe("mine", steps=2)
    beside = recipe.out.parent / "beside"
    beside.mkdir(parents=True)
    config.save(recipe, beside / "recipe.yaml")
    device = "cpu" if without_gpu() else "cuda"
    (beside / "summary.json").write_text(json.dumps({"device": device, "processes": processes}))
    (beside / "metrics.jsonl").write_text('{"step": 1, "images_per_s": 8.0}\n{"step": 2, "images_per_s": 8.0}\n')
    assert measured_speed(recipe) == (8.0 / (processes or 1), beside)
    values = recipe.model_dump(mode="json")
    del values["view"]["bucket_area"]
    (beside / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert measured_speed(recipe) is None, "buckets of an earlier version had other areas"


@pytest.mark.parametrize(
    ("name", "content"),
    [("summary.json", "[5]"), ("summary.json", "[" * 5000), ("metrics.jsonl", "5\n5\n"), ("recipe.yaml", "[" * 5000)],
)
def test_a_damaged_run_beside_this_one_is_passed_over(make_recipe: MakeRecipe, name: str, content: str) -> None:
    recipe = make_recipe("mine", steps=2)
    beside = recipe.out.parent / "beside"
    beside.mkdir(parents=True)
    config.save(recipe, beside / "recipe.yaml")
    (beside / "summary.json").write_text('{"device": "cpu"}')
    (beside / name).write_text(content)
    assert measured_speed(recipe) is None


@pytest.mark.parametrize(
    ("precision", "flag", "told"),
    [("bf16", "avx512_bf16", False), ("bf16", "avx512_fp16", True), ("fp16", "amx_fp16", False), ("fp32", "", False)],
)
def test_half_precision_is_slow_on_a_cpu_without_its_instructions(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, precision: str, flag: str, told: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", flag: True})
    lines = found(make_recipe(precision=precision))
    assert ("precision" in lines) == told
    assert not told or f"no instructions for {precision}" in lines["precision"][1]


def test_a_slow_precision_is_told_when_training_starts(
    typed: Typed, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"})
    monkeypatch.setattr("fairhuman.train.loop.train", Mock(side_effect=TrainingError("as far as this")))
    options = (RECIPES / "lora-small.yaml", f"data={people}", f"out={tmp_path / 'run'}")
    _, said, error = typed("train", *options, "precision=bf16")
    assert "note    precision: this CPU has no instructions for bf16" in said
    assert "as far as this" in error
    assert "precision" not in typed("train", *options)[1]


@pytest.mark.parametrize(
    ("precision", "capability", "told"),
    [("bf16", (7, 5), True), ("bf16", (8, 0), False), ("fp16", (7, 5), False), ("fp32", (7, 5), False)],
)
def test_a_gpu_without_instructions_for_bf16_is_told(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, precision: str, capability: tuple[int, int], told: bool
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    lines = found(make_recipe(precision=precision), 2**34)
    assert ("precision" in lines) == told
    assert not told or "compute capability 7.5, has no instructions for bf16" in lines["precision"][1]
    assert not told or lines["precision"][1].endswith("take precision=fp16")


@pytest.mark.parametrize(
    ("quantize", "compiled", "capability", "refused"),
    [
        ("fp8", True, (8, 6), True),
        ("fp8", True, (8, 9), False),
        ("fp8", True, (12, 0), False),
        ("fp8", False, (8, 6), False),
        ("int8", True, (8, 6), False),
    ],
)
def test_a_gpu_that_can_not_compile_fp8_is_refused(
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    quantize: str,
    compiled: bool,
    capability: tuple[int, int],
    refused: bool,
) -> None:
    """Before the model is loaded."""

    class LoadedError(Exception):
        """Would load the model."""

    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
    monkeypatch.setattr("fairhuman.train.guard.device_bytes", lambda: 2**34)
    monkeypatch.setattr(model, "load_pipeline", Mock(side_effect=LoadedError))
    recipe = make_recipe(base={"quantize": quantize}, compile=compiled)
    with pytest.raises(ModelError if refused else LoadedError) as told:
        model.build_model(recipe, torch.device("cuda"))
    if refused:
        assert "needs a GPU of compute capability 8.9 or higher, found 8.6: take base.quantize=int8" in str(told.value)
    expected = ("missing", str(told.value)) if refused else None
    assert found(recipe).get("compile") == expected


@pytest.mark.parametrize(
    ("model", "cuda", "mps", "memory", "told"),
    [
        ("nowhere", False, False, None, True),
        ("nowhere", True, False, None, False),
        ("nowhere", False, True, None, True),  # Apple's GPU isn't used
        ("nowhere", False, False, 2**34, False),
        ("small", False, False, None, False),
    ],
)
def test_a_large_model_on_the_cpu_is_told(
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    cuda: bool,
    mps: bool,
    memory: int | None,
    told: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    lines = found(make_recipe(model=model), memory)
    assert ("device" in lines) == told
    assert not told or lines["device"][1].startswith("no GPU found: SDXL would train on the CPU, which takes days; ")


def test_the_package_of_an_optimiser_is_missing_before_anything_is_loaded(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(optimizer={"name": "adamw8bit"})
    monkeypatch.setattr("fairhuman.train.preflight.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=r"bitsandbytes isn't installed: pip install 'fairhuman\[eightbit\]'"):
        check_at_once(recipe)
    assert found(recipe)["optimizer"] == ("missing", NO_EIGHTBIT)
    monkeypatch.setattr("fairhuman.train.preflight.find_spec", lambda _: "there")
    assert check_at_once(recipe) == 0
    assert "optimizer" not in found(recipe)


def test_a_lora_that_does_not_fit_is_missing(make_recipe: MakeRecipe) -> None:
    run = make_recipe(steps=1)
    train(run)
    start = run.product
    assert "lora.start" not in found(make_recipe("next", lora={"rank": 4, "start": str(start)}))
    state, text = found(make_recipe("next", lora={"rank": 2, "start": str(start)}))["lora.start"]
    assert (state, text.endswith("has rank 4, but lora.rank is 2; set lora.rank=4")) == ("missing", True)
    state, text = found(make_recipe("next", lora={"rank": 4, "start": str(run.out)}))["lora.start"]
    assert (state, "found none" in text) == ("missing", True)
    state, text = found(make_recipe("next", lora={"rank": 4, "start": "no/such"}))["lora.start"]
    assert (state, text) == ("missing", "no/such: doesn't exist yet")


def test_a_run_that_main_memory_can_not_hold_is_refused(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("fairhuman.train.guard.device_bytes", lambda: 20 * 2**30)
    monkeypatch.setattr("fairhuman.train.memory.cheapest_changes", lambda *_, **__: ["batch_size=1 (9.0 GiB)"])
    needed = Memory(2**34, 0, 0, 0, 2**33, None, 0)
    monkeypatch.setattr("fairhuman.train.preflight._memory_of", lambda _: needed)
    large = make_recipe(resolution=1024, batch_size=8)
    with pytest.raises(TrainingError) as told:
        check_main_memory(large)
    said = "needs about 24.9 GiB of main memory, which has 20.0. Cheapest changes that fit: batch_size=1 (9.0 GiB)"
    assert said in str(told.value)
    check_main_memory(make_recipe())  # so small that it isn't computed
    monkeypatch.setattr("fairhuman.train.guard.device_bytes", lambda: 30 * 2**30)
    check_main_memory(large)
    monkeypatch.setattr("fairhuman.train.guard.device_bytes", lambda: 26 * 2**30)
    with pytest.raises(TrainingError, match=r"needs about 24\.9 GiB .* has 26\.0\. .* may take 8 % more than computed"):
        check_main_memory(large)
    assert found(large)["GPU"] == (
        "missing",
        "about 24.9 GiB needed, main memory has 26.0, no GPU; a run may take 8 % more than computed",
    )
    monkeypatch.setattr("fairhuman.train.guard.device_bytes", lambda: 30 * 2**30)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="for each of 2 processes"):
        check_main_memory(large)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_main_memory(large)


def test_a_setting_that_a_build_alone_follows_is_refused(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    """Unless it is the build's own, or the run has begun."""
    built = tmp_path / "built set"
    shutil.copytree(people, built)
    facts = {
        "funnel": [{"stage": "source", "rows": 12}],
        "filters": [],
        "recipe": {"source": {"mask": None}, "regions": []},
    }
    (built / "report.json").write_text(json.dumps(facts), encoding="utf-8")
    (built / "source.json").write_text(json.dumps({"source": "/my photos"}), encoding="utf-8")
    asking = make_recipe(data=str(built), source={"mask": "subject"})
    again = f"fairhuman data build '/my photos' '{built}' --recipe '{built}/recipe.yaml' source.mask=subject"
    with pytest.raises(DataError) as told:
        check_at_once(asking)
    assert again in str(told.value)
    states = [(one.state, one.text) for one in findings(asking) if one.what == "data"]
    assert [state for state, text in states if again in text] == ["missing"]
    assert "ok" not in [state for state, _ in states]
    assert check_at_once(make_recipe(data=str(built), source={"mask": "ignore"})) == 0, "which is what null means"
    (asking.out / "checkpoints" / "step-0000002").mkdir(parents=True)
    assert check_at_once(asking) == 2
    (asking.out / "checkpoints" / "step-0000002").rmdir()
    (built / "report.json").write_text(json.dumps(facts).replace("null", '"subject"'), encoding="utf-8")
    assert check_at_once(asking) == 0


@pytest.mark.parametrize(("text", "size"), [("12GB", 12), ("24 GiB", 24), ("0.5g", 0.5), ("8", 8)])
def test_sizes_of_devices(text: str, size: float) -> None:
    assert parse_memory(text) == size * 2**30


def test_a_failed_start_leaves_nothing(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    deep = make_recipe("a/b/run", model="nowhere")
    with pytest.raises(FairHumanError, match="nowhere"):
        train(deep)
    assert not (tmp_path / "a").exists()
    (tmp_path / "kept").mkdir()
    with pytest.raises(FairHumanError, match="nowhere"):
        train(make_recipe("kept", data="nowhere"))
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_bare_folder_is_built_on_request(shared: Path, tmp_path: Path, typed: Typed) -> None:
    """Photos with captions beside them; the same command again resumes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted((shared / "data" / "ccp" / "images").iterdir())[:3]):
        shutil.copy(path, photos / f"{number}.jpg")
        (photos / f"{number}.txt").write_text(f"person {number}", encoding="utf-8")
    short = ["steps=1", "batch_size=1", "resolution=32", "validation.every=0", "preview.count=0", "lora.rank=2"]
    short += [f"data={photos}", f"out={tmp_path / 'run'}", "regions.names=face"]
    code, _, error = typed("train", RECIPES / "lora-small.yaml", *short)
    assert (code, "or give build=true, which does both" in error) == (1, True)
    code, said, error = typed("train", RECIPES / "lora-small.yaml", *short, "build=true")
    built = tmp_path / "run-data"
    assert code == 0, error + said
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"] == str(built)
    assert yaml.safe_load((built / "recipe.yaml").read_text())["caption"]["kind"] == "text"
    assert typed("train", RECIPES / "lora-small.yaml", *short, "build=true")[0] == 0
    with pytest.raises(DataError, match="holds photos without boxes of face"):
        check_at_once(TrainRecipe(data=photos, out=tmp_path / "other", steps=1, regions={"names": ("face",)}))


@pytest.mark.parametrize(
    ("names", "command", "end"),
    [
        (["face", "eyes", "feet"], '"detect.regions={eyes: mediapipe, feet: mediapipe}"', "or give build=true"),
        (["face", "eyes", "logo"], '"detect.regions={eyes: mediapipe, logo: WORDS}"', "WORDS say what logo look like"),
        (["Head", "Logo"], '"detect.regions={head: mediapipe, logo: WORDS}"', "WORDS say what logo look like"),
    ],
)
def test_a_bare_folder_names_the_command_that_finds_further_regions(
    tmp_path: Path, names: list[str], command: str, end: str
) -> None:
    Image.new("RGB", (600, 600)).save(tmp_path / "1.jpg")
    values = {"data": str(tmp_path), "out": "run", "steps": 1, "regions": {"names": names}}
    with pytest.raises(DataError) as caught:
        check_at_once(config.build(TrainRecipe, values))
    assert command in str(caught.value)
    assert end in str(caught.value)
    building = config.build(TrainRecipe, {**values, "build": True})
    if "WORDS" not in command:
        check_at_once(building)
        return
    with pytest.raises(DataError) as again:
        check_at_once(building)
    assert str(again.value) == str(caught.value)
