"""Captions to brief and clear prompts by rules over English: no model, no download, the same result each time.

The supplement's validation prompts hold "only the key information related to humans", such as "A man in a suit and
tie standing with his hands on his hips". Without a parser the rules go wrong now and then; the person who reviews the
set mends that: of 60 captions that the rules weren't made on, 8 came out awkward and 6 kept or lost a detail.
"""

import re
from collections.abc import Sequence

from fairhuman.data.validation import words as w
from fairhuman.data.validation.grammar import (
    articles,
    is_adjective,
    is_adverb,
    is_finite,
    is_participle,
    is_person,
    names_person,
    participle,
)
from fairhuman.data.validation.openers import without_opener

MAX_WORDS = 24
LONGEST = 4000  # characters of a caption that are read: no prompt is made of more

_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+")
_TOKEN = re.compile(r"[^\s,()\[\]{}:–—\"“”*_]+|[,()\[\]{}–—]|:(?=\s)")
_NOISE = re.compile(
    r"\bon an? (?:\w+ )?(?:day|evening|morning|afternoon)\b|<[^>]*>|https?://\S+|#\w+|:\d+(?:\.\d+)?(?=[)\],])"
)
_RELATIVE = frozenset({"who", "which", "that", "whose", "whom", "where"})
_SUBORDINATE = frozenset({"while", "because", "although", "though", "since", "when", "if", "whereas", "until", "as"})
_BREAKS = frozenset(",()[]{}:–—")
_LOST_ENDS = (
    (w.PREPOSITIONS - {"up", "down", "inside", "outside"})
    | w.DETERMINERS
    | w.JOINS
    | w.BE
    | {"wearing", "who", "which", "that", "front", ","}
)


def short_prompt(caption: str, max_words: int = MAX_WORDS) -> str:
    """A brief prompt with what the caption says of people; empty where it names none.

    Adjectives (but for age and origin), adverbs, subordinate clauses, quality words, introductions such as "the
    image shows" and what isn't human go. Further sentences about the same person ("She stands in front of a house")
    are joined on as participles. Parts beyond `max_words` are left out from the end.
    """
    parts: list[list[str]] = []
    for sentence in _SENTENCES.split(_NOISE.sub(" ", caption[:LONGEST])):
        tokens = words_of(without_opener(sentence.strip().rstrip(".!?;")))
        if parts:
            tokens = _as_participle(tokens, {word.lower() for part in parts for word in part})
        if tokens and (parts or names_person(tokens)):
            parts += _fragments(_plain(tokens), first=not parts)
    return _joined(parts, max_words)


def words_of(text: str) -> list[str]:
    """Words and the signs between parts of a sentence."""
    return _TOKEN.findall(text)


def _as_participle(tokens: list[str], said: set[str]) -> list[str]:
    """A further sentence about a person of `said` without its subject: "She also holds a cup" to "holding a cup"."""
    words = [token.lower() for token in tokens]
    start = 1 if words[:1] and words[0] in ("he", "she", "they") else 0
    if words[:1] == ["the"] and len(words) > 2 and is_person(words[1]) and words[1] in said:
        start = 2
    while start < len(words) and (is_adverb(words[start]) or words[start] in ("also", "both", *w.BE)):
        start += 1
    if not 0 < start < len(words):
        return []
    verb = words[start]
    for i in range(start + 2, len(tokens)):  # "plays a guitar and wears a hat"
        if words[i - 1] == "and" and is_finite(words[i]):
            tokens[i] = participle(words[i]) or tokens[i]
    if verb in ("has", "have"):
        return ["with", *tokens[start + 1 :]]
    if words[start - 1] in w.BE:
        good = is_participle(verb) or verb in w.PREPOSITIONS
        return tokens[start:] if good else []
    action = participle(verb)
    return [action, *tokens[start + 1 :]] if action else []


def _plain(tokens: list[str]) -> list[str]:
    return _without_adjectives(_without_verbs_of_being(_without_clauses(tokens)))


