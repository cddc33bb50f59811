"""What a word of an English caption is, by the tables in `words` and by its ending."""

import re
from collections.abc import Iterable, Sequence

from fairhuman.data.validation import words as w

_ADJECTIVE_END = re.compile(r"(?:ful|ous|ive|able|ible|ish|less|esque)$")
_COMPOUND_END = re.compile(
    r"-(?:\w+ed|\w+ing|length|style|colou?r|tone|neck|waist|quality|like|level|fitting|shoulder)$"
)
_PERSON_END = re.compile(r"(?:sman|smen|swoman|swomen)$")


def names_person(tokens: Iterable[str]) -> bool:
    """Whether one of the words is for a person."""
    return any(is_person(token) for token in tokens)


def is_person(token: str) -> bool:
    """Whether a word is for a person."""
    word = token.lower().removesuffix(".").removesuffix("'s").removesuffix("’s")
    return word in w.PERSONS or bool(_PERSON_END.search(word))


def participle(verb: str) -> str | None:
    """The form in -ing of an action in the present, or None where it isn't a known action."""
    candidates = [verb, verb.removesuffix("s"), verb.removesuffix("es")]
    candidates += [verb[:-3] + "y"] if verb.endswith("ies") else []
    base = next((each for each in candidates if each in w.ACTIONS), None)
    if base is None:
        return None
    if base in ("lie", "tie"):
        return base[:-2] + "ying"
    if base in w.DOUBLED:
        return base + base[-1] + "ing"
    return (base[:-1] if base.endswith("e") else base) + "ing"


def is_participle(word: str) -> bool:
    """Whether a lower-case word says what somebody is doing: "walking", "dressed"."""
    return (word.endswith("ing") and word not in w.NOT_PARTICIPLES and len(word) > 4) or word in w.PARTICIPLES


def is_adverb(word: str) -> bool:
    """Whether a lower-case word only colours another one: "softly", "very"."""
    return (word.endswith("ly") and word not in w.NOT_ADJECTIVES) or word in w.INTENSIFIERS


def is_adjective(word: str) -> bool:
    """Whether a lower-case word is an adjective that may go."""
    if word in w.KEPT or word in w.NOT_ADJECTIVES or re.fullmatch(r"\d+-years?-old", word):
        return False
    return word in w.ADJECTIVES or bool(_ADJECTIVE_END.search(word) or _COMPOUND_END.search(word))


def is_finite(word: str) -> bool:
    """Whether a lower-case word is an action in the present: "walks"."""
    return word.endswith("s") and participle(word) is not None


def articles(tokens: Sequence[str]) -> list[str]:
    """ "a" and "an" as the next word wants them, now that adjectives are gone."""
    fixed = list(tokens)
    for i, word in enumerate(tokens[:-1]):
        if word.lower() in ("a", "an"):
            following = tokens[i + 1].lower()
            vowel = re.match(r"(?!uni|use|euro|one\b)[aeiou]|hour|honest", following)
            fixed[i] = word[0] + ("n" if vowel else "")
    return fixed
