"""A small study to serve: pictures under random names, of equal length, as `study create` makes them."""

import io
import secrets
from pathlib import Path

import numpy as np
from PIL import Image

from fairhuman import config
from fairhuman.study.study import PICTURES, SETTINGS, Design, StudyItem, StudySettings, Trial, save_design

ADMIN = "admin-token-of-the-tests"
METHODS = ("our_method", "baseline_x", "third_way", "fourth_one", "fifth_row", "sixth_sum", "seventh_net")
LENGTH = 6000  # bytes of every file


def picture(seed: int, size: tuple[int, int]) -> bytes:
    """Smooth colours, then zeros up to `LENGTH`."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(target, "JPEG", quality=60)
    assert len(target.getvalue()) <= LENGTH
    return target.getvalue().ljust(LENGTH, b"\0")


def write_study(
    folder: Path,
    participants: int = 3,
    trials: int = 4,
    shown: int = 2,
    zooms: int = 2,
    prompt: str = "a person, number {}",
    size: tuple[int, int] = (96, 96),
    **settings: object,
) -> Path:
    """Each participant sees all items, started and turned differently."""
    (folder / PICTURES).mkdir(parents=True)
    rng = np.random.default_rng(0)

    def add(shape: tuple[int, int]) -> str:
        name = f"{secrets.token_hex(16)}.jpg"
        (folder / PICTURES / name).write_bytes(picture(int(rng.integers(2**31)), shape))
        return name

    methods = METHODS[:shown]
    items = tuple(
        StudyItem(
            prompt.format(i),
            {method: add(size) for method in methods},
            {method: tuple(add((48, 48)) for _ in range(zooms)) for method in methods},
        )
        for i in range(trials)
    )
    seen = tuple(
        tuple(Trial((i + p) % trials, methods if (i + p) % 2 else methods[::-1]) for i in range(trials))
        for p in range(participants)
    )
    save_design(Design(methods, items, seen), folder)
    values = {"items": trials, "participants": participants, "shown": shown, "checks": 0, "ranks": False, **settings}
    config.save(config.build(StudySettings, values), folder / SETTINGS)
    return folder
