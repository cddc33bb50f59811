"""Every region has one colour everywhere, which can be told from others and seen on light and dark pages."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fairhuman.report.colours import OTHER_COLOURS, REGION_COLOURS, colours

ALL = [*REGION_COLOURS.values(), *OTHER_COLOURS]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def xyz(colour: str) -> np.ndarray:
    """CIE XYZ of sRGB, IEC 61966-2-1; Y is the relative luminance."""
    rgb = np.array(to_rgb(colour))
    return XYZ @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(colour: str) -> np.ndarray:
    """CIELAB, D65."""
    x, y, z = np.cbrt(xyz(colour) / xyz("#FFFFFF"))  # none is so dark that the linear part matters
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colour", ALL)
def test_every_colour_is_seen_on_light_and_dark_pages(colour: str) -> None:
    for ground in ("#FFFFFF", "#14181B"):
        dark, light = sorted([xyz(colour)[1], xyz(ground)[1]])
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_every_two_colours_can_be_told_apart() -> None:
    assert min(np.linalg.norm(lab(one) - lab(other)) for one, other in combinations(ALL, 2)) > 25


def test_a_region_keeps_its_colour_whatever_stands_beside_it() -> None:
    alone = {name: colours([name])[name] for name in ("shoes", "face", "ignore", "subject")}
    assert alone.items() <= colours(["global", "ignore", "subject", "shoes", "hand", "face"]).items()
    assert colours(["b", "a", "face"]) == dict(reversed(colours(["face", "a", "b"]).items()))


def test_as_many_names_as_there_are_colours_differ() -> None:
    for first in range(20):
        names = [f"region {number}" for number in range(first, first + len(OTHER_COLOURS))]
        assert len({*colours([*REGION_COLOURS, *names]).values()}) == len(ALL)
    assert len(colours(f"name {number}" for number in range(40))) == 40
