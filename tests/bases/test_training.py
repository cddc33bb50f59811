"""Runs on every base from recipe to pictures: one base each day, all of them among the slow tests."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from fairhuman import config
from fairhuman.bases.base import base_of
from fairhuman.bases.flux import Flux
from fairhuman.data.samples.encodings import Encodings
from fairhuman.errors import ModelError, RecipeError
from fairhuman.generate.lora import load_lora
from fairhuman.models.locations import DIFFUSERS_FILE, side_multiple
from fairhuman.models.merge import MergeJob, merge
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import BaseSettings
from fairhuman.train.bases import check_settings
from fairhuman.train.cache.texts import TextCache
from fairhuman.train.loop import train
from fairhuman.train.memory import memory_of
from fairhuman.train.preflight import findings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Watcher
from helpers.base_cases import CAPTIONS, Case
from helpers.figures import write_figures
from helpers.launched import finish, train_in, wait_for_step
from helpers.places import RECIPES
from helpers.runs import Crash
from helpers.tiny_bases import BUILD

Typed = Callable[..., tuple[int, str, str]]
TinyBase = Callable[[str], Path]
EVERY = [pytest.param(name, marks=() if name == "sd3" else pytest.mark.slow) for name in BUILD]


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures") / "people"
    write_figures(folder, 12, 64, seed=1)
    return folder


def recipe_of(model: Path, data: Path, out: Path, *overrides: str) -> TrainRecipe:
    values: dict[str, Any] = {
        "model": str(model),
        "data": str(data),
        "out": str(out),
        "steps": 3,
        "batch_size": 2,
        "resolution": 64,
        "learning_rate": 1e-2,
        "checkpoint_every": 1,
        "lora": {"rank": 4},
        "cache": {"folder": str(out.parent / "cache")},
        "source": {"workers": 0},
        "validation": {"every": 3, "share": 0.2},
        "preview": {"count": 0},
    }
    return config.build(TrainRecipe, values, overrides)


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_of_sdxl_trains_a_lora_that_changes_its_pictures(
    name: str, tiny_base: TinyBase, figures: Path, tmp_path: Path, typed: Typed
) -> None:
    model, out = tiny_base(name), tmp_path / "run"
    changed = ("resolution=64", "lora.targets=attention", "cache.latents=false", "steps=2", "learning_rate=0.1")
    quick = ("batch_size=2", "source.workers=0", "schedule.name=constant", "preview.count=1", "preview.steps=2")
    where = (f"model={model}", f"data={figures}", f"out={out}")
    code, said, errors = typed("train", RECIPES / "lora-small.yaml", *where, *changed, *quick)
    assert code == 0, said + errors
    assert [file.name for file in (out / "lora").iterdir()] == [DIFFUSERS_FILE]
    shown = json.loads((out / "previews/index.json").read_text())["rows"][0]["steps"]
    assert shown.keys() == {"0", "2"}
    for step in shown.values():
        assert {way: pixels(out / file).shape for way, file in step.items()} == dict.fromkeys(
            ("caption", "photo"), (64, 64, 3)
        )
    pictures = []
    for added in ((), ("--lora", out / "lora"), ("--lora", out / "lora", "--no-fuse")):
        drawn = tmp_path / f"drawn-{len(pictures)}"
        asked = ("--prompt", "a person in a red shirt", "--steps", "2", "--height", "64", "--width", "64")
        code, said, errors = typed("sample", drawn, *asked, "--model", model, *added)
        assert code == 0, said + errors
        pictures.append(next(drawn.glob("*.png")))
    with Image.open(pictures[0]) as opened:
        assert opened.info["scheduler"] == "FlowMatchEulerDiscreteScheduler"
    plain, fused, beside = map(pixels, pictures)
    assert np.abs(fused - beside).max() <= 2
    assert (plain != fused).any()


def pixels(file: Path) -> NDArray[np.int64]:
    """The pixels of a picture [H, W, 3]."""
    with Image.open(file) as opened:
        return np.asarray(opened, np.int64)


class Told(Watcher):
    """Keeps a run's messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("cached", [pytest.param("false", marks=pytest.mark.slow), "true"])