def _without_clauses(tokens: list[str]) -> list[str]:
    """Drop subordinate clauses; what a person does in one ("who is holding", "while holding") stays."""
    kept: list[str] = []
    i = 0
    while i < len(tokens):
        word = tokens[i].lower()
        following = [token.lower() for token in tokens[i + 1 : i + 3]] + ["", ""]
        starts = word in _SUBORDINATE or (word in _RELATIVE and kept)
        if word == "as" and (following[0] not in w.PRONOUNS | {"the", "his", "her", "their", "if", "though"}):
            starts = False
        if word == "and" and following[0] in ("has", "have") and following[1] in w.DETERMINERS:
            kept.append("with")
            i += 2
        elif not starts:
            kept.append(tokens[i])
            i += 1
        elif word in ("who", "that") and following[0] in w.BE and is_participle(following[1]):
            i += 2
        elif word == "while" and is_participle(following[0]):
            kept.append("and")
            i += 1
        elif word == "who" and following[0] in ("has", "have") and following[1] in w.DETERMINERS:
            kept.append("with")
            i += 2
        elif word == "who" and (action := participle(following[0])):
            kept.append(action)
            i += 2
        else:
            i = _clause_end(tokens, i + 1)
    return kept


def _clause_end(tokens: Sequence[str], start: int) -> int:
    """Where a clause ends: at a comma, or at the second verb, which is that of the main clause."""
    verbs = 0
    for i in range(start, len(tokens)):
        word = tokens[i].lower()
        if word in _BREAKS:
            return i
        if word in w.BE or word in ("has", "have") or (word.endswith("s") and participle(word)):
            verbs += 1
            if verbs == 2 and i > start + 1:
                return i
    return len(tokens)


def _without_verbs_of_being(tokens: list[str]) -> list[str]:
    """ "A man is seen standing" to "a man standing"; "a man is in a park" to "a man in a park"."""
    kept: list[str] = []
    i = 0
    while i < len(tokens):
        infinitive = kept[-1:] == ["to"]
        if infinitive or (tokens[i].lower() not in w.BE and not _seems(tokens, i)):
            kept.append(tokens[i])
            i += 1
            continue
        end = i + (1 if tokens[i].lower() in w.BE else 3)
        while end < len(tokens) and (
            is_adverb(tokens[end].lower()) or tokens[end].lower() in w.SEEN | {"being", "currently"}
        ):
            end += 1
        following = tokens[end].lower() if end < len(tokens) else ","
        if is_adjective(following):  # "is beautiful and": a judgement, up to the next word that isn't one
            while end < len(tokens) and (is_adjective(tokens[end].lower()) or tokens[end].lower() in w.JOINS):
                end += 1
        i = end
    return kept


def _seems(tokens: Sequence[str], i: int) -> bool:
    return tokens[i].lower() in ("appears", "appear", "seems", "seem") and [
        t.lower() for t in tokens[i + 1 : i + 3]
    ] == [
        "to",
        "be",
    ]


def _without_adjectives(tokens: list[str]) -> list[str]:
    """Drop adverbs, and adjectives before a noun: "in a dark blue and white shirt" to "in a shirt"."""
    tokens = [token for token in tokens if not is_adverb(token.lower())]
    kept: list[str] = []
    i = 0
    while i < len(tokens):
        end = _run_of_adjectives(tokens, i, kept)
        following = tokens[end].lower() if end < len(tokens) else ","
        # "dressed in black walks", "a field of lavender standing": here the colour is the noun
        noun_before = bool(kept) and kept[-1].lower() in w.PREPOSITIONS and _acts(following)
        if end == i or noun_before or following in w.FUNCTION | _BREAKS:
            kept.append(tokens[i])
            i += 1
        else:
            i = end
    return kept


def _run_of_adjectives(tokens: Sequence[str], start: int, before: Sequence[str]) -> int:
    """The end of a run of adjectives with commas and joins inside; `start` where there is none."""
    end = i = start
    previous = before[-1].lower() if before else ""
    while i < len(tokens):
        word = tokens[i].lower()
        past = word.endswith("ed") and word not in w.NOT_ADJECTIVES | w.PARTICIPLES | w.KEPT
        attributive = past and (end > start or previous in w.DETERMINERS | {"with", "in"})
        if is_adjective(word) or attributive or _is_age_of_a_thing(tokens, i):
            end = i = i + 1
        elif end > start and (word == "," or word in w.JOINS):
            i += 1
        else:
            break
    return end


def _is_age_of_a_thing(tokens: Sequence[str], i: int) -> bool:
    following = tokens[i + 1].lower() if i + 1 < len(tokens) else ","
    known = w.KEPT | w.FUNCTION | _BREAKS
    return tokens[i].lower() in w.AGES and not (following in known or is_adjective(following) or is_person(following))


