"""Token limit of captions: SDXL's two text encoders read 77 tokens and silently drop the rest."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fairhuman.data.caption.item import Caption, clean_text
from fairhuman.data.caption.settings import TokenSettings
from fairhuman.detect.worker import Failure
from fairhuman.errors import ModelError
from fairhuman.utils.clip_tokenizer import CLIP_WORDS, clip_tokenizer
from fairhuman.utils.hub import failure
from fairhuman.utils.safetensors_header import read_header
from fairhuman.utils.shipped import SHIPPED, SMALL_FOLDER, home

PARTS = ("tokenizer", "tokenizer_2")
_MIN_VOCABULARY = 300  # a file without a vocabulary gives a tokenizer with a few special tokens, without an error

# Any caption takes time proportional to its length: no match begins inside a run of marks or gives back a part of one.
# A lower-case letter must not follow, so that "approx. two" doesn't end a sentence.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s++[^a-z]|\s*+$)|[。！？]++[」』”）]*+")
_CLAUSE_END = re.compile(r"(?=[,;:]\s|\s[-–—]\s|—|[，、；：])")
_WORD_END = re.compile(r"(?<=\S)(?=\s)")
_FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "and", "or", "but", "with", "of", "in", "on", "at", "to", "by", "for", "from"),
        *("her", "his", "their", "its", "who", "which", "is", "are"),
    )
)


class TokenBudget:
    """Counts the tokens of captions and cuts captions that are too long.

    Args:
        tokenizers: the two tokenizers of a model.
        max_tokens: maximum number of tokens in each of them, start and end included.
        over: `cut`, or `warn`: keep the text and set the caption's `over`.
    """

    def __init__(self, tokenizers: tuple[Any, Any], max_tokens: int = 77, over: Literal["cut", "warn"] = "cut") -> None:
        self.tokenizers, self.max_tokens, self.over = tokenizers, max_tokens, over

    @classmethod
    def load(cls, settings: TokenSettings) -> "TokenBudget":
        """Load the tokenizers of a model.

        Raises:
            ModelError: as `load_tokenizers`.
        """
        return cls(load_tokenizers(settings.model), settings.max_tokens, settings.over)

    def count(self, text: str) -> tuple[int, int]:
        """Number of tokens of a text in both tokenizers, start and end included, without a limit."""
        first, second = (len(tokenizer(text, verbose=False).input_ids) for tokenizer in self.tokenizers)
        return first, second

    def caption(self, text: str, empty: str, unfinished: bool = False) -> Caption | Failure:
        """Make a caption from a text: cleaned, and cut if it is too long.

        The cut is at the end of a sentence, else of a clause, else of a word: the first of these that keeps at least
        half of the limit, so that a long last sentence isn't lost. A single word that is too long is cut inside.

        Args:
            text: the raw text.
            empty: reason of the failure if the cleaned text is empty.
            unfinished: the text stops inside a sentence; that sentence is removed if another one remains.
        """
        text = clean_text(text)
        if unfinished:
            ends = [match.end() for match in _SENTENCE_END.finditer(text)]
            text = text[: ends[-1]] if ends else _strip_dangling(text)
        if not text:
            return Failure(empty)
        tokens = self.count(text)
        if max(tokens) <= self.max_tokens:
            return Caption(text, tokens, cut=unfinished)
        if self.over == "warn":
            return Caption(text, tokens, cut=unfinished, over=True)
        text = self._cut(text)
        return Caption(text, self.count(text), cut=True)

    def unread(self, text: str) -> str:
        """The end of a text that is beyond the limit; empty if nothing is."""
        return text[min(self._limit_position(tokenizer, text) for tokenizer in self.tokenizers) :].strip()

    def _cut(self, text: str) -> str:
        end = min(self._limit_position(tokenizer, text) for tokenizer in self.tokenizers)
        keep: Callable[[str], str] = str
        for boundary in (_SENTENCE_END, _CLAUSE_END, _WORD_END):
            places = [match.end() for match in boundary.finditer(text) if 0 < match.end() <= end]
            kept = next((part for place in reversed(places) if self._fits(part := keep(text[:place]))), "")
            if kept and (boundary is _WORD_END or 2 * max(self.count(kept)) >= self.max_tokens):
                return kept
            keep = _strip_dangling
        while not self._fits(text[:end]):  # a fragment at the end of a word tokenizes differently than inside the word
            end -= 1
        return text[:end].rstrip() or text[:1]

    def _limit_position(self, tokenizer: Any, text: str) -> int:
        """Approximate number of characters within the limit; a cut can change the last token."""
        offsets = tokenizer(text, verbose=False, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        room = self.max_tokens - tokenizer.num_special_tokens_to_add()
        return len(text) if len(offsets) <= room else int(offsets[room - 1][1])

    def _fits(self, text: str) -> bool:
        return text != "" and max(self.count(text)) <= self.max_tokens


def load_tokenizers(model: str) -> tuple[Any, Any]:
    """Load only the two tokenizers of an SDXL model: a folder, a .safetensors file, a hub id or one of this package.

    Raises:
        ModelError: the model has no tokenizers, or the hub can't be reached.
    """
    from transformers import CLIPTokenizer

    folder = Path(home(SHIPPED.get(model, model), PARTS[0]))
    if folder.is_file():
        if not _is_small(folder, model):
            return clip_tokenizer(), clip_tokenizer(pad="!")
        folder = SMALL_FOLDER
    if not folder.exists():
        folder = _download(model)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise ModelError(
                f"tokens.model {model!r}: expected an SDXL model with {' and '.join(PARTS)}, found no {part}; for "
                "other bases, which read more than 77 tokens, leave it out and give tokens.max_tokens"
            )
    try:
        first, second = (CLIPTokenizer.from_pretrained(folder / part, local_files_only=True) for part in PARTS)
    except Exception as error:  # parsers raise various errors on damaged files
        raise _no_tokenizers(model, error) from error
    for part, tokenizer in zip(PARTS, (first, second), strict=True):
        if len(tokenizer) < _MIN_VOCABULARY:
            raise ModelError(f"tokens.model {model!r}: expected a vocabulary in {part}, found {len(tokenizer)} tokens")
    return first, second


def _is_small(file: Path, model: str) -> bool:
    """Whether the text encoders of a single file read the words of the small SDXL; else they read CLIP's.

    Raises:
        ModelError: no .safetensors file, or one without text encoders.
    """
    tensors = read_header(file, f"tokens.model {model!r}").tensors
    words = {entry.shape[0] for name, entry in tensors.items() if name.endswith("token_embedding.weight")}
    if not words:
        raise ModelError(f"tokens.model {model!r}: expected an SDXL model, found a file without text encoders")
    return CLIP_WORDS not in words


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, allow_patterns=[f"{part}/*" for part in PARTS]))
    except HFValidationError as error:
        raise ModelError(
            f"tokens.model {model!r}: expected 'small', a folder, a file or a hub id; it is none of them"
        ) from error
    except Exception as error:  # the hub's client passes on errors of its connections
        raise _no_tokenizers(model, error) from error


def _no_tokenizers(model: str, error: Exception) -> ModelError:
    reason = failure(error, model)
    return ModelError(f"tokens.model {model!r}: expected an SDXL model with {' and '.join(PARTS)}: {reason}")


def _strip_dangling(text: str) -> str:
    """Remove punctuation and function words left dangling at the end of a cut text."""
    end = len(text)
    while True:
        while end and (text[end - 1].isspace() or text[end - 1] in ",;:–—-"):
            end -= 1
        start = end
        while start and not text[start - 1].isspace():
            start -= 1
        if not start or text[start:end].lower() not in _FUNCTION_WORDS:
            return text[:end]
        end = start
