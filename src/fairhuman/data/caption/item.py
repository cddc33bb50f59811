"""The interface of captioners: items in, captions out, and the cleaning of texts."""

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fairhuman.detect.worker import Failure
from fairhuman.utils.closing import Closing

_JOINERS = "\u200c\u200d"  # invisible, but needed in composed emoji and in Persian and Indic scripts
_MARKERS = re.compile(r"<\|(startoftext|endoftext)\|>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CaptionItem:
    """One record, as input of a captioner.

    Attributes:
        key: key of the record.
        text: the source's caption, may be empty.
        attributes: attributes of the source, may be empty; `persons`, if given, is their number or a list of boxes.
        picture: decodes the upright RGB picture; raises `PictureError` or `OSError` if that fails.
    """

    key: str
    text: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    picture: Callable[[], Image.Image] = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and its length.

    Attributes:
        text: clean, not empty.
        tokens: numbers of tokens in the model's two tokenizers, start and end included.
        cut: the text was cut to the limit, or the captioner stopped in the middle of a sentence.
        over: the text exceeds the limit and was kept (`tokens.over: warn`); the model will read only its beginning.
    """

    text: str
    tokens: tuple[int, int]
    cut: bool = False
    over: bool = False


class Captioner(Closing):
    """Writes captions. Use it in a `with` block, which frees models and connections at the end.

    Attributes:
        name: kind and model, as stored in a data set.
        batch_size: recommended number of items per call.
    """

    name: str
    batch_size: int

    @abstractmethod
    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """A caption or the reason for a failure, for each item in order.

        Raises:
            DataError, ModelError: no item can get a caption, for example because of a wrong key.
        """

    def close(self) -> None:
        """Free models and connections; a captioner that holds none needs no `close` of its own."""


def clean_text(text: str) -> str:
    """Normalise text to Unicode NFC on one line, without control characters and repeated or outer spaces.

    CLIP's markers are removed too, because an end marker in a caption would end it for the text encoder.
    """
    kept = []
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)
        if kind == "Cc":
            kept.append(" ")
        elif kind not in ("Cf", "Cs") or character in _JOINERS:
            kept.append(character)
    return " ".join(_MARKERS.sub(" ", "".join(kept)).split())
