"""Stateless randomness: every generator is derived from (seed, kind of draw, index) alone."""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Kinds of draws; each has its own stream of generators."""

    ORDER = 0  # of records in an epoch
    SAMPLE = 1  # crop, flip and caption of a training sample
    NOISE = 2  # noise and timestep of a training sample
    PICTURE = 3  # noise of a generated picture
    PHOTO = 4  # noise added to a held-out photo
    VALIDATION = 5  # noise of a validation loss
    DROPOUT = 6  # inside the network
    STRATEGY = 7  # random loss weighting
    VARIANT = 8  # crop of a cached variant of a record
    CONDITION = 9  # which conditions of a training sample are dropped
    REFINE = 10  # noise of a redrawn face or hand
    VIEWS = 11  # crops by which the regions in view are counted before a run
    CLOSE_UP = 12  # whether and where a training sample is a close-up of a region


def seeded_generator(seed: int, *path: int) -> torch.Generator:
    """Return a new generator derived from (seed, *path); adjacent numbers give independent streams."""
    return torch.Generator().manual_seed(mixed_seed(seed, *path))


def mixed_seed(seed: int, *path: int) -> int:
    """Hash non-negative integers to one 63-bit seed with numpy's SeedSequence.

    torch's own seeding does not guarantee independent streams for seeds 0, 1, 2, ...
    """
    mixed = np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))
