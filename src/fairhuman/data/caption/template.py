"""Captions from attributes by a template, without a model; deterministic."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairhuman.data.caption.attributes import Words, as_key, as_word, read_attributes
from fairhuman.data.caption.english import count_phrase, person_phrase, with_article
from fairhuman.data.caption.item import Caption, Captioner, CaptionItem, clean_text
from fairhuman.data.caption.settings import TemplateSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.detect.worker import Failure
from fairhuman.report.text import listed

_SHOTS = {
    "full body": "full-body shot",
    "nearly full body": "nearly full-body shot",
    "upper body": "upper-body shot",
    "portrait": "close-up portrait",
    "headshot": "headshot",
}
# Details of a garment in their order before the noun.
_BEFORE_NOUN = (
    *("length", "top length", "coat length", "boots length", "bottom shape", "shoulder exposure level"),
    *("color", "pattern", "graphic", "material", "sleeve length"),
)
_HYPHENATED = frozenset(_BEFORE_NOUN) - {"color", "graphic", "material"}
_NOT_MENTIONED = frozenset(("normal", "regular", "medium"))  # lengths that aren't visible
_CARRIED = re.compile(r"(bag|backpack|purse|suitcase|briefcase|clutch|umbrella|wallet)( with .*)?$")
_HAIRDOS = ("ponytail", "bun", "braid", "braids", "pigtails", "dreadlocks", "buzz cut", "crew cut", "mohawk", "topknot")
_POSES = {
    "peace sign": "making a peace sign",
    "fists": "making fists",
    "thumbs up": "giving a thumbs-up",
    "hand on chest": "with a hand on the chest",
    "hand on chin": "with a hand on the chin",
}
_HIGHER_OR_LOWER = re.compile(r"(above|below|over|under|to|past|at)\s+", re.IGNORECASE)
_PLACE = re.compile(r"(in|on|at|by|near|with|against|indoors|outdoors)\b", re.IGNORECASE)


class TemplateCaptioner(Captioner):
    """Writes a sentence about the attributes; without them, takes the source's text, or else the number of people."""

    name = "template"
    batch_size = 256

    def __init__(self, settings: TemplateSettings, budget: TokenBudget) -> None:
        self._phrases = settings.phrases
        self._budget = budget

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """A sentence for each item; a failure if nothing is known or the attributes can't be read."""
        return [self._caption(item) for item in items]

    def _caption(self, item: CaptionItem) -> Caption | Failure:
        try:
            written = describe_attributes(item.attributes, self._phrases)
        except ValueError as error:
            return Failure(f"attributes can't be read: {error}")
        text = written or clean_text(item.text) or describe_count(item.attributes.get("persons"))
        return self._budget.caption(text, empty="no attribute that the template knows, no text, no number of persons")


def describe_attributes(attributes: Mapping[str, Any], phrases: Mapping[str, str] | None = None) -> str:
    """Write a sentence: `A young woman with long brown hair, wearing a red t-shirt, smiling.`

    The sentence is empty if no attribute is known. `phrases` are for further attributes; their `{}` is the value.

    Raises:
        ValueError: as `read_attributes`.
    """
    about, garments = read_attributes(attributes)
    extra = _extra_phrases(attributes, phrases or {})
    if not (about.keys() - {"person type"} or garments or extra):
        return ""
    subject = person_phrase(*(about.get(key, "") for key in ("gender", "age", "body shape", "country")))
    if shot := _SHOTS.get(about.get("person type", "").lower().replace("_", " ")):
        subject = f"{with_article(shot)} of {subject}"
    garment_phrases = list(dict.fromkeys(map(garment_phrase, garments)))
    carried = [phrase for phrase in garment_phrases if _CARRIED.search(phrase)]
    worn = [phrase for phrase in garment_phrases if phrase not in carried]
    parts = [f"wearing {listed(worn)}"] if worn else []
    parts += [f"carrying {listed(carried)}"] if carried else []
    parts += [*_manner(about), *extra]
    features = _features(about)
    first = f"{subject} with {listed(features)}" if features else subject
    text = ", ".join([first, *parts]) if features else " ".join([first, ", ".join(parts)]).rstrip()
    return f"{text[0].upper()}{text[1:]}."


