"""Runs with caches on disk have the same bits whatever the cache contains and whoever writes to it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from fairhuman.bases.base import base_of, stacked
from fairhuman.bases.sdxl import encode_prompts
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples import encodings
from fairhuman.data.samples.encodings import Encodings
from fairhuman.errors import FairHumanError
from fairhuman.models.fingerprint import SDXL_SIZE, encoded_size, text_fingerprint, vae_fingerprint
from fairhuman.models.sdxl import load_pipeline
from fairhuman.train.cache import plan as caches
from fairhuman.train.cache.fill import CacheFill, fill
from fairhuman.train.cache.plan import Caches, budget
from fairhuman.train.cache.texts import TextCache
from fairhuman.train.data import build_loader, load_data
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, Watcher
from helpers.damage import flip
from helpers.figures import write_figures

MakeRecipe = Callable[..., TrainRecipe]
Typed = Callable[..., tuple[int, str, str]]
CENTER = {"crop": "center", "caption_dropout": 0.3}
BOTH = {"latents": True, "text": True}


class Listener(Watcher):
    """Collects a run's messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_start(self, run: Run) -> None:
        self.texts += run.caches.opening_messages()

    def on_message(self, text: str) -> None:
        self.texts.append(text)


def lora_bytes(recipe: TrainRecipe) -> bytes:
    return (recipe.out / "lora" / "pytorch_lora_weights.safetensors").read_bytes()


def filled(recipe: TrainRecipe) -> CacheFill:
    return fill(recipe, LoadReport(), lambda _text: None, lambda *_done: None)


def entries(recipe: TrainRecipe, kind: str) -> set[str]:
    assert recipe.cache.folder is not None
    return {name for path in recipe.cache.folder.glob(f"{kind}-*/*.safetensors") for name in load_file(path)}


def copied(people: Path, folder: Path) -> str:
    shutil.copytree(people, folder)
    return str(folder)


