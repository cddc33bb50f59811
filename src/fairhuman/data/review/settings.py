"""Settings of a review, and validation of texts that reviewers enter."""

import unicodedata
from collections.abc import Mapping

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.sources import SourceSettings

MAX_NAME = 60  # characters
# Reasons to drop a picture, in the order of the number keys. The names are stored, so they must not change.
REASONS: Mapping[str, str] = {
    "anatomy": "Wrong anatomy",
    "unclear": "Unclear",
    "no_person": "Not a person",
    "prompt": "Bad prompt",
    "other": "Other",
}


class ReviewRules(Settings):
    """Rules of a review."""

    reviews_per_picture: int = Field(default=1, ge=1, le=100, description="number of reviewers per picture")
    lease_seconds: float = Field(
        default=600.0, gt=0, description="seconds that a picture is reserved for a reviewer before another one gets it"
    )
    max_prompt: int = Field(default=1000, ge=1, le=10_000, description="maximum characters of an edited prompt")


class ReviewSettings(ReviewRules):
    """Settings of a review."""

    hosts: tuple[str, ...] = Field(
        default=(), description="host names of this machine that browsers may use, besides localhost and its addresses"
    )
    source: SourceSettings = SourceSettings()
    url: str | None = Field(
        default=None, description="address that reviewers type, if a proxy stands before the server"
    )


def clean_text(text: str) -> str:
    """Normalise text to one line with single spaces.

    Raises:
        ValueError: the text has control characters or surrogates.
    """
    text = " ".join(text.split())
    invalid = next((character for character in text if unicodedata.category(character) in ("Cc", "Cs")), None)
    if invalid is not None:
        raise ValueError(f"must not hold the control character U+{ord(invalid):04X}")
    return text


def clean_name(text: str) -> str:
    """Normalise a reviewer's name.

    Raises:
        ValueError: the name is empty, too long, or has control characters.
    """
    text = unicodedata.normalize("NFC", clean_text(text))
    if not 1 <= len(text) <= MAX_NAME:
        raise ValueError(f"must have 1 to {MAX_NAME} characters, not {len(text)}")
    return text
