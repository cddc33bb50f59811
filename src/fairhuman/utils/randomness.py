"""Chance without state: every draw comes from a generator that depends on (seed, kind of draw, number) alone."""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Kinds of draws; two kinds never share a generator."""

    ORDER = 0  # of records in an epoch
    SAMPLE = 1  # crop, flip and caption of a training sample
    NOISE = 2  # noise and timestep of a training sample
    PICTURE = 3  # noise of a generated picture
    PHOTO = 4  # noise on a held-out photo
    VALIDATION = 5  # noise of a validation loss
    DROPOUT = 6  # inside the network
    STRATEGY = 7  # random loss weighting
    VARIANT = 8  # crop of a variant of a record
    CONDITION = 9  # which conditions of a training sample are dropped
    REFINE = 10  # noise of a redrawn face or hand


def seeded_generator(seed: int, *path: int) -> torch.Generator:
    """Return a fresh generator that depends on all of (seed, path); neighbouring numbers give unrelated streams."""
    return torch.Generator().manual_seed(mixed_seed(seed, *path))


def mixed_seed(seed: int, *path: int) -> int:
    """Mix numbers, each ≥ 0, into one seed of 63 bits by numpy's SeedSequence.

    torch's own seeding of 0, 1, 2, ... isn't made for giving unrelated streams.
    """
    mixed = np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))