def test_a_resumed_run_ends_with_the_same_bytes(
    name: str, cached: str, tiny_base: TinyBase, figures: Path, tmp_path: Path
) -> None:
    files = []
    for end in (None, 2):
        out = tmp_path / f"{end}" / "run"
        more = (f"cache.text={cached}", f"cache.latents={cached}", "view.crop=center", "ema.decay=0.9")
        recipe = recipe_of(tiny_base(name), figures, out, *more)
        if end is not None:
            with pytest.raises(RuntimeError, match="crash"):
                train(recipe, [Crash(end)])
            assert not (out / "lora").exists()
        assert train(recipe).finished
        lines = (out / "validation.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 3
        files.append(((out / "lora" / DIFFUSERS_FILE).read_bytes(), lines[-1]))
    assert files[0] == files[1]


@pytest.mark.parametrize("name", EVERY)
def test_kill_9_and_the_same_command_give_the_same_lora(
    name: str, tiny_base: TinyBase, figures: Path, tmp_path: Path
) -> None:
    """The kill comes after the second step, of which there is no checkpoint yet."""
    whole, killed = (
        recipe_of(
            tiny_base(name), figures, tmp_path / place / "run", "steps=6", "cache.text=true", "validation.every=0"
        )
        for place in ("whole", "killed")
    )
    train(whole)
    (worker,) = train_in(killed, tmp_path, 1, hangs_at=2)
    wait_for_step(worker, killed.out, 2)
    worker.send_signal(signal.SIGKILL)
    finish([worker], [-signal.SIGKILL])
    assert not killed.product.exists()
    run = train(killed)
    assert run.finished
    assert len(run.starts) == 2
    ours, theirs = ((recipe.product / DIFFUSERS_FILE).read_bytes() for recipe in (killed, whole))
    assert ours == theirs


@pytest.mark.parametrize("name", EVERY)
def test_two_processes_train_as_one(name: str, tiny_base: TinyBase, figures: Path, tmp_path: Path) -> None:
    """LoRA within 1e-4 of its largest entry after three steps, with captions cached by both."""
    common = ("optimizer.name=sgd", "learning_rate=0.2", "cache.text=true", "validation.every=0")
    one = recipe_of(tiny_base(name), figures, tmp_path / "one" / "run", "batch_size=4", *common)
    two = recipe_of(tiny_base(name), figures, tmp_path / "two" / "run", "batch_size=2", *common)
    finish(train_in(two, tmp_path, 2))
    train(one)
    check_near(one.out / "lora" / DIFFUSERS_FILE, two.out / "lora" / DIFFUSERS_FILE)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILD)
def test_sharded_weights_train_as_whole_ones(name: str, tiny_base: TinyBase, figures: Path, tmp_path: Path) -> None:
    common = ("kind=full", "optimizer.name=sgd", "learning_rate=0.05", "steps=2", "validation.every=0")
    common = (*common, "fairness.mode=exact")
    shards = ("processes.sharding=fsdp", "batch_size=2")
    one = recipe_of(tiny_base(name), figures, tmp_path / "one" / "run", "batch_size=4", *common)
    two = recipe_of(tiny_base(name), figures, tmp_path / "two" / "run", *shards, *common)
    finish(train_in(two, tmp_path, 2))
    train(one)
    inside = Path("model", "transformer", "diffusion_pytorch_model.safetensors")
    check_near(one.out / inside, two.out / inside)


def check_near(one: Path, other: Path) -> None:
    """Tensors of the same names, within 1e-4 of the largest entry."""
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.abs().max()) for tensor in ours.values())
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-4 * largest), name


def test_cached_texts_are_the_encoded_ones_rounded_to_bfloat16(case: Case, tmp_path: Path) -> None:
    cache = TextCache(Encodings(tmp_path / "texts-a"), case.base, None, torch.device("cpu"))
    first = cache.texts(CAPTIONS)
    cache.kept.flush()
    again = TextCache(Encodings(tmp_path / "texts-a"), case.base, None, torch.device("cpu"))
    for fresh, new, read in zip(case.base.texts(CAPTIONS), first, again.texts(CAPTIONS), strict=True):
        assert fresh.keys() == read.keys()
        for name, tensor in fresh.items():
            assert torch.equal(read[name], tensor.bfloat16())
            assert torch.equal(new[name], read[name])
    assert again.kept.added == 0


