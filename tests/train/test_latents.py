"""Latents that are kept between the steps of a run."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fairhuman.data.batch import collate
from fairhuman.data.report import LoadReport
from fairhuman.errors import RecipeError
from fairhuman.models.sdxl import latent_moments, load_pipeline
from fairhuman.train import setup
from fairhuman.train.latents import LatentCache
from fairhuman.train.settings import TrainRecipe

MakeRecipe = Callable[..., TrainRecipe]


def test_a_view_is_encoded_once_and_its_mirror_image_apart(make_recipe: MakeRecipe) -> None:
    data = setup.load_data(make_recipe(view={"crop": "center"}), LoadReport())
    vae = load_pipeline("small").vae
    encoded: list[int] = []
    encode = vae.encode
    vae.encode = lambda pictures: (encoded.append(len(pictures)), encode(pictures))[1]
    cache = LatentCache()
    positions = list(range(4 * len(data.train)))
    batches = [
        collate([data.train[position] for position in positions[i : i + 3]]) for i in range(0, len(positions), 3)
    ]
    for batch in batches:
        mean_bchw, std_bchw = cache.moments(vae, batch)
        fresh = latent_moments(vae, batch.pictures_bchw)
        encoded.pop()
        for kept, exact in zip((mean_bchw, std_bchw), fresh, strict=True):
            torch.testing.assert_close(kept, exact, rtol=1e-3, atol=1e-6)
    views = {(key, draw) for batch in batches for key, draw in zip(batch.keys, batch.draws, strict=True)}
    assert len(data.train) < len(views) <= 2 * len(data.train)
    assert sum(encoded) == len(cache) == len(views)


def test_what_is_kept_does_not_depend_on_the_rest_of_its_batch(make_recipe: MakeRecipe) -> None:
    """A run that goes on starts with an empty cache, in the middle of an epoch."""
    data = setup.load_data(make_recipe(view={"crop": "center"}), LoadReport())
    vae = load_pipeline("small").vae
    chance = torch.Generator().manual_seed(0)
    noise = [replace(data.train[i], picture_chw=2 * torch.rand(3, 32, 32, generator=chance) - 1) for i in range(12)]
    filled = LatentCache()
    for pair in zip(noise[::2], noise[1::2], strict=True):
        filled.moments(vae, collate(pair[:1]))
        ours, theirs = (cache.moments(vae, collate(pair)) for cache in (filled, LatentCache()))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    "view", [{"crop": "random"}, {"crop": "center", "zoom": [1.0, 1.2]}, {"crop": "center", "keep_region": 0.5}]
)
def test_views_that_do_not_come_again_are_refused(make_recipe: MakeRecipe, view: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="cache_latents needs views that come again"):
        make_recipe(view=view, cache_latents=True)