def _fragments(tokens: list[str], first: bool) -> list[list[str]]:
    """The parts of a sentence between its commas that say something of people."""
    fragments: list[list[str]] = [[]]
    for token in tokens:
        if token in _BREAKS:
            fragments.append([])
        else:
            fragments[-1].append(token)
    kept: list[list[str]] = []
    listing = False
    for fragment in map(_without_features, map(_without_background, fragments)):
        usable = _usable(fragment, started=bool(kept) or not first, listing=listing)
        if usable:
            lowered = {token.lower() for token in usable}
            listing = bool(lowered & w.LISTING) or (listing and usable == fragment and not is_participle(usable[0]))
            kept.append(usable)
    return kept


def _without_background(fragment: list[str]) -> list[str]:
    """Drop "with trees in the background" and "against a backdrop of hills" from the end."""
    lowered = [token.lower() for token in fragment]
    for noun in ("background", "backdrop", "foreground", "distance"):
        if noun in lowered:
            place = lowered.index(noun)
            starts = [i for i in range(place) if lowered[i] in w.PREPOSITIONS and lowered[i] != "of"]
            within = starts[-1] if starts else 0
            outer = [i for i in starts if lowered[i] == "with" or (i and lowered[i - 1] == "and")]
            return fragment[: outer[-1] if outer and lowered[within] == "in" else within]
    return fragment


def _without_features(fragment: list[str]) -> list[str]:
    """Drop what all people have, now that nothing is said about it: "with eyes", "with a face and a beard"."""
    lowered = [token.lower() for token in fragment]
    if "with" not in lowered or w.HAIRDOS & set(lowered):
        return fragment
    start = end = lowered.index("with") + 1
    items: list[list[str]] = [[]]
    while end < len(fragment) and not (lowered[end] in w.PREPOSITIONS or is_participle(lowered[end])):
        if items[-1] and is_finite(lowered[end]):  # "with hair blows"; but "with skis"
            break
        if lowered[end] in w.JOINS:
            items.append([])
        else:
            items[-1].append(fragment[end])
        end += 1
    items = [item for item in items if item]
    named = [item for item in items if {token.lower() for token in item} - w.DETERMINERS - w.FEATURES]
    if len(named) == len(items):
        return fragment
    said = [token for item in named for token in (["and", *item] if item is not named[0] else item)]
    return fragment[: start - 1] + (["with", *said] if said else []) + fragment[end:]


def _acts(word: str) -> bool:
    return is_participle(word) or is_finite(word)


def _usable(fragment: list[str], started: bool, listing: bool) -> list[str]:
    """The fragment as it may stand in a prompt, or nothing."""
    lowered = [token.lower() for token in fragment]
    content = [token for token in lowered if token not in w.JOINS]
    if names_person(fragment):
        return fragment
    if not started or not content or set(lowered) & w.QUALITY or content[0] in w.COMMENTS:
        return []
    if is_participle(content[0]):
        return fragment
    worn = [token for token in content if {token, token.removesuffix("s"), token.removesuffix("es")} & w.WEARABLES]
    action = participle(content[0]) if content[0].endswith("s") and worn[:1] != content[:1] else None
    if action:
        return [action, *content[1:]]
    if set(lowered) & (w.NON_HUMAN | w.FEATURES):
        return []
    if content[0] in w.PREPOSITIONS:
        return fragment
    if listing and (worn or content[0] in w.DETERMINERS):
        return fragment
    if content[0] in ("hands", "arms", "legs"):
        return ["with", *content]
    if not worn or content[0] in w.PRONOUNS or content[0] in w.DETERMINERS - {"a", "an"}:
        return []
    plural = worn[-1] in w.PLURAL_WEARABLES or content[0] in ("a", "an")
    return ["in", *content] if plural else ["in", "a", *content]


def _joined(parts: Sequence[list[str]], max_words: int) -> str:
    """One line of at most `max_words`; empty where no person is named."""
    text: list[str] = []
    acting = False
    for part in parts:
        while part and part[-1].lower() in _LOST_ENDS:
            part = part[:-1]
        if text and len(text) + len(part) > max_words:
            break
        if part:
            acts = is_participle(part[0].lower())
            attached = not text or part[0].lower() in w.PREPOSITIONS | w.JOINS or (acts and not acting)
            text += part if attached else [",", *part]
            acting = acting or acts
    text = text[:max_words]
    while text and text[-1].lower() in _LOST_ENDS:
        text = text[:-1]
    if not names_person(text):
        return ""
    line = " ".join(articles(text)).replace(" ,", ",")
    return line[:1].upper() + line[1:]
