"""How captions begin before they come to the point: "This is a photo of", "The image shows", "There is"."""

import re

from fairhuman.data.validation.grammar import names_person

_MEDIUM = (
    r"(?:image|picture|photo|photograph|portrait|shot|close[ -]?up|photography|headshot|snapshot|view|selfie|scene)s?"
)
_SHOWS = (
    r"(?:shows?|showing|depicts?|depicting|features?|featuring|captures?|capturing|presents?|displays?|portrays?|of"
    r"|is|here|taken)"
)
_OPENERS = (
    re.compile(rf"^(?:in|on) (?:this|the) {_MEDIUM},? ", re.IGNORECASE),
    re.compile(r"^(?:there (?:is|are)|we (?:can )?see|you (?:can )?see|(?:this|it|here) (?:is|are)) ", re.IGNORECASE),
    re.compile(rf"^(?P<before>(?:[^\s,]+,? ){{0,6}}?){_MEDIUM}(?: {_SHOWS})+ ", re.IGNORECASE),
    re.compile(rf"^(?P<before>(?:[^\s,]+ ){{0,3}}?){_MEDIUM}(?: photography)?, ", re.IGNORECASE),
)


def without_opener(sentence: str) -> str:
    """The sentence without what says that it is about a picture; a person who takes a photo stays."""
    while True:
        for opener in _OPENERS:
            found = opener.match(sentence)
            before = found.groupdict().get("before") if found else None
            if found and not (before and names_person(before.split())):
                sentence = sentence[found.end() :]
                break
        else:
            return sentence
