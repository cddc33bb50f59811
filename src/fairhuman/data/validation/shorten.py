"""Captions cut down to brief prompts: parentheses and trailing clauses go, no word is changed.

This is the way without a model or a download. A vision-language model (`prompts.kind=endpoint` or `transformers`)
writes better prompts: these keep adjectives and style words wherever the prompt is short enough with them.
"""

import re

MAX_WORDS = 24
LONGEST = 4000  # characters of a caption that are read: no prompt is made of more

_PERSONS = """
person persons people human humans man men woman women boy boys girl girls lady ladies gentleman gentlemen guy
guys male males female females adult adults child children kid kids baby babies toddler toddlers teenager
teenagers teen teens youth infant couple couples family families group crowd pair trio team friend friends
mother father mom dad mum parent parents son daughter sister brother sisters brothers grandmother grandfather
grandma grandpa husband wife bride brides groom bridesmaid bridesmaids model models dancer dancers ballerina
athlete athletes player players worker workers student students teacher teachers doctor doctors nurse nurses
soldier soldiers police officer officers chef chefs cook waiter waitress singer singers musician musicians
guitarist drummer performer performers actor actress tourist tourists photographer skier skiers snowboarder
surfer surfers skateboarder swimmer runner runners rider riders cyclist cyclists biker climber hiker hikers
golfer batter pitcher catcher driver farmer fisherman businessman businessmen businesswoman businesswomen
policeman fireman firefighter cowboy king queen prince princess monk nun priest lawyer engineer artist painter
barista barber customer passenger pedestrian pedestrians commuters shopper vendor speaker host bartender
carpenter mechanic scientist boxer wrestler gymnast yogi influencer celebrity individual individuals someone
somebody sportsman sportswoman clown lifeguard trainer coach referee guest guests
"""
PERSONS = frozenset(_PERSONS.split())
_PERSON_ENDS = ("sman", "smen", "swoman", "swomen")

_MARKUP = re.compile(r"https?://\S+|#\w+|[*_\"“”]|:\d+(?:\.\d+)?(?=[)\]])")  # also the weight of "(smiling:1.2)"
_PARENTHESIS = re.compile(r"[(\[{<]([^()\[\]{}<>]*)[)\]}>]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[;\n]+")
_INTRODUCTION = re.compile(
    r"there (?:is|are) |(?:(?:this|it) is )?(?:[\w-]+ ){0,4}?"
    r"(?:image|picture|photo|photograph|photography|portrait|close[ -]up|shot|selfie)s?"
    r"(?: (?:shows|depicts|features|captures|is|of|a close[ -]up))+ ",
    re.IGNORECASE,
)
_LINK = re.compile(r"(?:and|or|but|while|when|as|which|who|that) ", re.IGNORECASE)
_COMMA = re.compile(r",(?!\d)|: | [-–—]+ |—")
_CLAUSE = re.compile(
    rf"{_COMMA.pattern}| (?:and )?(?:who|whose|whom|which|that|where|while|when|because|although|though"
    r"|as (?:he|she|they|it)|wearing|holding|carrying|standing|sitting|walking|looking|smiling|posing)\b",
    re.IGNORECASE,
)


def short_prompt(caption: str, max_words: int = MAX_WORDS) -> str:
    """The beginning of the caption's sentence about a person, as many whole clauses as fit into `max_words`.

    This is the first sentence that names a person, from its first part between commas that does so. Introductions
    such as "the image shows", markup, and parentheses without a person go. Empty where the caption names no person, or
    where the clause that does is longer than `max_words`: nothing is cut inside a clause.
    """
    text = _PARENTHESIS.sub(
        lambda found: found[1] if names_person(found[1]) else " ", _MARKUP.sub("", caption[:LONGEST])
    )
    text = re.sub(r"[()\[\]{}<>]", "", text)  # without a partner, or nested
    sentence = " ".join(next(filter(names_person, _SENTENCE_END.split(text)), "").split()).rstrip(".!? ")
    starts = [0, *(comma.end() for comma in _COMMA.finditer(sentence))]
    parts = [sentence[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    before = next((i for i, part in enumerate(parts) if names_person(part)), len(parts))
    sentence = "".join(parts[before:]).strip()
    for opening in (_LINK, _INTRODUCTION):
        found = opening.match(sentence)
        if found and not names_person(found[0]):
            sentence = sentence[found.end() :]
    ends = [clause.start() for clause in _CLAUSE.finditer(sentence)]
    beginnings = [sentence[:end].rstrip(" ,") for end in [*ends, None]]
    fitting = [each for each in beginnings if len(each.split()) <= max_words and names_person(each)]
    return fitting[-1][:1].upper() + fitting[-1][1:] if fitting else ""


def names_person(text: str) -> bool:
    """Whether a word of the text is for a person."""
    words = re.findall(r"[\w'’-]+", text.lower())
    return any(
        word in PERSONS or word.endswith(_PERSON_ENDS)
        for word in (word.removesuffix("'s").removesuffix("’s") for word in words)
    )
