import dataclasses
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairhuman.data.caption.item import Caption, CaptionItem
from fairhuman.data.caption.settings import TemplateSettings
from fairhuman.data.caption.template import TemplateCaptioner, describe_attributes, describe_count
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.detect.worker import Failure
from fairhuman.synth.person import random_person

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def cosmicman(**places: dict) -> str:
    """Groups by their place in `aa_text`, the others null."""
    return json.dumps([places.get(f"at_{place}") for place in range(20)])


WOMAN = cosmicman(
    at_0={"country": "from Japan", "age": "28-years-old", "gender": "female"},
    at_1={"body shape": "fit"},
    at_2={"background": "a white wall"},
    at_3={"hair color": "brown", "hair style": "wavy", "hair length": "above chest"},
    at_6={
        **{"type": "t-shirt", "color": "green", "pattern": "solid color", "material": "cotton", "graphic": None},
        **{"sleeve length": "long sleeve", "top length": "normal", "collar shape": "scoop neckline"},
    },
    at_8={"type": "jeans", "color": "blue", "length": "maxi", "bottom shape": "straight", "material": "denim"},
    at_10={"type": "handbag", "material": "leather"},
    at_12={"material": "leather"},
    at_14={"overall-style": "casual"},
    at_19={"material": "silk", "pattern": "striped"},
)


def test_cosmicman_s_groups_become_a_sentence() -> None:
    assert describe_attributes({"aa_text": WOMAN, "person_type": "full_body", "width": 1024, "aa_ids": "[[1]]"}) == (
        "A full-body shot of a fit 28-year-old woman from Japan with wavy brown hair above the chest, wearing a green "
        "cotton long-sleeve t-shirt with a scoop neckline, maxi straight blue denim jeans, a leather belt and a "
        "striped silk tie, carrying a leather handbag, in a casual style, against a white wall."
    )
    assert describe_attributes({"aa_text": json.loads(WOMAN)}) == describe_attributes({"aa_text": WOMAN})


def test_groups_by_name_are_read_as_well() -> None:
    groups = {"hair": {"length": "short", "color": "black"}, "hat": {"color": "red"}, "who": {"gender": "male"}}
    assert describe_attributes({"aa_text": json.dumps(groups)}) == "A man with short black hair, wearing a red hat."


@pytest.mark.parametrize("seed", range(20))
def test_synthetic_people_in_their_own_words(seed: int) -> None:
    someone = random_person(np.random.default_rng(seed))
    text = describe_attributes(dataclasses.asdict(someone))
    for word in (someone.age, someone.gender, f"{someone.skin} skin", someone.top_colour, someone.top):
        assert word in text
    assert not any(character.isdigit() for character in text), "a shape parameter isn't a word"
    assert "trousers" not in text, "they may be out of view"
    assert (someone.stripes is not None) == ("striped" in text)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"gender": "male", "hat": True, "gloves": False, "top": "red"}, "A man wearing a red top and a hat."),
        ({"Clothes": ["red shirt", "jeans"]}, "A person wearing a red shirt and jeans."),
        ({"Sex": "F", "AGE": 8, "Hair_Colour": "black"}, "An 8-year-old girl with black hair."),
        ({"age": "20-30"}, "A person aged 20 to 30."),
        ({"gender": "male", "age": "toddler"}, "A male toddler."),
        ({"gender": 1, "age": "0.7", "hat": "black"}, "A person wearing a black hat."),
        ({"age": "elderly", "ethnicity": "Caucasian", "gender": "woman"}, "An elderly Caucasian woman."),
        ({"country": "Japan", "skin": "unknown", "hair": "None"}, "A person from Japan."),
        ({"hair_length": "bald", "gender": "man", "hair": "gray"}, "A man with a bald head."),
        ({"hair style": "ponytail", "hair": "blond"}, "A person with blond hair in a ponytail."),
        (
            {"shoes": "white", "glasses": True, "dress": "blue"},
            "A person wearing a blue dress, white shoes and glasses.",
        ),
        ({"pose": "peace sign", "expression": "smiling"}, "A person making a peace sign, smiling."),
        ({"background": "outdoors", "expression": "open mouth"}, "A person with an open mouth, outdoors."),
        ({"background": "old brick wall"}, "A person against an old brick wall."),
        ({"license": "CC", "source_id": "0001", "phenotype": {"gender": "woman"}}, ""),
        ({"person_type": "headshot"}, ""),
        ({"pose": [[208.9, 63.1, 1.0]], "depth": b"x", "masks": {"hat": b"x"}, "hat": 3, "skin": 2}, ""),
        ({"dress": "one-piece", "hat": "unusual hat"}, "A person wearing a one-piece and an unusual hat."),
        ({}, ""),
    ],
)
def test_flat_attributes(attributes: dict, expected: str) -> None:
    assert describe_attributes(attributes) == expected


