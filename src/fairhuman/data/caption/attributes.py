"""Normalise attributes of any source to words about the person, the place and each garment.

CosmicMan-HQ has `aa_text`: JSON, a list of 20 groups in a fixed order, each a mapping of words or null (see
`dataset.py` of cosmicman-cvpr2024/CosmicMan, commit b961de9). A group of clothes either has a `type`, or its garment
follows from its place in the list. Groups by name, `{"hat": {"color": "red"}}`, and flat attributes, such as those of
synthetic people (`gender`, `hair`, `top`, `top_colour`), are supported too.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fairhuman.data.caption.item import clean_text
from fairhuman.utils.parse import parse_json

Words = dict[str, str]

COSMICMAN = "aa_text"
# Garment of each group of `aa_text` without a type, by place; "": the group has a type, or isn't a garment.
_BY_PLACE = ("",) * 12 + ("belt", "scarf", "", "headband", "headscarf", "veil", "socks", "tie")
PERSON = ("gender", "age", "country", "body shape", "person type", "skin", "expression", "pose", "background", "style")
HAIR = ("hair color", "hair style", "hair length")
DETAILS = (
    *("type", "color", "pattern", "graphic", "material", "collar shape", "bottom shape", "shoulder exposure level"),
    *("length", "top length", "coat length", "boots length", "sleeve length"),
)
# Garments in the order of mention; the value is the noun to use if it differs from the name.
GARMENTS = {
    **dict.fromkeys(("dress", "outfit", "suit", "top", "shirt", "blouse", "sweater", "vest", "coat", "jacket")),
    **{"bottom": "bottoms", "bottoms": None},
    **dict.fromkeys(("trousers", "pants", "jeans", "shorts", "skirt", "leggings", "stockings", "socks", "shoes")),
    **dict.fromkeys(("boots", "belt", "tie", "scarf", "gloves", "hat", "cap", "headband", "headscarf", "veil")),
    **dict.fromkeys(("glasses", "sunglasses", "necklace", "earrings", "bracelet", "watch", "ring", "bag", "backpack")),
    **dict.fromkeys(("clothes", "clothing")),
}
NAMED_GROUPS = (*GARMENTS, "hair color", "person", "body", "face", "head")
_COLOURS = frozenset(
    (
        *("red", "blue", "green", "yellow", "white", "black", "gray", "grey", "orange", "purple", "pink", "teal"),
        *("brown", "beige", "navy", "gold", "silver", "cream", "light", "dark", "bright", "pale", "and"),
    )
)
_SYNONYMS = {
    "sex": "gender",
    "ethnicity": "country",
    "origin": "country",
    "nationality": "country",
    "skin color": "skin",
    "action": "pose",
    "overall-style": "style",
    "overall style": "style",
    "hair": "hair color",
}
_EMPTY_VALUES = frozenset(
    ("", "none", "null", "nan", "n/a", "unknown", "not sure", "unsure", "other", "others", "no", "-")
)


def read_attributes(attributes: Mapping[str, Any]) -> tuple[Words, list[Words]]:
    """Words about person, hair and place (keys PERSON and HAIR), and those of each garment (keys DETAILS, noun `type`).

    Unknown keys are ignored.

    Raises:
        ValueError: `aa_text` is neither JSON nor a list or mapping of groups.
    """
    about: Words = {}
    garments: list[Words] = []
    for noun, group in _groups(attributes):
        # A number is only meaningful as an age; elsewhere it is a code of unknown meaning.
        usable = {key: value for key, value in group.items() if key == "age" or not isinstance(value, int | float)}
        words = {key: word for key, value in usable.items() if (word := as_word(value))}
        about |= {key: word for key, word in words.items() if key in PERSON or key in HAIR}
        details = {key: word for key, word in words.items() if key in DETAILS}
        if "type" in details or (noun and details):
            garments.append({"type": noun, **details})
    return about, garments


def as_word(value: Any) -> str:
    """A value as text for a sentence; empty if it has no meaning, such as a list of anything but words."""
    if isinstance(value, list | tuple):
        return " and ".join(filter(None, map(as_word, value))) if all(isinstance(one, str) for one in value) else ""
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    word = clean_text(str(value))
    return "" if word.lower().replace("_", " ") in _EMPTY_VALUES else word


def as_key(name: Any) -> str:
    """Normalise a name: `Top_Colour` to `top color`, and synonyms to the known name."""
    key = clean_text(str(name)).lower().replace("_", " ").replace("colour", "color")
    return _SYNONYMS.get(key, key)


def _groups(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Groups with normalised keys, and their nouns as far as these don't depend on the words."""
    flat = {as_key(name): value for name, value in attributes.items()}
    flat = {key: value for key, value in flat.items() if key in NAMED_GROUPS or not isinstance(value, Mapping)}
    annotated = _parsed(attributes.get(COSMICMAN))
    if isinstance(annotated, Mapping):
        flat |= {as_key(name): value for name, value in annotated.items()}
    yield "", {key: value for key, value in flat.items() if key in PERSON or key in HAIR}
    if not isinstance(annotated, Mapping):
        for place, group in enumerate(annotated):
            if isinstance(group, Mapping):
                noun = _BY_PLACE[place] if place < len(_BY_PLACE) else ""
                yield noun, {as_key(name): value for name, value in group.items()}
    for key, group in flat.items():
        if isinstance(group, Mapping):
            prefix = "hair " if key == "hair color" else ""  # a group named "hair"
            named = {as_key(name): value for name, value in group.items()}
            yield _noun(key), {key if key in HAIR else prefix + key: value for key, value in named.items()}
    for garment in GARMENTS:
        yield from _flat_garment(garment, flat)


def _flat_garment(garment: str, flat: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Groups of one garment from flat attributes.

    Supports `top: t-shirt, top color: red`, `hat: True`, `hat: red`, `clothes: [red shirt, jeans]`.
    """
    value = flat.get(garment)
    for one in value if isinstance(value, list | tuple) else [value]:
        word = _noun(garment) if one is True else as_word(one)
        if not word or (isinstance(one, int | float) and one is not True):
            continue
        if set(word.lower().split()) <= _COLOURS:
            word = f"{word.lower()} {_noun(garment)}"
        details = {detail: flat.get(f"{garment} {detail}") for detail in ("color", "pattern", "material")}
        if garment == "top" and as_word(flat.get("stripes")):
            details["pattern"] = f"and {as_word(flat['stripes'])} striped"
        yield "", {"type": word, **details}


def _noun(garment: str) -> str:
    return (GARMENTS[garment] or garment) if garment in GARMENTS else ""


def _parsed(annotated: Any) -> list[Any] | Mapping[str, Any]:
    if isinstance(annotated, str):
        try:
            annotated = parse_json(annotated) if annotated.strip() else []
        except ValueError as error:
            raise ValueError(f"{COSMICMAN} must be JSON: {error}") from error
    if annotated is None:
        return []
    if not isinstance(annotated, list | Mapping):
        kind = type(annotated).__name__
        raise ValueError(f"{COSMICMAN} must be a list or a mapping of groups, not {kind}")  # noqa: TRY004 one for all
    return annotated