def test_captions_whose_end_is_not_read_are_counted(tiny_base: TinyBase, figures: Path, tmp_path: Path) -> None:
    long = "a hand and a face, " * 200
    data = tmp_path / "people"
    shutil.copytree(figures, data)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    rows[0]["caption"] = rows[1]["caption"] = long
    rows[2]["caption"] = long + "in red"
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    told = Told()
    train(recipe_of(tiny_base("sd3"), data, tmp_path / "run", "steps=1", "validation.every=0"), [told])
    assert [text for text in told.texts if "captions" in text] == [
        f"2 captions are longer than the 256 tokens that the model reads, and cut, as {long[:60]!r}"
    ]


def test_what_is_read_whole_is_not_counted(case: Case) -> None:
    assert [case.base.cuts(text) for text in ("", "two hands", "two hands and a face, " * 400)] == [False, False, True]


def test_shapes_of_texts_are_those_of_the_longest_caption(case: Case) -> None:
    longest = case.base.encode("two hands and a face, " * 400)
    shapes = case.base.text_shapes(case.base.network.config)
    assert {name: tuple(tensor.shape) for name, tensor in longest.items()} == shapes


def test_sides_are_multiples_of_a_token(case: Case) -> None:
    expected = {"small_flow": 8}.get(case.name, 16)
    assert side_multiple(str(case.folder)) == case.base.factor * case.base.patch == expected


@pytest.mark.parametrize("name", EVERY)
def test_a_dry_run_knows_memory_and_caches(name: str, tiny_base: TinyBase, figures: Path, tmp_path: Path) -> None:
    more = ("cache.text=true", "cache.latents=true", "view.crop=center", "steps=3")
    recipe = recipe_of(tiny_base(name), figures, tmp_path / "run", *more)
    found = {one.what: one for one in findings(recipe)}
    assert found["memory"].state in ("ok", "missing")
    assert "GiB needed" in found["memory"].text
    assert "latents of" in found["disk"].text
    assert "texts of" in found["disk"].text


def test_what_is_not_for_a_flow_base_is_refused_by_name(tiny_base: TinyBase, tmp_path: Path) -> None:
    refused = {
        "kind=controlnet": r"kind=controlnet isn't for Stable Diffusion 3\.5 .*: use lora or full",
        "kind=mole": "kind=mole isn't for .*: use lora or full",
        "fairness.mode=tail": r"fairness\.mode=tail isn't for .*: it cuts SDXL's U-Net; use output or exact",
        "fairness.mode=split": r"fairness\.mode=split isn't for",
        "noise.offset=0.05": r"noise\.offset=0\.05 isn't for",
        "precision=fp16": r"precision=fp16 isn't for .*: its text encoders overflow in fp16; use bf16",
        "lora.kohya_precision=bf16": r"lora\.kohya_precision=bf16 isn't for .*: it has one file",
        "lora.targets=attention+conv": r"lora\.targets=attention\+conv isn't for .*use attention",
    }
    for override, message in refused.items():
        with pytest.raises(RecipeError, match=message):
            check_settings(recipe_of(tiny_base("sd3"), tmp_path, tmp_path / "run", override))
    with pytest.raises(RecipeError, match=r"full\.text_encoders=true isn't for"):
        check_settings(recipe_of(tiny_base("sd3"), tmp_path, tmp_path / "run", "kind=full", "full.text_encoders=true"))
    check_settings(recipe_of(tiny_base("sd3"), tmp_path, tmp_path / "run", "noise.times.shift=2"))
    with pytest.raises(RecipeError, match=r"noise\.times\.shift=2\.0 isn't for SDXL .*: its timesteps are uniform"):
        check_settings(recipe_of(Path("small"), tmp_path, tmp_path / "run", "noise.times.shift=2"))


def test_what_needs_sdxl_says_so(tiny_base: TinyBase, tmp_path: Path, typed: Typed) -> None:
    model = tiny_base("sd3")
    with pytest.raises(ModelError, match=r"base\.prediction is for SDXL alone, but model .* is Stable Diffusion 3\.5"):
        load_pipeline(str(model), base=BaseSettings(prediction="v"))
    asked = (tmp_path / "out", "--prompt", "a", "--model", model)
    code, _, errors = typed("sample", *asked, "--height", "72")
    assert code != 0
    assert "height and width must be multiples of 16" in errors
    code, _, errors = typed("sample", *asked, "--precision", "fp16")
    assert code != 0
    assert "--precision fp16: the text encoders of Stable Diffusion 3.5 overflow in fp16; use bf16" in errors
    code, _, errors = typed("sample", *asked, "--controlnet", "pose=owner/name", "--control", "pose=none")
    assert code != 0
    assert "a control is for SDXL alone" in errors