def test_a_run_has_the_same_bits_with_a_full_an_empty_and_no_cache(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached run differs only by rounding to float16."""
    values = {"view": CENTER, "cache": BOTH, "steps": 5, "validation": {"every": 5, "share": 0.3}}
    empty, full, without = (make_recipe(name, **values) for name in ("empty", "full", "without"))
    train(empty)
    filled(full)
    before = entries(full, "latents")
    train(full)
    assert entries(full, "latents") == before > entries(empty, "latents")
    with monkeypatch.context() as patch:
        patch.setattr(Encodings, "add", lambda *_: None)
        train(without)
    assert not entries(without, "latents")
    assert lora_bytes(empty) == lora_bytes(full) == lora_bytes(without)
    said = [json.loads((r.out / "validation.jsonl").read_text().splitlines()[-1]) for r in (empty, full, without)]
    assert said[0] == said[1] == said[2]


def test_cached_training_is_uncached_training_up_to_float16(make_recipe: MakeRecipe) -> None:
    values = {"view": CENTER, "steps": 3, "optimizer": {"name": "sgd"}, "learning_rate": 0.1}
    cached, plain = make_recipe("cached", cache=BOTH, **values), make_recipe("plain", **values)
    ours, theirs = (load_file(train(r).recipe.product / "pytorch_lora_weights.safetensors") for r in (cached, plain))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0.02, atol=0.002 * float(tensor.abs().max()))
    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_cached_run_in_worker_processes_decodes_no_picture_that_is_known(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(view=CENTER, cache=BOTH, steps=12, source={"workers": 2})
    filled(recipe)
    data = load_data(recipe, LoadReport())
    data = Caches(recipe, data, load_pipeline("small"), torch.device("cpu")).data
    batches = list(build_loader(recipe, data, 0, 1, 0))
    assert len(batches) == 12
    assert all(len(batch.pictures_bchw) == 0 and batch.pictures_bchw.shape[1:] == (3, 32, 32) for batch in batches)
    plain = list(build_loader(recipe, data.reading(None), 0, 1, 0))
    for ours, theirs in zip(batches, plain, strict=True):
        assert len(theirs.pictures_bchw) == 2
        assert torch.equal(ours.masks_brhw, theirs.masks_brhw)
        assert torch.equal(ours.time_ids_b6, theirs.time_ids_b6)
        assert (ours.captions, ours.draws) == (theirs.captions, theirs.draws)


def test_variants_are_few_crops_of_each_record_in_both_flips(make_recipe: MakeRecipe) -> None:
    view = {"crop": "random", "zoom": [1.0, 1.6], "keep_region": 0.5}
    recipe = make_recipe(view=view, cache={"latents": True, "variants": 3}, seed=4)
    people = load_data(recipe, LoadReport()).train
    samples = [people[position] for position in range(40 * len(people))]
    drawn: dict[str, set[object]] = {}
    for sample in samples:
        drawn.setdefault(sample.key, set()).add(sample.draw)
        left = sample.draw.left if not sample.draw.flip else sample.draw.resized_hw[1] - 32 - sample.draw.left
        assert sample.time_ids_6.tolist()[2:4] == [sample.draw.top, left]
    assert all(len(draws) == 6 for draws in drawn.values())
    assert len({draw for draws in drawn.values() for draw in draws}) > 5 * len(people)
    later = load_data(recipe, LoadReport()).train
    assert [later[position].draw for position in (7, 99)] == [samples[position].draw for position in (7, 99)]
    other = load_data(recipe.model_copy(update={"seed": 5}), LoadReport()).train
    assert sum(other[position].draw not in drawn[other[position].key] for position in range(40)) > 20


def test_all_views_that_can_be_drawn_are_filled_also_in_buckets(make_recipe: MakeRecipe, people: Path) -> None:
    view = {"crop": "random", "zoom": [1.0, 1.6], "bucket_aspect": 2.0, "bucket_step": 16}
    recipe = make_recipe(view=view, cache={"latents": True, "variants": 2}, steps=20)
    found = filled(recipe)
    assert (found.new, found.kept, found.unused) == ({"latents": 48}, {"latents": 0}, {"latents": 0})
    before = entries(recipe, "latents")
    train(recipe)
    assert entries(recipe, "latents") == before
    again = filled(recipe)
    assert (again.new, again.kept) == ({"latents": 0}, {"latents": 48})


@pytest.mark.slow
def test_with_variants_a_stopped_run_resumes_with_the_same_bits(make_recipe: MakeRecipe) -> None:
    values = {"view": {"crop": "random", "keep_region": 1.0}, "cache": BOTH | {"variants": 2}}
    whole, broken = make_recipe("whole", **values), make_recipe("broken", **values)
    train(whole)

    class Stop(Watcher):
        def on_step(self, run: Run, metrics: object) -> None:
            if run.step == 3:
                run.stopped_by = 15

    train(broken, [Stop()])
    assert broken.cache.folder is not None
    shutil.rmtree(broken.cache.folder)  # what was kept may be gone
    assert train(broken).finished
    assert lora_bytes(whole) == lora_bytes(broken)


def test_a_changed_picture_is_re_encoded_and_reported(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    values = {"data": copied(people, tmp_path / "data"), "view": CENTER, "cache": BOTH, "steps": 3, "batch_size": 8}
    recipe = make_recipe(**values)
    filled(recipe)
    path = tmp_path / "data" / "images" / "00003.png"
    Image.open(path).convert("L").convert("RGB").save(path)
    listener = Listener()
    train(recipe, [listener])
    assert "cache: re-encoded 2 views, as their pictures have changed" in listener.texts
    fresh = make_recipe("fresh", **values)
    train(fresh)
    assert lora_bytes(recipe) == lora_bytes(fresh)
    found = filled(recipe)
    assert (found.new["latents"], found.unused["latents"]) == (0, 2)


def test_a_damaged_latent_and_text_are_computed_again_and_counted(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(view=CENTER, cache=BOTH, steps=2)
    filled(recipe)
    assert recipe.cache.folder is not None
    files = sorted(recipe.cache.folder.glob("*/00000.safetensors"))
    for file in files:
        for place in range(-100, -file.stat().st_size // 2, -256):  # tensors lie at the end; all of them
            flip(file, place, bit=7)
    listener = Listener()
    train(recipe, [listener])
    fresh = make_recipe("fresh", view=CENTER, cache=BOTH, steps=2)
    train(fresh)
    assert lora_bytes(recipe) == lora_bytes(fresh)
    found = [text for text in listener.texts if "were damaged and have been computed again" in text]
    assert [text.split(":")[0] for text in found] == [str(file.parent) for file in files]
    lines = filled(recipe).lines()
    assert sum("were damaged and have been computed again" in line for line in lines) == 2
    assert not any("damaged" in line for line in filled(recipe).lines())


def test_tensors_of_an_earlier_version_are_named_once(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(view=CENTER, cache=BOTH, steps=1)
    filled(recipe)
    assert recipe.cache.folder is not None
    files = list(recipe.cache.folder.glob("*/00000.safetensors"))
    for file, metadata in zip(files, (None, {"digests": "{}"}), strict=True):
        save_file(load_file(file), file, metadata)
    listener = Listener()
    train(recipe, [listener])
    for words in ("without digests, used unchecked", "whose digests don't cover their model, used as before"):
        assert sum(f" of an earlier version {words}" in text for text in listener.texts) == 1


def test_another_data_set_with_equal_keys_is_not_reported_as_changed(
    make_recipe: MakeRecipe, people: Path, tmp_path: Path
) -> None:
    write_figures(tmp_path / "others" / people.name, 12, 64, seed=7)
    cache = {"latents": True, "folder": str(tmp_path / "shared")}
    filled(make_recipe(view=CENTER, cache=cache))
    found = filled(make_recipe(view=CENTER, cache=cache, data=str(tmp_path / "others" / people.name)))
    assert (found.new["latents"], found.changed, found.unused["latents"]) == (24, 0, 24)


def test_a_moved_data_set_is_recognised_by_its_pictures(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    filled(make_recipe(view=CENTER, cache=BOTH))
    found = filled(make_recipe(view=CENTER, cache=BOTH, data=copied(people, tmp_path / "moved")))
    assert (set(found.new.values()), found.changed) == ({0}, 0)


def test_a_changed_caption_is_re_encoded(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    values = {"data": copied(people, tmp_path / "data"), "view": CENTER, "cache": BOTH, "steps": 3, "batch_size": 8}
    recipe = make_recipe(**values)
    filled(recipe)
    file = tmp_path / "data" / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["caption"] = "somebody else"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = filled(recipe)
    assert found.new == {"latents": 0, "texts": 1}
    fresh = make_recipe("fresh", **values)
    train(recipe)
    train(fresh)
    assert lora_bytes(recipe) == lora_bytes(fresh)


def test_entries_of_another_model_are_reported_and_unused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    values = {"view": CENTER, "steps": 2}
    cache = BOTH | {"folder": str(tmp_path / "shared")}
    filled(make_recipe("small", cache=cache, **values))
    listener = Listener()
    other = make_recipe("other", model="small-untrained", cache=cache, **values)
    train(other, [listener])
    assert any("latents: 0 cached by all runs; 24 of other models, not used" in text for text in listener.texts)
    fresh = make_recipe("fresh", model="small-untrained", cache=BOTH, **values)
    train(fresh)
    assert lora_bytes(other) == lora_bytes(fresh)


def test_fingerprints_distinguish_weights_settings_and_precision() -> None:
    pipeline, same = load_pipeline("small"), load_pipeline("small")
    assert vae_fingerprint(pipeline) == vae_fingerprint(same)
    assert text_fingerprint(pipeline, None) == text_fingerprint(same, None)
    found = {text_fingerprint(pipeline, None), text_fingerprint(pipeline, torch.bfloat16)}
    found.add(text_fingerprint(load_pipeline("small", dtype=torch.bfloat16), None))
    next(same.text_encoder.parameters()).data[0] += 1
    found.add(text_fingerprint(same, None))
    assert len(found) == 4
    pipeline.tokenizer_2.pad_token = pipeline.tokenizer.convert_ids_to_tokens(5)
    assert text_fingerprint(pipeline, None) not in found
    before = vae_fingerprint(same)
    same.vae.register_to_config(scaling_factor=0.5)
    after = vae_fingerprint(same)
    same.vae.encoder.conv_in.weight.data[0] += 1
    assert len({before, after, vae_fingerprint(same)}) == 3


def test_embeddings_are_those_of_the_encoders_rounded(tmp_path: Path) -> None:
    pipeline = load_pipeline("small")
    captions = ["a person", "", "a person", "two people waving"]
    cache = TextCache(Encodings(tmp_path), base_of(pipeline), None, torch.device("cpu"))
    with torch.no_grad():
        exact = encode_prompts(pipeline, captions)
    for _ in range(2):
        found = cache.texts(captions)
        for ours, theirs in zip((stacked(found, "embeds"), stacked(found, "pooled")), exact, strict=True):
            assert ours.dtype == torch.float16
            torch.testing.assert_close(ours.float(), theirs, rtol=1e-3, atol=1e-4)
    assert len(cache.kept) == 3
    assert float(cache.texts([""])[0]["embeds"].abs().max()) == 0.0


@pytest.mark.parametrize("trouble", ["read-only", "full"])
def test_an_unwritable_cache_is_reported_once_and_does_not_end_a_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    values = {"view": CENTER, "steps": 4}
    good = make_recipe("good", cache=BOTH, **values)
    train(good)
    monkeypatch.setattr(encodings, "FIRST", 1)  # write at once
    folder = tmp_path / "caches-of-bad"
    if trouble == "full":
        monkeypatch.setattr(encodings, "RESERVE", 2**60)
    else:
        folder.touch()
    bad, listener = make_recipe("bad", cache=BOTH | {"folder": str(folder)}, **values), Listener()
    assert train(bad, [listener]).finished
    assert lora_bytes(bad) == lora_bytes(good)
    told = [text for text in listener.texts if "can't be written" in text]
    assert len(told) == 2  # latents and texts
    with pytest.raises(FairHumanError, match="can't be written"):
        filled(bad)


def test_too_little_space_is_reported_before_computing(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "RESERVE", 2**60)
    recipe, listener = make_recipe(view=CENTER, cache=BOTH, steps=1), Listener()
    with pytest.raises(FairHumanError, match=r"more are needed, but only 0 MiB may be used; .* cache\.folder"):
        filled(recipe)
    assert not entries(recipe, "latents")
    train(recipe, [listener])
    assert any("more are needed: whatever doesn't fit is recomputed each time" in text for text in listener.texts)


def test_the_budget_of_sdxl_is_that_of_its_shapes(make_recipe: MakeRecipe) -> None:
    assert encoded_size("stabilityai/stable-diffusion-xl-base-1.0") == SDXL_SIZE
    assert SDXL_SIZE.latent_bytes((1024, 1024)) == 2 * 2 * 4 * 128 * 128 == 262_144
    assert SDXL_SIZE.text_bytes == 2 * (77 * 2048 + 1280) == 317_952
    recipe = make_recipe(view={"crop": "random"}, cache=BOTH | {"variants": 3})
    small = budget(recipe, load_data(recipe, LoadReport()))
    assert (small.views, small.view_bytes) == (12 * 2 * 3, 2 * 2 * 4 * 8 * 8)
    assert small.text_bytes == 2 * (77 * 128 + 64)
    assert small.texts <= 13
    assert small.needed == small.views * small.view_bytes + small.texts * small.text_bytes


def test_the_command_says_what_it_needs_and_then_fills(make_recipe: MakeRecipe, tmp_path: Path, typed: Typed) -> None:
    recipe = make_recipe(view=CENTER, cache=BOTH)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    code, said, error = typed("data", "cache", path, "--dry-run")
    assert code == 0, error
    assert "0 MiB when complete (24 latents of 1 KB, " in said
    assert "MiB may be used" in said
    assert not (tmp_path / "caches").exists()
    code, said, error = typed("data", "cache", path)
    assert code == 0, error
    assert "latents: 24 computed, 0 in the cache already" in said
    code, said, _ = typed("data", "cache", path, "seed=3")
    assert "latents: 0 computed, 24 in the cache already" in said
    assert "24 latents of 1 KB" in typed("train", path, "--dry-run")[1]
    code, _, error = typed("data", "cache", path, "cache.latents=false", "cache.text=false")
    assert (code, "nothing to compute: cache.latents and cache.text are both false" in error) == (2, True), error
    code, _, error = typed("data", "cache", recipe.data, "seed=3")
    assert (code, "settings belong to a recipe, which ends in .yaml" in error) == (2, True), error
