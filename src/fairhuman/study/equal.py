"""Equal pictures of two methods: whoever compares them has nothing to choose."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from PIL import Image

from fairhuman.errors import RecipeError
from fairhuman.report.text import plural
from fairhuman.utils.digest import content_digest

NAMED = 5  # file names in a note


def pixel_digest(picture: Image.Image) -> str:
    """Digest of a picture's size and pixels; metadata and compression don't count."""
    return content_digest(f"{picture.mode} {picture.size}".encode(), picture.tobytes())


def equal_notes(digests: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """A note for each two methods that have equal pictures of some items.

    Args:
        digests: for each item the digest of each method's picture.
        names: what to call each item.

    Raises:
        RecipeError: two methods have equal pictures of all items, so that the study would compare nothing.
    """
    notes = []
    for a, b in combinations(digests[0] if digests else (), 2):
        equal = [name for name, of in zip(names, digests, strict=True) if of[a] == of[b]]
        if not equal:
            continue
        if len(equal) == len(digests):
            raise RecipeError(
                f"{a} and {b}: {plural(len(equal), 'pair')}, all equal pixel by pixel, so there is nothing to compare; "
                "give another folder for one of them"
            )
        listed = ", ".join(equal[:NAMED]) + (", ..." if len(equal) > NAMED else "")
        notes.append(
            f"{a} and {b} have equal pictures in {len(equal)} of {plural(len(digests), 'item')}, where an answer says "
            f"nothing about either; --leave-out leaves such prompts out: {listed}"
        )
    return notes
