"""Networks whose results are cached leave the device, and come back for what isn't cached and for previews."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fairhuman.cli.watch import Previews
from fairhuman.data.samples.encodings import Encodings
from fairhuman.train.cache.resting import Resting
from fairhuman.train.loop import train
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, Watcher

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
    """Notes which networks rest at each event."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, bool]] = []
        self.texts: list[tuple[int, int]] = []

    def _look(self, event: str, run: Run) -> None:
        assert run.caches.texts is not None
        assert run.caches.latents is not None
        self.seen.append((event, run.caches.texts.encoders.resting, run.caches.latents.vae.resting))

    def on_texts(self, run: Run, done: int, total: int) -> None:
        self._look("texts", run)
        self.texts.append((done, total))

    def on_step(self, run: Run, metrics: Any) -> None:
        self._look("step", run)

    def on_preview(self, run: Run) -> None:
        self._look("preview", run)


def test_in_a_run_they_are_on_the_device_for_what_is_not_cached_and_for_previews(make_recipe: MakeRecipe) -> None:
    values: dict[str, Any] = {"view": {"crop": "center", "flip_probability": 0.0, "caption_dropout": 0.2}, "steps": 7}
    preview = {"count": 1, "steps": 2}
    looks = Looks()
    recipe = make_recipe(cache=BOTH, preview=preview, **values)
    train(recipe, [looks, Previews()])
    captions = len(looks.texts)
    assert looks.texts == [(done, captions) for done in range(1, captions + 1)]
    steps = [(event, *rest) for event, *rest in looks.seen if event == "step"]
    # 12 pictures at 2 a step: all views are known after 6 steps
    assert steps == [("step", True, False)] * 6 + [("step", True, True)]
    others = [one for one in looks.seen if one[0] != "step"]
    assert others == [("texts", False, False)] * captions + [("preview", False, False)] * 2
    again = Looks()
    values["steps"] = 1
    train(make_recipe("again", cache={**BOTH, "folder": str(recipe.cache.folder)}, **values), [again])
    assert again.texts == []
    assert again.seen == [("step", True, True)]


def test_text_encoders_stay_if_the_cache_can_not_hold_all(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encodings, "add", lambda *_: None)
    looks = Looks()
    train(make_recipe(cache=BOTH, steps=1, view={"crop": "center"}), [looks])
    assert looks.seen[-1] == ("step", False, False)


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
