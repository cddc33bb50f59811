"""Captions from the source's own texts."""

from collections.abc import Sequence

from fairhuman.data.caption.item import Caption, Captioner, CaptionItem
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.detect.worker import Failure


class TextCaptioner(Captioner):
    """Takes each record's text, cleaned and within the token limit."""

    name = "text"
    batch_size = 256

    def __init__(self, budget: TokenBudget) -> None:
        self._budget = budget

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """The texts of the items; an empty text is a failure."""
        return [self._budget.caption(item.text, empty="the source has no text") for item in items]
