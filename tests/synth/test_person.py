"""Who is drawn: adults, in all their variety, and told truly by the caption."""

from dataclasses import replace

import numpy as np
import pytest

from fairhuman.models.tokenizer import build_tokenizer
from fairhuman.synth.person import AGES, CLOTHES, EXPRESSIONS, HAIRS, LENGTHS, POSES, SKINS, TOPS, Person, random_person
from fairhuman.synth.scene import BACKGROUNDS, draw_background


def person(number: int) -> Person:
    return random_person(np.random.default_rng((0, number)))


def test_all_are_adults_with_anny_s_parameters_in_range() -> None:
    """anny's `age` has its child at 1/3 and its young adult at 2/3: from 0.6 the adult's shape makes up 4/5 or more."""
    people = [person(number) for number in range(2000)]
    assert min(low for low, _ in AGES.values()) == 0.6
    for one in people:
        low, high = AGES[one.age]
        assert 0.6 <= low <= one.phenotype["age"] <= high <= 1
        assert all(0 <= value <= 1 for value in one.phenotype.values())
        assert all(0 <= value <= 1 for value in one.facial_actions.values())
        origin = sum(one.phenotype[name] for name in ("african", "asian", "caucasian"))
        assert origin == pytest.approx(1)


def test_everything_in_the_tables_is_drawn() -> None:
    people = [person(number) for number in range(2000)]
    for name, table in (
        ("pose", POSES),
        ("skin", SKINS),
        ("hair", HAIRS),
        ("hair_length", LENGTHS),
        ("top", TOPS),
        ("top_colour", CLOTHES),
        ("trousers_colour", CLOTHES),
        ("expression", EXPRESSIONS),
        ("age", AGES),
        ("gender", ("man", "woman")),
    ):
        assert {getattr(one, name) for one in people} == set(table), name
    assert 0.4 < np.mean([one.gender == "man" for one in people]) < 0.6
    assert 0.1 < np.mean([one.stripes is not None for one in people]) < 0.2
    assert all(one.stripes != one.top_colour for one in people)


def test_captions_describe_the_parameters() -> None:
    told = replace(
        person(0),
        gender="woman",
        age="old",
        hair="gray",
        hair_length="long",
        skin="brown",
        top="tank top",
        top_colour="teal",
        stripes="white",
        pose="peace sign",
        expression="open mouth",
    )
    assert told.describe() == (
        "photo of an old woman, long gray hair, brown skin, teal and white striped tank top, peace sign, open mouth"
    )
    plain = replace(told, age="young", gender="man", hair_length="buzz cut", stripes=None, expression="neutral")
    assert plain.describe() == "photo of a young man, buzz cut, brown skin, teal tank top, peace sign"


def test_every_word_of_captions_is_one_token() -> None:
    """So the longest caption takes a third of CLIP's 77 tokens."""
    words = set()
    longest = 0
    tokenizer = build_tokenizer()
    for number in range(600):
        generator = np.random.default_rng((1, number))
        caption = f"{random_person(generator).describe()}, {draw_background(16, generator)[1]}"
        words |= set(caption.replace(",", "").replace("-", " ").split())
        longest = max(longest, len(tokenizer(caption).input_ids))
    assert {*BACKGROUNDS, *CLOTHES, *SKINS, "textured", "room", "gradient"} <= words
    assert [word for word in sorted(words) if len(tokenizer.tokenize(word)) != 1] == []
    assert longest <= 40


def test_backgrounds_are_colours_at_any_size() -> None:
    seen = set()
    for number in range(40):
        small, words = draw_background(32, np.random.default_rng(number))
        large, same = draw_background(64, np.random.default_rng(number))
        assert words == same
        assert small.min() >= 0
        assert small.max() <= 1
        assert np.abs(large.reshape(32, 2, 32, 2, 3).mean((1, 3)) - small).mean() < 0.02
        seen.add(words.replace("background", "").split()[-1] if "room" in words else words.split()[1])
    assert "room" in seen