def test_a_hub_s_model_is_used_once_it_is_on_this_machine(
    tiny_base: TinyBase, figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tiny_base("sd3") / "model_index.json"
    monkeypatch.setattr("fairhuman.models.sdxl.hf_hub_download", lambda *_: str(index))
    with pytest.raises(ModelError, match=r"is Stable Diffusion 3\.5, .*run `hf download owner/name`, then the same"):
        load_pipeline("owner/name")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(index))
    assert type(load_pipeline("owner/name")).__name__ == "StableDiffusion3Pipeline"
    assert side_multiple("owner/name") == 16
    recipe = recipe_of(Path("owner/name"), figures, tmp_path / "run")
    found = {one.what: one for one in findings(recipe)}
    assert found["model"].text == "owner/name"
    ours = memory_of(recipe)
    assert ours == memory_of(recipe_of(tiny_base("sd3"), figures, tmp_path / "run"))


def test_a_hub_s_model_is_loaded_by_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    loaded = []
    monkeypatch.setattr(Flux, "load", lambda place, _: loaded.append(place) or Flux("pipeline"))
    assert load_pipeline("black-forest-labs/FLUX.1-dev") == "pipeline"
    assert loaded == ["black-forest-labs/FLUX.1-dev"]


def test_a_run_starts_from_a_lora_and_a_merged_model_has_it(case: Case, tmp_path: Path) -> None:
    case.model.save(tmp_path / "lora")
    job = MergeJob(str(case.folder), tmp_path / "lora", tmp_path / "merged", precision="fp32")
    assert set(merge(job)) == {case.base.part}
    beside = load_pipeline(str(case.folder))
    load_lora(beside, tmp_path / "lora", fuse=False)
    recipe = recipe_of(case.folder, tmp_path, tmp_path / "run", f"lora.start={tmp_path / 'lora'}")
    from fairhuman.train.model import build_model

    started = build_model(recipe, torch.device("cpu"))
    noisy = torch.randn(1, case.base.channels, 8, 12, generator=torch.Generator().manual_seed(3))
    predictions = []
    for pipeline in (case.base.pipeline, beside, load_pipeline(str(tmp_path / "merged")), started.pipeline):
        base = base_of(pipeline)
        with torch.no_grad():
            predictions.append(base.predict(noisy, torch.tensor([0.4]), base.texts(CAPTIONS[:1])))
    for other in predictions[1:]:
        assert torch.allclose(predictions[0], other, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_all_weights_of_the_network_can_be_trained(
    name: str, tiny_base: TinyBase, figures: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_base(name), figures, tmp_path / "run", "kind=full", "steps=1", "fairness.mode=exact")
    trained = train(recipe)
    before, after = load_pipeline(str(tiny_base(name))), load_pipeline(str(tmp_path / "run" / "model"))
    part = base_of(after).part
    weights = {file.name for file in (tmp_path / "run" / "model" / part).glob("*.safetensors")}
    assert weights
    ours, theirs = (dict(base_of(one).network.named_parameters()) for one in (trained.model.pipeline, after))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert any(not torch.equal(value, theirs[key]) for key, value in base_of(before).network.named_parameters())
    assert load_file(next((tmp_path / "run" / "model" / "vae").glob("*.safetensors"))).keys()


def test_a_picture_is_drawn_again_from_noise_of_a_part_of_the_way(case: Case) -> None:
    """With strength near 0, the picture that is decoded is the one that was encoded."""
    pictures = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    start = case.base.moments(pictures)[0]
    generator = torch.Generator().manual_seed(1)
    near = case.base.picture(case.base.redraw(start, 1e-4, CAPTIONS[0], generator, steps=10, guidance=3.0))
    assert torch.allclose(near, case.base.decode(start)[0], atol=2e-2)
    far, other = (
        case.base.picture(
            case.base.redraw(start, 0.6, caption, torch.Generator().manual_seed(1), steps=10, guidance=3.0)
        )
        for caption in (CAPTIONS[0], CAPTIONS[2])
    )
    assert not torch.allclose(far, near, atol=1e-2)
    assert not torch.allclose(far, other, atol=1e-3)
