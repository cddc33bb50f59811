"""Captions for records: one file a kind of captioner, one table of them, one limit of tokens for all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from pydantic import model_validator

from fairhuman.config import Settings
from fairhuman.data.caption.endpoint import EndpointCaptioner, EndpointSettings
from fairhuman.data.caption.item import Caption, Captioner, CaptionItem, clean_text
from fairhuman.data.caption.template import TemplateCaptioner, TemplateSettings
from fairhuman.data.caption.text import TextCaptioner
from fairhuman.data.caption.tokens import TokenBudget, TokenSettings
from fairhuman.data.caption.vision import TransformersSettings

__all__ = [
    "CAPTIONERS",
    "Caption",
    "CaptionItem",
    "CaptionSettings",
    "Captioner",
    "EndpointSettings",
    "TemplateSettings",
    "TokenBudget",
    "TokenSettings",
    "TransformersSettings",
    "clean_text",
    "open_captioner",
]


class CaptionSettings(Settings):
    """Where captions come from; a section for each kind, and one for their length."""

    kind: Literal["template", "text", "transformers", "endpoint"] = "template"
    template: TemplateSettings = TemplateSettings()
    transformers: TransformersSettings = TransformersSettings()
    endpoint: EndpointSettings = EndpointSettings()
    tokens: TokenSettings = TokenSettings()

    @model_validator(mode="after")
    def _model_named(self) -> "CaptionSettings":
        for kind, section in (("transformers", self.transformers), ("endpoint", self.endpoint)):
            if self.kind == kind and not section.model.strip():
                raise ValueError(f"kind {kind} needs {kind}.model")
        return self


def _transformers(settings: CaptionSettings, budget: TokenBudget) -> Captioner:
    from fairhuman.data.caption.vlm import TransformersCaptioner  # torch; the other kinds do without

    return TransformersCaptioner(settings.transformers, budget)


CAPTIONERS: Mapping[str, Callable[[CaptionSettings, TokenBudget], Captioner]] = {
    "template": lambda settings, budget: TemplateCaptioner(settings.template, budget),
    "text": lambda _, budget: TextCaptioner(budget),
    "transformers": _transformers,
    "endpoint": lambda settings, budget: EndpointCaptioner(settings.endpoint, budget),
}


@contextmanager
def open_captioner(settings: CaptionSettings) -> Iterator[Captioner]:
    """The captioner that the settings name, ready to use.

    Raises:
        ModelError: the tokenizers or the vision-language model can't be loaded.
        DataError: the endpoint's key or package is missing.

    """
    budget = TokenBudget.load(settings.tokens)
    with CAPTIONERS[settings.kind](settings, budget) as captioner:
        yield captioner
