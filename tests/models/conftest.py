from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.regions.transforms import ViewDraw


@pytest.fixture
def make_batch() -> Callable[[int], tuple[Batch, Tensor, Tensor]]:
    """What `predict` takes: a batch, noisy latents and time steps for the small pipeline, always the same."""

    def make(size: int) -> tuple[Batch, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        batch = Batch(
            pictures_bchw=torch.rand(size, 3, 64, 64, generator=generator) * 2 - 1,
            masks_brhw=torch.zeros(size, 2, 64, 64),
            known_br=torch.ones(size, 2, dtype=torch.bool),
            captions=["a person in a red shirt", "", "a hat", "two hands"][:size],
            time_ids_b6=torch.tensor([[64.0, 80.0, 0.0, 16.0, 64.0, 64.0]]).repeat(size, 1),
            keys=[str(i) for i in range(size)],
            draws=[ViewDraw((64, 64), 0, 0, False)] * size,
            positions_b=torch.arange(size),
        )
        noisy_latents_bchw = torch.randn(size, 4, 16, 16, generator=generator)
        return batch, noisy_latents_bchw, torch.tensor([10, 400, 700, 990][:size])

    return make