def describe_count(persons: Any) -> str:
    """`A picture of two people.`, from their number or a list of their boxes; empty for anything else."""
    if isinstance(persons, list | tuple):
        persons = len(persons)
    if isinstance(persons, bool) or not isinstance(persons, int) or persons < 0:
        return ""
    return f"A picture of {count_phrase(persons)}." if persons else "A picture without people."


def garment_phrase(words: Words) -> str:
    """A noun phrase for a garment: `a green cotton long-sleeve shirt with a scoop neckline`."""
    noun = words["type"].replace("_", " ")
    before = []
    for detail in _BEFORE_NOUN:
        word = words.get(detail, "").lower().replace("_", " ")
        redundant = word == "solid color" and "color" in words if detail == "pattern" else word in _NOT_MENTIONED
        if word and not redundant and word not in noun.lower():
            before.append("-".join(word.split()) if detail in _HYPHENATED and not word.startswith("and ") else word)
    phrase = with_article(" ".join([*before, noun]))
    collar = words.get("collar shape", "").lower().replace("_", " ")
    return f"{phrase} with {with_article(collar)}" if collar else phrase


def _features(about: Words) -> list[str]:
    features = [
        _hair(*(about.get(f"hair {key}", "").lower().replace("_", " ") for key in ("color", "style", "length")))
    ]
    if skin := about.get("skin", "").lower():
        features.append(skin if skin.endswith("skin") else f"{skin} skin")
    if (expression := about.get("expression", "").lower()) and not _is_participle(expression):
        features.append(with_article(expression if expression.endswith("mouth") else f"{expression} expression"))
    return [feature for feature in features if feature]


def _hair(colour: str, style: str, length: str) -> str:
    if "bald" in (colour, style, length):
        return "a bald head"
    colour, style = (word[: -len("hair")].rstrip(" -") if word.endswith("hair") else word for word in (colour, style))
    if length in _HAIRDOS:
        style, length = length, ""
    hairdo = style if style in _HAIRDOS else ""
    where = _HIGHER_OR_LOWER.match(length)
    length = "medium-length" if length == "medium" else length
    words = ["" if where else length, "" if hairdo else style, colour]
    if not any((*words, hairdo, where)):
        return ""
    text = " ".join(filter(None, [*words, "hair"]))
    if where:
        goal = length[where.end() :]
        text += f" {where[1].lower()} {goal if goal.startswith('the ') else f'the {goal}'}"
    return f"{text} in {with_article(hairdo)}" if hairdo else text


def _manner(about: Words) -> list[str]:
    """The phrases after the clothes: style, pose, expression, place."""
    parts = []
    if style := about.get("style", "").lower():
        parts.append(f"in {with_article(style if style.endswith('style') else f'{style} style')}")
    if pose := about.get("pose", "").lower():
        parts.append(_POSES.get(pose, pose if _is_participle(pose) else f"with {pose}"))
    if _is_participle(expression := about.get("expression", "").lower()):
        parts.append(expression)
    if place := about.get("background", ""):
        parts.append(place if _PLACE.match(place) else f"against {with_article(place)}")
    return parts


def _is_participle(word: str) -> bool:
    return word.split(" ")[0].endswith("ing")


def _extra_phrases(attributes: Mapping[str, Any], phrases: Mapping[str, str]) -> list[str]:
    known = {as_key(name): value for name, value in attributes.items()}
    extra = []
    for name, phrase in phrases.items():
        value = known.get(as_key(name))
        if word := as_word(value):
            extra.append(clean_text(phrase.replace("{}", word)))
        elif value is True and "{}" not in phrase:
            extra.append(clean_text(phrase))
    return extra
