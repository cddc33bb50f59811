"""Captions for records: one module per kind of captioner, a table of kinds, and a common token limit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from fairhuman.data.caption.endpoint import EndpointCaptioner
from fairhuman.data.caption.item import Captioner
from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.caption.template import TemplateCaptioner
from fairhuman.data.caption.text import TextCaptioner
from fairhuman.data.caption.tokens import TokenBudget


def _transformers(settings: CaptionSettings, budget: TokenBudget) -> Captioner:
    from fairhuman.data.caption.vlm import TransformersCaptioner  # imports torch, which the other kinds don't need

    return TransformersCaptioner(settings.transformers, budget)


CAPTIONERS: Mapping[str, Callable[[CaptionSettings, TokenBudget], Captioner]] = {
    "template": lambda settings, budget: TemplateCaptioner(settings.template, budget),
    "text": lambda _, budget: TextCaptioner(budget),
    "transformers": _transformers,
    "endpoint": lambda settings, budget: EndpointCaptioner(settings.endpoint, budget),
}


@contextmanager
def open_captioner(settings: CaptionSettings) -> Iterator[Captioner]:
    """Open the captioner of the settings.

    Raises:
        ModelError: the tokenizers or the vision-language model can't be loaded.
        DataError: the endpoint's key or package is missing.
    """
    budget = TokenBudget.load(settings.tokens)
    with CAPTIONERS[settings.kind](settings, budget) as captioner:
        yield captioner
