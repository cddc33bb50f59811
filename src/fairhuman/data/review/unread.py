"""What SDXL doesn't read of a long prompt, for the reviewer."""

from functools import cache

from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.review.settings import clean_text
from fairhuman.utils.clip_tokenizer import clip_tokenizer

WORDS = 6  # of the part that isn't read, to find it


@cache
def _budget() -> TokenBudget:
    tokenizer = clip_tokenizer()  # both of SDXL's tokenizers split a text alike
    return TokenBudget((tokenizer, tokenizer))


def unread_text(prompt: str) -> str:
    """A sentence on the part of a prompt that SDXL doesn't read; empty if it reads all, or can't be asked."""
    try:
        prompt = clean_text(prompt)
    except ValueError:  # the decision refuses it
        return ""
    budget = _budget()
    unread = budget.unread(prompt).split()
    if not unread:
        return ""
    start = " ".join(unread[:WORDS]) + ("…" if len(unread) > WORDS else "")
    return (
        f"This prompt has {max(budget.count(prompt))} tokens, and SDXL reads {budget.max_tokens}: what begins with "
        f"“{start}” isn't read. You may keep it so."
    )
