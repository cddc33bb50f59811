"""English phrases for sentences about attributes: articles, numbers, nouns for people."""

import re

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SOUNDS_LIKE_AN = re.compile(r"([ai]|e(?!u)|o(?!ne)|u(?!ni|se|ti)|8|1[18]\b|hour|heir|x-ray)", re.IGNORECASE)
_ARTICLE = re.compile(r"(a|an|the|her|his|their|some|no|one|two)\s", re.IGNORECASE)
# Heads of phrases without an article: plurals and uncountable nouns.
_NO_ARTICLE = re.compile(r"(?<![su])s$|(wear|clothing|lingerie|hair|skin|makeup|jewelry|jewellery)$", re.IGNORECASE)
_NOUNS = {
    **dict.fromkeys(("female", "woman", "f"), "woman"),
    **dict.fromkeys(("male", "man", "m"), "man"),
    **{"girl": "girl", "boy": "boy"},
}
_MINORS = {"woman": "girl", "man": "boy"}
_YOUNG = ("baby", "infant", "toddler", "child", "kid", "teenager")
_AGE = re.compile(r"(\d{1,3})(?:\.0)?(?:\s*-\s*(\d{1,3}))?(?:[\s-]*(?:years?|yrs?|yo)(?:[\s-]*olds?)?)?", re.IGNORECASE)
_ADULT_AGE = 18
# Endings of nationality adjectives; other names are countries.
_PEOPLE = re.compile(
    r"(ian|ean|ese|ish|ern|rican|ican|german|french|dutch|greek|thai|czech|swiss|black|white|latino|latina|hispanic"
    r"|filipino|filipina|arab|cuban|afghan|tibetan|indigenous|mixed-race)$",
    re.IGNORECASE,
)


def with_article(phrase: str) -> str:
    """Add `a` or `an` to a phrase, unless it is plural, uncountable or has an article."""
    if _ARTICLE.match(phrase) or _NO_ARTICLE.search(_head(phrase)):
        return phrase
    return f"{'an' if _SOUNDS_LIKE_AN.match(phrase) else 'a'} {phrase}"


def count_phrase(count: int) -> str:
    """A phrase for a number of people: `a person`, `two people`, `12 people`."""
    if count == 1:
        return "a person"
    return f"{_NUMBERS[count] if count < len(_NUMBERS) else count} people"


def person_phrase(gender: str, age: str, shape: str, origin: str) -> str:
    """A noun phrase for one person from words that may be empty: `a fit 28-year-old woman from Japan`.

    Numbers that can't be an age, and numbers as gender, are left out.
    """
    gender, age = gender.lower(), age.lower()
    noun, words, suffix = _NOUNS.get(gender, "person"), [shape], ""
    if gender.isalpha() and gender not in _NOUNS:
        words.append(gender)
    if age in _YOUNG:
        words += {"woman": ["female"], "man": ["male"]}.get(noun, [])
        noun = age
    elif years := _AGE.fullmatch(age):
        if years[2]:
            suffix = f" aged {years[1]} to {years[2]}"
        else:
            words.append(f"{years[1]}-year-old")
        if int(years[2] or years[1]) < _ADULT_AGE:
            noun = _MINORS.get(noun, noun)
    elif not any(character.isdigit() for character in age):
        words.append(age)
    if _PEOPLE.search(origin):
        words.append(origin)
    elif origin:
        suffix += f" {origin}" if origin.lower().startswith("from ") else f" from {origin}"
    return with_article(" ".join([*filter(None, words), noun])) + suffix


def _head(phrase: str) -> str:
    """The part of a phrase before a preposition such as `with`, which ends in the head noun."""
    return re.split(r"\s(?:with|of|in|on|from|above|below|at)\s", phrase)[0]
