"""Captions in the tokens of SDXL's two text encoders, which read 77 of them and drop the rest without a word."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fairhuman.data.caption.item import Caption, clean_text
from fairhuman.data.caption.settings import TokenSettings
from fairhuman.detect.worker import Failure
from fairhuman.errors import ModelError

PARTS = ("tokenizer", "tokenizer_2")
# Known by its place: importing fairhuman.models would load diffusers for two small files.
SMALL_MODELS = ("small", "small-untrained")
SMALL_FOLDER = Path(__file__).parents[2] / "models" / "small"
_LEAST_WORDS = 300  # a file without a vocabulary gives a tokenizer of a few special tokens, and no error

# A capital letter or the like must follow, so that "approx. two" and "1.5 m" go on.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+[^\sa-z]|\s*$)|[。！？]+[」』”）]*")
_CLAUSE_END = re.compile(r"(?=[,;:]\s|\s[-–—]\s|—|[，、；：])")
_WORD_END = re.compile(r"(?<=\S)(?=\s)")
_HANGING = re.compile(
    r"([\s,;:–—-]|(?<=\s)(a|an|the|and|or|but|with|of|in|on|at|to|by|for|from|her|his|their|its|who|which|is|are))+$",
    re.IGNORECASE,
)


class TokenBudget:
    """Counts the tokens of captions and cuts what is too long.

    Args:
        tokenizers: the first and the second one of a model.
        max_tokens: of each of them, start and end included.
        over: `cut`, or `warn`: leave the text and say so in the caption.

    """

    def __init__(self, tokenizers: tuple[Any, Any], max_tokens: int = 77, over: Literal["cut", "warn"] = "cut") -> None:
        self.tokenizers, self.max_tokens, self.over = tokenizers, max_tokens, over

    @classmethod
    def load(cls, settings: TokenSettings) -> "TokenBudget":
        """The budget in the tokenizers of a model.

        Raises:
            ModelError: as `load_tokenizers`.

        """
        return cls(load_tokenizers(settings.model), settings.max_tokens, settings.over)

    def count(self, text: str) -> tuple[int, int]:
        """Tokens of a text in both tokenizers, start and end included, nothing cut."""
        first, second = (len(tokenizer(text, verbose=False).input_ids) for tokenizer in self.tokenizers)
        return first, second

    def caption(self, text: str, empty: str, unfinished: bool = False) -> Caption | Failure:
        """The caption that a text makes: cleaned, and cut where it is too long.

        It is cut at the end of a sentence, else of a clause, else of a word: at the first of these that keeps half of
        the limit, so that no long sentence is lost for the sake of its full stop. A single word that is too long is
        cut within.

        Args:
            text: as it came.
            empty: the reason of the failure if nothing is left of it.
            unfinished: the text ends somewhere within a sentence; that sentence goes if another one stays.

        """
        text = clean_text(text)
        if unfinished:
            ends = [match.end() for match in _SENTENCE_END.finditer(text)]
            text = text[: ends[-1]] if ends else _without_hanging(text)
        if not text:
            return Failure(empty)
        tokens = self.count(text)
        if max(tokens) <= self.max_tokens:
            return Caption(text, tokens, cut=unfinished)
        if self.over == "warn":
            return Caption(text, tokens, cut=unfinished, over=True)
        text = self._cut(text)
        return Caption(text, self.count(text), cut=True)

    def _cut(self, text: str) -> str:
        end = min(self._reach(tokenizer, text) for tokenizer in self.tokenizers)
        keep: Callable[[str], str] = str
        for boundary in (_SENTENCE_END, _CLAUSE_END, _WORD_END):
            places = [match.end() for match in boundary.finditer(text) if 0 < match.end() <= end]
            kept = next((part for place in reversed(places) if self._fits(part := keep(text[:place]))), "")
            if kept and (boundary is _WORD_END or 2 * max(self.count(kept)) >= self.max_tokens):
                return kept
            keep = _without_hanging
        while not self._fits(text[:end]):  # the last piece of a word has another token than the same piece within it
            end -= 1
        return text[:end].rstrip() or text[:1]

    def _reach(self, tokenizer: Any, text: str) -> int:
        """Characters of the text that the limit reaches over, about: a cut can change the last token."""
        places = tokenizer(text, verbose=False, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        room = self.max_tokens - tokenizer.num_special_tokens_to_add()
        return len(text) if len(places) <= room else int(places[room - 1][1])

    def _fits(self, text: str) -> bool:
        return text != "" and max(self.count(text)) <= self.max_tokens


def load_tokenizers(model: str) -> tuple[Any, Any]:
    """Both tokenizers of an SDXL, and nothing else of it: a folder, a hub id or a model of this package.

    Raises:
        ModelError: there are none, or the hub can't be reached.

    """
    from transformers import CLIPTokenizer

    folder = SMALL_FOLDER if model in SMALL_MODELS else Path(model)
    if not folder.exists():
        folder = _download(model)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise ModelError(f"tokens.model {model!r}: expected an SDXL with {' and '.join(PARTS)}, found no {part}")
    try:
        first, second = (CLIPTokenizer.from_pretrained(folder / part, local_files_only=True) for part in PARTS)
    except Exception as error:  # parsers of damaged files have errors of their own
        raise _no_tokenizers(model, error) from error
    for part, tokenizer in zip(PARTS, (first, second), strict=True):
        if len(tokenizer) < _LEAST_WORDS:
            raise ModelError(f"tokens.model {model!r}: expected a vocabulary in {part}, found {len(tokenizer)} tokens")
    return first, second


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, allow_patterns=[f"{part}/*" for part in PARTS]))
    except HFValidationError as error:
        raise ModelError(
            f"tokens.model {model!r}: expected 'small', a folder or a hub id, found none of them"
        ) from error
    except Exception as error:  # the hub's client hands on those of its connections
        raise _no_tokenizers(model, error) from error


def _no_tokenizers(model: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    return ModelError(f"tokens.model {model!r}: expected an SDXL with {' and '.join(PARTS)}: {reason}")


def _without_hanging(text: str) -> str:
    """The text without punctuation and small words at its end that led on to what is gone."""
    return _HANGING.sub("", text)
