"""CLIP's tokenizer, which SDXL uses, without a download."""

import gzip
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# Located by path: importing fairhuman.models would load diffusers for one file.
CLIP_MERGES = Path(__file__).parents[1] / "models" / "clip" / "merges.txt.gz"
CLIP_WORDS = 49408
START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def clip_tokenizer(pad: str = END) -> "CLIPTokenizer":
    """Return CLIP's tokenizer of 49,408 tokens, from its merges, which ship with this package.

    A vocabulary holds the bytes, the bytes at the end of a word, what each merge makes, and the two special tokens.
    Source: openai/CLIP, `clip/simple_tokenizer.py`, and its `bpe_simple_vocab_16e6.txt.gz` (MIT).

    Args:
        pad: the token that fills texts up to 77 tokens: SDXL's first tokenizer pads with the end, the second with "!".
    """
    from transformers import CLIPTokenizer

    merges = [(left, right) for left, _, right in (line.partition(" ") for line in _clip_merges())]
    alphabet = _bytes_as_letters()
    tokens = [*alphabet, *(byte + END_OF_WORD for byte in alphabet), *(left + right for left, right in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


@lru_cache(maxsize=1)
def _clip_merges() -> list[str]:
    return gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()


def _bytes_as_letters() -> list[str]:
    """Return the letter that stands for each byte, in CLIP's order: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
