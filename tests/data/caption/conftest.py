"""Fixtures for tests of captions."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.caption.item import CaptionItem
from fairhuman.data.caption.settings import TokenSettings
from fairhuman.data.caption.tokens import TokenBudget


@pytest.fixture(scope="session")
def budget() -> TokenBudget:
    return TokenBudget.load(TokenSettings())


@pytest.fixture
def item() -> Callable[..., CaptionItem]:
    """`item(3)` is a record with its own small picture; text and attributes can be given."""

    def make(number: int = 0, text: str = "", size: tuple[int, int] = (24, 20), **attributes: object) -> CaptionItem:
        pixels_hwc = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return CaptionItem(f"{number:03}", text, attributes, picture=lambda: Image.fromarray(pixels_hwc))

    return make