@given(st.dictionaries(st.sampled_from(["aa_text", "top", "hair", "gender", "age", "hat", "clothes", "pose"]), JSON))
def test_no_attributes_break_it(attributes: dict) -> None:
    try:
        text = describe_attributes(attributes)
    except ValueError as error:
        assert "aa_text must be" in str(error)  # noqa: PT017
        return
    assert text == "" or (text[0] == text[0].upper() and text.endswith("."))
    assert text == describe_attributes(dict(reversed(attributes.items())))


def test_captions_hold_only_words_of_the_attributes() -> None:
    """Each word of the sentence is one of the attributes or of the grammar: nothing is added, no praise."""
    text = describe_attributes({"aa_text": WOMAN})
    grammar = "a woman with and from wearing carrying in against style the year belt tie"
    said = grammar + WOMAN.lower().replace("-", " ")
    assert [
        word for word in text.lower().replace("-", " ").strip(".").replace(",", "").split() if word not in said
    ] == []


@pytest.mark.parametrize(
    ("persons", "expected"),
    [
        (0, "A picture without people."),
        (1, "A picture of a person."),
        ([[0, 0, 5, 5], [5, 5, 9, 9]], "A picture of two people."),
        (12, "A picture of 12 people."),
        (None, ""),
        (-1, ""),
        (True, ""),
        ("many", ""),
    ],
)
def test_number_of_persons(persons: object, expected: str) -> None:
    assert describe_count(persons) == expected


def test_attributes_then_text_then_number_then_failure(budget: TokenBudget, item: Callable[..., CaptionItem]) -> None:
    items = [
        item(0, "its text", gender="male", persons=2),
        item(1, " its\ttext ", persons=2),
        item(2, "\x00", persons=2),
        item(3, "", license="CC"),
        item(4, "its text", aa_text="[{"),
        item(5, "its text", aa_text="7"),
    ]
    with TemplateCaptioner(TemplateSettings(), budget) as captioner:
        found = captioner.caption(items)
        assert found == captioner.caption(items)
    assert [one.text for one in found if isinstance(one, Caption)] == ["A man.", "its text", "A picture of two people."]
    reasons = [one.reason for one in found if isinstance(one, Failure)]
    assert reasons[0] == "no attribute that the template knows, no text, no number of persons"
    assert reasons[1].startswith("attributes can't be read: aa_text must be JSON")
    assert reasons[2] == "attributes can't be read: aa_text must be a list or a mapping of groups, not int"


def test_phrases_describe_attributes_unknown_to_the_template() -> None:
    phrases = {"Held_Thing": "holding {}", "wet": "in the rain", "never": "flying"}
    attributes = {"held thing": "a cup", "wet": True, "never": False, "gender": "f"}
    assert describe_attributes(attributes, phrases) == "A woman holding a cup, in the rain."
    assert describe_attributes({"held thing": None}, phrases) == ""
    with pytest.raises(ValidationError, match="aren't empty"):
        TemplateSettings(phrases={"x": " "})


def test_a_long_colour_of_hair_takes_no_longer_than_its_length() -> None:
    began = time.process_time()
    assert describe_attributes({"hair color": f"{'-' * 60_000}x"}).endswith("x hair.")
    assert time.process_time() - began < 1, "where it is quadratic, it takes ten times as long"
