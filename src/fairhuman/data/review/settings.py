"""Settings of a review, and the texts that people write in it."""

import unicodedata
from collections.abc import Mapping

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.sources import SourceSettings

MAX_NAME = 60  # characters
# Why a picture is dropped, in the order of the number keys; the names are stored, so they must stay.
REASONS: Mapping[str, str] = {
    "anatomy": "Wrong anatomy",
    "unclear": "Unclear",
    "no_person": "Not a person",
    "prompt": "Bad prompt",
    "other": "Other",
}


class ReviewSettings(Settings):
    """How a review is done."""

    reviews_per_picture: int = Field(default=1, ge=1, le=100, description="reviewers who look at each picture")
    lease_seconds: float = Field(
        default=600.0, gt=0, description="how long a picture waits for its reviewer before another one gets it"
    )
    max_prompt: int = Field(default=1000, ge=1, le=10_000, description="characters of an edited prompt")
    hosts: tuple[str, ...] = Field(
        default=(), description="names of this machine, beside localhost and its addresses, that browsers may use"
    )
    source: SourceSettings = SourceSettings()


def clean_text(text: str) -> str:
    """One line with single spaces.

    Raises:
        ValueError: characters in it that can't be seen or stored.

    """
    text = " ".join(text.split())
    odd = next((character for character in text if unicodedata.category(character) in ("Cc", "Cs")), None)
    if odd is not None:
        raise ValueError(f"must not hold the control character U+{ord(odd):04X}")
    return text


def clean_name(text: str) -> str:
    """A reviewer's name in one spelling.

    Raises:
        ValueError: empty, too long, or with control characters.

    """
    text = unicodedata.normalize("NFC", clean_text(text))
    if not 1 <= len(text) <= MAX_NAME:
        raise ValueError(f"must have 1 to {MAX_NAME} characters, not {len(text)}")
    return text
