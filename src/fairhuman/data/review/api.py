"""Bodies of a review's requests."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from fairhuman.config import Settings
from fairhuman.data.review.settings import clean_name


class ReviewerBody(Settings):
    """Body of every request that may change data."""

    reviewer: Annotated[str, AfterValidator(clean_name)]


class PromptBody(ReviewerBody):
    """Body of a question about a prompt that may be kept."""

    prompt: str


class DecisionBody(ReviewerBody):
    """Body of a decision; `shown` is the prompt that the picture had on the page, for `prompt` see `decide`."""

    key: str
    action: Literal["keep", "drop"]
    prompt: str | None = None
    reason: str | None = None
    shown: str | None = None
