"""What SDXL doesn't read of a long prompt, for the reviewer."""

from functools import cache
from typing import TYPE_CHECKING

from fairhuman.data.review.settings import clean_text

if TYPE_CHECKING:
    from fairhuman.data.caption.tokens import TokenBudget

TOKENS, TYPICAL_WORDS = 77, 55  # that SDXL reads; so many words of English have about so many tokens
SHOWN = 6  # words of the part that isn't read, to find it
KEEP = "You may keep it so."


@cache
def _budget() -> "TokenBudget":
    """CLIP's tokenizer as both of SDXL's, which split a text alike.

    Raises:
        ImportError: transformers isn't installed, which a review doesn't need otherwise.
    """
    from fairhuman.data.caption.tokens import TokenBudget
    from fairhuman.utils.clip_tokenizer import clip_tokenizer

    tokenizer = clip_tokenizer()
    return TokenBudget((tokenizer, tokenizer), TOKENS)


def unread_text(prompt: str) -> str:
    """A sentence on the part of a prompt that SDXL doesn't read; empty if it reads all.

    Empty for a prompt with control characters too, which the decision refuses. Without transformers, words are counted.
    """
    try:
        prompt = clean_text(prompt)
    except ValueError:
        return ""
    try:
        budget = _budget()
    except ImportError:
        return _by_words(len(prompt.split()))
    unread = budget.unread(prompt).split()
    if not unread:
        return ""
    start = " ".join(unread[:SHOWN]) + ("…" if len(unread) > SHOWN else "")
    has = f"This prompt has {max(budget.count(prompt))} tokens, and SDXL reads {TOKENS}"
    return f"{has}: what begins with “{start}” isn't read. {KEEP}"


def _by_words(words: int) -> str:
    if words <= TYPICAL_WORDS:
        return ""
    has = f"This prompt has {words} words, and SDXL reads {TOKENS} tokens, about {TYPICAL_WORDS} words"
    return f"{has}: its end is probably not read. {KEEP}"
