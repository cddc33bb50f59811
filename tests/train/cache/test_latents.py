"""Latents cached between steps and runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairhuman.bases.base import base_of
from fairhuman.bases.latents import latent_moments
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.encodings import Encodings
from fairhuman.data.samples.views import View
from fairhuman.errors import RecipeError
from fairhuman.models.sdxl import load_pipeline
from fairhuman.train.cache.latents import LatentCache
from fairhuman.train.data import load_data
from fairhuman.train.recipe import TrainRecipe

MakeRecipe = Callable[..., TrainRecipe]


def test_a_view_is_encoded_once_and_its_flip_separately(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    kept = Encodings(tmp_path / "kept")
    data = load_data(make_recipe(view={"crop": "center"}, cache={"latents": True}), LoadReport()).reading(kept)
    plain = data.reading(None)
    pipeline = load_pipeline("small")
    vae = pipeline.vae
    encoded: list[int] = []
    encode = vae.encode
    vae.encode = lambda pictures: (encoded.append(len(pictures)), encode(pictures))[1]
    cache = LatentCache(kept, base_of(pipeline), torch.device("cpu"))
    batches: list[Batch] = []
    for first in range(0, 4 * len(data.train), 3):
        batches.append(collate([data.train[position] for position in range(first, first + 3)]))
        mean_bchw, std_bchw = cache.moments(batches[-1])
        pictures = collate([plain.train[position] for position in range(first, first + 3)]).pictures_bchw
        fresh = latent_moments(vae, pictures)
        encoded.pop()
        for ours, exact in zip((mean_bchw, std_bchw), fresh, strict=True):
            torch.testing.assert_close(ours, exact, rtol=1e-3, atol=1e-6)
    views = {(key, draw) for batch in batches for key, draw in zip(batch.keys, batch.draws, strict=True)}
    assert len(data.train) < len(views) <= 2 * len(data.train)
    assert sum(encoded) == len(kept) == len(views)
    assert len(batches[-1].pictures_bchw) < 3  # those that are known needn't be decoded


def test_cached_latents_do_not_depend_on_the_batch(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A resumed run may find its cache empty in the middle of an epoch."""
    data = load_data(make_recipe(view={"crop": "center"}, cache={"latents": True}), LoadReport())
    base = base_of(load_pipeline("small"))
    chance = torch.Generator().manual_seed(0)
    noise = [
        replace(data.train[i], picture_chw=2 * torch.rand(3, 32, 32, generator=chance) - 1, view=View(str(i), ""))
        for i in range(12)
    ]
    filled = LatentCache(Encodings(tmp_path / "filled"), base, torch.device("cpu"))
    for pair in zip(noise[::2], noise[1::2], strict=True):
        filled.moments(collate(pair[:1]))
        empty = LatentCache(Encodings(tmp_path / "empty"), base, torch.device("cpu"))
        ours, theirs = (cache.moments(collate(pair)) for cache in (filled, empty))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    "view", [{"crop": "random"}, {"crop": "center", "zoom": [1.0, 1.2]}, {"crop": "center", "keep_region": 0.5}]
)
def test_non_repeating_views_are_refused(make_recipe: MakeRecipe, view: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=r"cache\.latents needs repeating views.*or set cache\.variants to at least"):
        make_recipe(view=view, cache={"latents": True})
    assert make_recipe(view=view, cache={"latents": True, "variants": 2}).cache.variants == 2


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"view": {"crop": "center"}, "cache": {"latents": True, "variants": 3}},
            "all crops of a picture are the same",
        ),
        ({"cache": {"variants": 3}}, "cache.latents is false"),
    ],
)
def test_variants_that_would_change_nothing_are_refused(
    make_recipe: MakeRecipe, values: dict[str, object], why: str
) -> None:
    with pytest.raises(RecipeError, match=f"cache.variants must be 1, as {why}.*found 3"):
        make_recipe(**values)


def test_text_is_not_cached_if_its_encoders_are_trained(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"cache\.text needs frozen text encoders, but full\.text_encoders is true"):
        make_recipe(kind="full", full={"text_encoders": True}, cache={"text": True})
