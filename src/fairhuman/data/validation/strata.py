"""Strata of records: scene, number of people, attributes of the person.

The source's attributes are used first, then words of the caption; otherwise the value is "unknown".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fairhuman.data.pictures.filters import PERSON
from fairhuman.record import HumanRecord

UNKNOWN = "unknown"
Stratum = tuple[str, ...]

# The value with the most words in the text is chosen; in a tie, the first.
KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "scene": {
        "street": "street road sidewalk pavement city crosswalk alley downtown building buildings shop store market",
        "water": "beach ocean sea lake river wave waves pool boat surfboard swimming shore pier",
        "sport": "court field pitch track stadium game match tennis baseball soccer football basketball race",
        "nature": "park garden forest tree trees mountain mountains grass meadow desert snow slope hill woods flowers",
        "stage": "stage concert theater theatre microphone audience runway catwalk podium",
        "studio": "studio backdrop gradient textured plain",
        "work": "office desk laptop classroom laboratory workshop factory kitchen hospital meeting",
        "indoors": "indoors indoor room bedroom bathroom home house couch sofa bed table restaurant bar cafe gym wall",
        "outdoors": "outdoors outdoor outside sky sunset sun bench balcony",
    },
    "gender": {
        "female": "woman women girl girls lady ladies female females mother daughter sister wife bride actress "
        "waitress businesswoman grandmother she her",
        "male": "man men boy boys gentleman gentlemen guy guys male males father son brother husband groom actor "
        "businessman businessmen grandfather he his",
    },
    "age": {
        "child": "child children kid kids baby babies toddler boy boys girl girls infant",
        "young": "young teen teens teenager teenagers youth student students twenties",
        "old": "old elderly older senior aged grandmother grandfather",
        "adult": "adult adults middle-aged thirties forties",
    },
}
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "scene": ("scene", "background", "place", "location"),
    "gender": ("gender", "sex"),
}
AGES = ((13.0, "child"), (30.0, "young"), (60.0, "adult"))  # upper limits in years, exclusive
_ONE = ("person", "man", "woman", "boy", "girl", "lady", "gentleman", "guy", "male", "female", "child", "kid", "baby")
_TWO = ("couple", "pair", "twins", "two", "both")
_MANY = (
    *("group", "crowd", "family", "team", "people", "men", "women", "boys", "girls", "friends", "children", "kids"),
    *("three", "four", "five", "several"),
)
_SINGLE_WORD = re.compile(r"[a-z0-9'-]+")


def stratum(record: HumanRecord, dimensions: Sequence[str]) -> Stratum:
    """The values of a record, one per dimension: `scene`, `persons`, or the name of an attribute."""
    return tuple(_persons(record) if name == "persons" else _value(record, name) for name in dimensions)


def _value(record: HumanRecord, name: str) -> str:
    names = OTHER_NAMES.get(name, (name,))
    annotated = next(filter(None, (_attribute(record.attributes, each) for each in names)), "")
    if name not in KEYWORDS:
        return annotated or UNKNOWN
    if name == "age" and re.fullmatch(r"\d{1,3}(\.\d+)?", annotated):
        return next((value for years, value in AGES if float(annotated) < years), "old")
    text = annotated or record.caption or " ".join(_texts(record.attributes))
    words = _SINGLE_WORD.findall(text.lower())
    counts = {value: sum(words.count(word) for word in table.split()) for value, table in KEYWORDS[name].items()}
    best = max(counts, key=lambda value: counts[value])
    if name == "gender" and min(counts.values()):
        best = "both"
    return best if any(counts.values()) else (annotated or UNKNOWN)


def _persons(record: HumanRecord) -> str:
    """Number of people: from boxes, an attribute, the caption, or else known faces."""
    boxes = record.boxes.get(PERSON)
    stated = record.attributes.get("persons")
    words = set(_SINGLE_WORD.findall(record.caption.lower()))
    if boxes is not None:
        count = len(boxes)
    elif isinstance(stated, int | list | tuple) and not isinstance(stated, bool):
        count = max(stated, 0) if isinstance(stated, int) else len(stated)
    elif words & {*_TWO, *_MANY}:
        count = 2 if words & {*_TWO} else 3
    elif words & {*_ONE}:
        count = len(words & {*_ONE})
    else:
        count = len(record.boxes.get("face") or ())
        return _count_label(count) if count else UNKNOWN
    return _count_label(count)


def _count_label(count: int) -> str:
    return "3 or more" if count > 2 else str(count)


def _attribute(attributes: Any, name: str) -> str:
    """The text or number under a name, at any depth, in lower case; empty if there is none."""
    for key, value in _entries(attributes):
        if str(key).lower() == name.lower() and isinstance(value, str | int | float):
            text = " ".join(str(value).lower().split())
            return text.encode("utf-8", errors="replace").decode("utf-8")  # JSON can encode half a surrogate pair
    return ""


def _entries(value: Any, depth: int = 4) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield key, inner
        if depth:
            yield from _entries(inner, depth - 1)


def _texts(attributes: Any) -> Iterator[str]:
    return (value for _, value in _entries(attributes) if isinstance(value, str))
