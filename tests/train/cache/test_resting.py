"""Networks whose results are cached leave the device, and come back for what isn't cached and for previews."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import PartialState
from torch import nn

from fairhuman.cli.watch import Previews
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.encodings import Encodings
from fairhuman.models.resting import Resting
from fairhuman.models.sdxl import load_pipeline
from fairhuman.train.cache.plan import Caches
from fairhuman.train.data import build_loader, load_data
from fairhuman.train.loop import cache_latents, take_step, train
from fairhuman.train.memory import memory_of
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, Watcher, set_up

MakeRecipe = Callable[..., TrainRecipe]
BOTH = {"latents": True, "text": True}


class Moved(nn.Linear):
    """Notes where it is moved."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.places: list[str] = []

    def to(self, place: Any) -> "Moved":  # type: ignore[override]
        self.places.append(str(place))
        return self


def test_networks_move_when_they_have_to() -> None:
    network = Moved()
    resting = Resting([network], torch.device("xpu:1"))
    resting.wake()
    with resting.awake():
        assert not resting.resting
    assert network.places == []
    resting.rest()
    resting.rest()
    assert network.places == ["cpu"]
    with resting.awake():
        assert network.places == ["cpu", "xpu:1"]
    assert resting.resting
    with pytest.raises(KeyError), resting.awake():
        raise KeyError
    assert network.places == ["cpu", "xpu:1"] * 2 + ["cpu"]


