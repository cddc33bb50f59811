"""The computed memory of every base: against the measured peak of its tiny pipeline, and from published shapes."""

from dataclasses import replace

import pytest
import torch

from fairhuman import config
from fairhuman.bases.base import base_class, base_of
from fairhuman.bases.names import ON_THE_HUB
from fairhuman.bases.published import PUBLISHED
from fairhuman.data.samples.batch import Batch
from fairhuman.models.locations import name_of
from fairhuman.train.fairness import build_fair_backward, build_strategy
from fairhuman.train.memory import cheapest_changes, memory_of
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives, fair_step
from helpers.base_cases import HEIGHT, WIDTH, Case
from helpers.tiny_bases import BUILD
from peak_memory import peak_allocated_bytes

EVERY = [pytest.param(name, marks=() if name == "sd3" else pytest.mark.slow) for name in BUILD]
LONG = "two hands and a face, " * 400  # as long as any base reads


def recipe_of(model: object, *overrides: str, **values: object) -> TrainRecipe:
    given = {"model": str(model), "data": "none", "out": "none", "steps": 1, "fairness": {"mode": "exact"}}
    return config.build(TrainRecipe, {**given, **values}, overrides)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_a_step_needs_the_computed_memory(case: Case, batch: Batch, checkpointing: bool) -> None:
    """Peak of PyTorch's CPU allocator, within 10 %."""
    recipe = recipe_of(
        case.folder, resolution=[HEIGHT, WIDTH], batch_size=3, lora={"rank": 4}, gradient_checkpointing=checkpointing
    )
    expected = memory_of(recipe)
    model = build_model(recipe, torch.device("cpu"))
    objectives = Objectives(model, recipe.regions, recipe.noise, recipe.seed)
    texts = objectives.base.texts([LONG] * 3)
    fair = build_fair_backward(recipe, model, build_strategy(recipe, torch.device("cpu")), None)
    ready = replace(batch, texts=texts)
    fair_step(objectives, fair, [ready])
    for parameter in model.trainable_parameters():
        parameter.grad = None
    measured = peak_allocated_bytes(lambda: fair_step(objectives, fair, [ready]))
    assert 0.9 * measured < max(expected.step, expected.encode) < 1.1 * measured


@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_texts_and_previews_need_the_computed_memory(case: Case) -> None:
    """Peaks of reading the longest caption, within 15 %, and of decoding a picture, within 25 %.

    FLUX.2 klein asks its text encoder to keep no keys and values, and Qwen-Image's makes no mask if it is told that no
    token is padding, so they need less. A CPU copies what convolutions read, and of those over time far more.
    """
    recipe = recipe_of(case.folder, resolution=[HEIGHT, WIDTH], batch_size=3, lora={"rank": 4})
    expected, base = memory_of(recipe), base_of(build_model(recipe, torch.device("cpu")).pipeline)
    latents = torch.zeros(1, base.channels, *case.grid)
    assert expected.decode is not None
    with torch.no_grad():
        read = peak_allocated_bytes(lambda: base.encode(LONG))
        decoded = peak_allocated_bytes(lambda: base.decode(latents))
    assert 0.85 * read < expected.texts < {"flux2": 2.4, "qwen_image": 1.4}.get(case.name, 1.15) * read
    assert (0.3 if case.name == "qwen_image" else 0.75) * decoded < expected.decode < decoded


@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_the_cheapest_way_to_less_memory_is_to_cache_texts(case: Case) -> None:
    recipe = recipe_of(case.folder, resolution=64, batch_size=1, lora={"rank": 1}, preview={"count": 0})
    now = memory_of(recipe)
    (first, *_) = cheapest_changes(recipe, now.needed - 1)
    parts = [getattr(case.base.pipeline, name) for name in case.base.encoders]
    encoders = [part for part in parts if part is not None]  # the small flow base has no T5
    assert first.overrides == ("cache.text=true",)
    assert first.memory.resting == sum(p.numel() * p.element_size() for one in encoders for p in one.parameters())
    kept = first.memory
    weights = kept.frozen + kept.trained + kept.optimizer
    assert kept.total == weights + max(max(kept.step, kept.encode) - kept.resting, kept.texts - kept.aside)
    assert kept.total < now.total


# Billions of parameters: of the network, and of all text encoders.
PARAMETERS = {
    "stabilityai/stable-diffusion-3.5-medium": (2.24, 5.58),
    "stabilityai/stable-diffusion-3.5-large": (8.06, 5.58),
    "Tongyi-MAI/Z-Image": (6.15, 4.02),
    "black-forest-labs/FLUX.2-klein-base-4B": (3.88, 4.02),
    "black-forest-labs/FLUX.2-klein-base-9B": (9.08, 8.19),
    "black-forest-labs/FLUX.1-dev": (11.90, 4.89),
    "Qwen/Qwen-Image": (20.43, 8.29),
    "Alpha-VLLM/Lumina-Image-2.0": (2.61, 2.61),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", PARAMETERS)
def test_published_shapes_have_the_published_sizes(model: str) -> None:
    base = base_class(name_of(model)).shape(model)
    parts = [[base.network], [getattr(base.pipeline, name) for name in base.encoders]]
    found = [sum(p.numel() for part in group for p in part.parameters()) / 1e9 for group in parts]
    assert found == pytest.approx(PARAMETERS[model], abs=0.006)
    assert (base.factor, base.patch) == (8, 2)


def test_every_shape_is_that_of_a_known_model() -> None:
    assert PUBLISHED.keys() == PARAMETERS.keys() <= ON_THE_HUB.keys()
