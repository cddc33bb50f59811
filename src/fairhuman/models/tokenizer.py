"""The tokenizer of the small SDXL; SDXL's own is in `utils.clip_tokenizer`.

It is a byte-level BPE as in CLIP, with merges for words about people and clothes. Every byte is a token,
so any text can be encoded; each word below is one token, so captions stay short.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from fairhuman.utils.clip_tokenizer import END, END_OF_WORD, START

_WORD_LIST = """
a an and are at behind beside by for from her his holding in is its looking near no not of off on one or
over the their there to two three under up down left right wearing with without photo picture portrait
drawing full body half close person people man woman men women young old adult middle aged standing sitting
walking waving pointing smiling laughing serious smile face head eyes mouth nose ears brows beard hand hands
finger fingers arm arms crossed raised hips pocket legs feet skin fair pale light tan dark brown hair short
medium long bald curly straight wavy bun ponytail thumb fist palm open closed black white gray grey blue red
green yellow orange pink purple beige navy teal gold silver cream background plain wall street city park
room studio gradient sky grass brick indoors outdoors shirt t sleeve sleeves sleeved tank top blouse sweater
sweatshirt hoodie cardigan jumper jacket blazer coat cape vest suit tie dress skirt romper bodysuit pants
jeans shorts leggings tights stockings socks shoes boots heels pumps flats sneakers sandals loafers wedges
clogs hat cap scarf gloves belt bag purse wallet backpack umbrella phone cup book glasses sunglasses watch
ring bracelet necklace earrings bra intimate accessories striped checked dotted deep blond buzz cut rose
chest chin fists peace sign thumbs clasped shrugging saluting textured
"""
WORDS = tuple(sorted(set(_WORD_LIST.split())))


@lru_cache(maxsize=1)
def _learn() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of a byte-pair encoding in which each of WORDS is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(WORDS)
    tokens = dict.fromkeys([*alphabet, *(byte + END_OF_WORD for byte in alphabet)])
    tokens |= dict.fromkeys(left + right for left, right in merges)
    tokens |= dict.fromkeys([START, END])
    return {token: number for number, token in enumerate(tokens)}, merges


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merge the most frequent adjacent pair until every word is one token; ties are broken alphabetically.

    Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, ACL 2016. The tokenizers library
    breaks ties differently in each process; here the same word list must always give the same token ids.
    """
    spelled = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for parts in spelled for pair in pairwise(parts))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for parts in spelled:
            for i in range(len(parts) - 2, -1, -1):
                if (parts[i], *parts[i + 1 : i + 2]) == best:
                    parts[i : i + 2] = ["".join(best)]


def build_tokenizer(max_length: int = 77) -> CLIPTokenizer:
    """Return a CLIP tokenizer, the same on every call; texts are truncated to `max_length` tokens."""
    vocabulary, merges = _learn()
    return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), model_max_length=max_length)