class Looks(Watcher):
    """Notes which networks rest at each event: the network, the text encoders, the VAE."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, bool, bool]] = []
        self.texts: list[tuple[int, int]] = []

    def look(self, event: str, run: Run) -> None:
        caches = run.caches
        assert caches.texts is not None
        assert caches.latents is not None
        self.seen.append((event, caches.trained.resting, caches.texts.encoders.resting, caches.latents.vae.resting))

    def on_start(self, run: Run) -> None:
        parts = run.model.pipeline
        for name, network in {"reads": parts.text_encoder, "predicts": parts.unet}.items():
            network.register_forward_pre_hook(lambda *_, name=name: self.look(name, run))
        decode = parts.vae.decode
        parts.vae.decode = lambda *given: (self.look("decodes", run), decode(*given))[1]

    def on_texts(self, run: Run, done: int, total: int) -> None:
        self.look("texts", run)
        self.texts.append((done, total))

    def on_texts_cached(self, run: Run) -> None:
        self.look("cached", run)

    def on_step(self, run: Run, metrics: Any) -> None:
        self.look("step", run)

    def of(self, *events: str) -> list[tuple[str, bool, bool, bool]]:
        """What was seen at some of the events."""
        return [one for one in self.seen if one[0] in events]


def test_text_encoders_and_the_network_are_never_on_the_device_together(make_recipe: MakeRecipe) -> None:
    values: dict[str, Any] = {"view": {"crop": "center", "flip_probability": 0.0, "caption_dropout": 0.2}, "steps": 7}
    preview = {"count": 1, "steps": 2}
    looks = Looks()
    recipe = make_recipe(cache=BOTH, preview=preview, **values)
    train(recipe, [looks, Previews()])
    captions = len(looks.texts)
    assert looks.texts == [(done, captions) for done in range(1, captions + 1)]
    # the preview's caption and empty prompt, for a picture from the caption alone and one from the photo
    assert looks.of("reads") == [("reads", True, False, True)] * (captions + 4)
    assert looks.of("texts", "cached") == [("texts", True, False, True)] * captions + [("cached", True, False, True)]
    # 12 pictures at 2 a step: all views are known after 6 steps
    assert looks.of("step") == [("step", False, True, False)] * 6 + [("step", False, True, True)]
    assert {one[1:3] for one in looks.of("predicts")} == {(False, True)}
    assert looks.of("decodes") == [("decodes", False, True, False)] * 4
    again = Looks()
    values["steps"] = 1
    train(make_recipe("again", cache={**BOTH, "folder": str(recipe.cache.folder)}, **values), [again])
    assert again.texts == again.of("reads") == []
    assert again.of("step", "cached") == [("cached", False, True, True), ("step", False, True, True)]


@pytest.mark.parametrize(("steps", "views"), [(3, 6), (40, 24)])
def test_pictures_are_encoded_while_the_network_rests(make_recipe: MakeRecipe, steps: int, views: int) -> None:
    """Those of a short run alone; of a long one, both flips of all pictures. Its steps then need no VAE."""
    recipe = make_recipe(cache={"latents": True}, steps=steps, view={"crop": "center"})
    run = set_up(recipe, PartialState())
    latents, seen = run.caches.latents, []
    assert latents is not None
    encode = latents.moments_of
    latents.moments_of = lambda *given: (seen.append(run.caches.trained.resting), encode(*given))[1]  # type: ignore[method-assign]
    cache_latents(run)
    assert seen == [True] * views
    assert (run.caches.trained.resting, latents.vae.resting) == (False, True)
    cache_latents(run)
    batches = iter(build_loader(recipe, run.data, 0, 1, 0))
    for _ in range(3):
        take_step(run, batches)
    assert len(seen) == views
    assert latents.vae.resting


def test_no_bit_depends_on_when_pictures_are_encoded(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {"view": {"crop": "center"}, "steps": 3, "cache": BOTH}
    first = train(make_recipe("steps", **values))
    monkeypatch.setattr("fairhuman.train.loop.cache_texts", cache_latents)  # as on a GPU
    ahead = train(make_recipe("ahead", **values))
    files = [next(run.recipe.product.glob("*weights.safetensors")).read_bytes() for run in (first, ahead)]
    assert files[0] == files[1]


def test_what_is_cached_is_not_on_the_device_at_first(make_recipe: MakeRecipe) -> None:
    """A device without memory stands for a GPU."""
    for texts, latents in ((False, False), (False, True), (True, False)):
        recipe = make_recipe(cache={"text": texts, "latents": latents}, view={"crop": "center"})
        parts = build_model(recipe, torch.device("meta")).pipeline
        places = [next(part.parameters()).device.type for part in (parts.unet, parts.text_encoder_2, parts.vae)]
        assert places == ["meta", "cpu" if texts else "meta", "cpu" if latents else "meta"]


def test_the_network_rests_where_decoding_needs_its_memory(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(cache=BOTH, view={"crop": "center"})
    network, device = Moved(), torch.device("xpu:1")
    caches = Caches(recipe, load_data(recipe, LoadReport()), load_pipeline("small"), torch.device("cpu"), [network])
    caches.trained.device = device
    seen: list[tuple[bool, bool]] = []
    full = torch.OutOfMemoryError()

    def decode(fits: bool, error: RuntimeError = full) -> torch.Tensor:
        assert caches.latents is not None
        seen.append((caches.trained.resting, caches.latents.vae.resting))
        if not fits and not caches.trained.resting:
            raise error
        return torch.ones(1)

    assert caches.with_room(lambda: decode(fits=True)) == 1
    assert network.places == []
    assert caches.with_room(lambda: decode(fits=False)) == 1
    assert network.places == ["cpu", "xpu:1"]
    assert seen == [(False, False), (False, False), (True, False)]
    engine = RuntimeError("GET was unable to find an engine to execute this computation")  # cuDNN's lack of memory
    assert caches.with_room(lambda: decode(fits=False, error=engine)) == 1
    assert network.places == ["cpu", "xpu:1"] * 2
    with pytest.raises(RuntimeError, match="illegal"):
        caches.with_room(lambda: decode(fits=False, error=RuntimeError("illegal")))
    assert network.places == ["cpu", "xpu:1"] * 2


def test_text_encoders_stay_if_the_cache_can_not_hold_all(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encodings, "add", lambda *_: None)
    looks = Looks()
    train(make_recipe(cache=BOTH, steps=1, view={"crop": "center"}), [looks])
    assert looks.of("step") == [("step", False, False, False)]


def test_a_gpu_needs_no_memory_for_the_vae_during_steps(make_recipe: MakeRecipe) -> None:
    """But for encoding apart from the network, where that takes more."""
    values: dict[str, Any] = {"strategy": "ls", "view": {"crop": "center"}, "fairness": {"measure_every": 0}}
    without, cached = (memory_of(make_recipe(cache={"latents": latents}, **values)) for latents in (False, True))
    weights = cached.frozen + cached.trained + cached.optimizer
    assert cached.vae is not None
    assert without.total == weights + max(without.step, without.encode)
    assert cached.total == weights + max(cached.step - cached.vae, cached.encode - cached.aside)
    assert cached.on_cpu == without.on_cpu


def test_a_gpu_needs_no_memory_for_text_encoders_during_steps(make_recipe: MakeRecipe) -> None:
    without, cached = (memory_of(make_recipe(kind="full", cache={"text": text})) for text in (False, True))
    assert without.resting is None
    assert cached.resting is not None
    assert cached.resting > 0
    assert without.total - cached.total == cached.resting
    assert without.on_cpu == cached.on_cpu
    shown = memory_of(make_recipe(kind="full", cache={"text": True}, preview={"count": 2}))
    assert shown.preview is not None
    assert 0 < shown.preview < shown.step
    stepping = max(shown.encode, shown.step, shown.audit or 0, shown.update) - cached.resting
    assert shown.total == shown.frozen + shown.trained + shown.optimizer + max(shown.preview, stepping)
