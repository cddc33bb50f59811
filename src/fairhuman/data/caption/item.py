"""What a captioner may look at, what it gives, and the cleaning that every text goes through."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from PIL import Image

from fairhuman.detect.worker import Failure

_JOINERS = "\u200c\u200d"  # invisible, but they hold emoji together and part letters of Persian and Indic scripts
_MARKERS = re.compile(r"<\|(startoftext|endoftext)\|>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CaptionItem:
    """One record, as a captioner sees it.

    Attributes:
        key: of the record.
        text: the source's own caption, may be empty.
        attributes: of the source, may be empty; `persons`, where given, is their number or the list of their boxes.
        picture: upright RGB, decoded when called; raises `PictureError` or `OSError` if it can't be.

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
        tokens: in the first and the second tokenizer of the model, start and end included.
        cut: what was beyond the limit is gone, or the captioner came to an end in the middle of a sentence.
        over: longer than the limit and left so (`tokens.over: warn`); the model will read the beginning alone.

    """

    text: str
    tokens: tuple[int, int]
    cut: bool = False
    over: bool = False


class Captioner(Protocol):
    """Writes captions. To be used in a `with` block, which frees models and connections at the end.

    Attributes:
        name: kind and model, for the data set.
        batch_size: items that one call handles well.

    """

    name: str
    batch_size: int

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """A caption, or the reason why there is none, for each item, in their order.

        Raises:
            DataError, ModelError: if no item can get a caption, as with a wrong key to an endpoint.

        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def clean_text(text: str) -> str:
    """Text in Unicode's form C, on one line, without control characters, doubled or outer spaces.

    CLIP's own markers are taken out as well: an end marker in a caption would end it for the text encoder.
    """
    kept = []
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)
        if kind == "Cc":
            kept.append(" ")
        elif kind not in ("Cf", "Cs") or character in _JOINERS:
            kept.append(character)
    return " ".join(_MARKERS.sub(" ", "".join(kept)).split())
