"""Prompts are whole clauses of the caption's own words about a person; nothing is cut inside a clause."""

import json
import re
from pathlib import Path

import pytest

from fairhuman.data.caption.item import Caption
from fairhuman.data.caption.settings import TokenSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.validation.prompts import NO_CAPTION, NO_PERSON, TOO_LONG, rule_prompt
from fairhuman.data.validation.shorten import LONGEST, MAX_WORDS, names_person, short_prompt
from fairhuman.detect.worker import Failure
from fairhuman.record import HumanRecord

CAPTIONS = (Path(__file__).parent / "captions.txt").read_text(encoding="utf-8").splitlines()
WITHOUT_PERSON = {"A busy street with cars and tall buildings under a cloudy sky", "A dog sitting on a couch"}
LONG = (
    "In a bright office (with plants), two doctors in white coats are talking to a patient, who sits on a bed, "
    "while a nurse is writing something down, near the window, on a sunny day. The walls are blue."
)


FIRST = "Two doctors in white coats are talking to a patient"
SECOND = f"{FIRST}, who sits on a bed"
THIRD = f"{SECOND}, while a nurse is writing something down"


@pytest.mark.parametrize(
    ("max_words", "prompt"),
    [(40, f"{THIRD}, near the window, on a sunny day"), (24, THIRD), (20, SECOND), (10, FIRST), (8, "")],
)
def test_clauses_go_from_the_end_until_the_rest_fits(max_words: int, prompt: str) -> None:
    assert short_prompt(LONG, max_words) == prompt


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [
        ("A black and white photo of a man playing the guitar on stage", "A man playing the guitar on stage"),
        ("A woman taking a photo of a dog with her phone", "A woman taking a photo of a dog with her phone"),
        ("There are 1,000 people (and their dogs) in the park", "1,000 people in the park"),
        ("The photo shows (a young woman:1.2) in a park", "A young woman in a park"),
        ("A park. A boy - in a hat - runs. Trees.", "A boy - in a hat - runs"),
        ("A dog, and a man dressed as a clown", "A man dressed as a clown"),
        ("(masterpiece:1.2), <lora:film:0.8> a *young* woman [smiling], https://x.org/a #portrait", "A young woman"),
    ],
)
def test_introductions_markup_and_parentheses_go(caption: str, prompt: str) -> None:
    assert short_prompt(caption) == prompt


@pytest.mark.parametrize("caption", CAPTIONS)
def test_prompts_are_whole_clauses_of_the_caption_about_a_person(caption: str) -> None:
    prompt = short_prompt(caption)
    if caption in WITHOUT_PERSON:
        assert prompt == ""
        return
    assert names_person(prompt)
    assert len(prompt.split()) <= MAX_WORDS
    assert prompt[0] == prompt[0].upper()
    assert not re.search(r"\.$|,$|\b(a|the|with|in|and|is|are|who|which)$", prompt)
    place = caption.lower().index(prompt.lower())  # not a word is changed or left out
    assert re.match(r"$|[.,;:]| (?:and )?[a-z]+\b", caption[place + len(prompt) :])


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_prompt_is_its_own_prompt(caption: str) -> None:
    assert short_prompt(short_prompt(caption)) == short_prompt(caption)


@pytest.mark.parametrize(
    "prompt",
    ["A woman in dress standing in front of a building", "A man in a suit and tie standing with his hands on his hips"],
)
def test_the_examples_of_the_supplement_stay_as_they_are(prompt: str) -> None:
    assert short_prompt(prompt) == prompt
    assert short_prompt(f"The image shows {prompt[0].lower()}{prompt[1:]}. 8k, masterpiece.") == prompt


@pytest.mark.parametrize(
    "caption",
    ["", "   ", "A dog on a couch", "8k, masterpiece", "1234 !!! ,,, ((", "und ein Hund", "\n\n", "of", "a photo of"],
)
def test_without_a_person_there_is_no_prompt(caption: str) -> None:
    assert short_prompt(caption) == ""


@pytest.mark.parametrize(
    "caption",
    [
        "a woman " * 20_000,
        "<" * 100_000 + " a man",
        "a-" * 50_000 + "man",
        "(" * 5000 + "a man" + ")" * 5000,
        "a woman " + "very " * 50_000 + "tall",
        "a woman, " + "a hat, " * 10_000,
        "the photo of " * 5000 + "a man",
        "a man who is " * 3000,
    ],
    ids=lambda caption: caption[:12],
)
def test_hostile_captions_take_no_time_and_stay_short(caption: str) -> None:
    assert len(short_prompt(caption).split()) <= MAX_WORDS
    assert len(short_prompt(caption)) <= LONGEST


@pytest.mark.parametrize("limit", [3, 6, 10])
def test_the_limit_of_words_holds(limit: int) -> None:
    for caption in CAPTIONS:
        assert len(short_prompt(caption, limit).split()) <= limit


def test_a_caption_without_a_prompt_fails_with_its_reason(tmp_path: Path) -> None:
    budget = TokenBudget.load(TokenSettings())

    def answer(caption: str) -> Caption | Failure:
        return rule_prompt(HumanRecord("a", tmp_path / "a.png", 64, 64, caption), budget, max_words=7)

    assert answer("A man in a hat, who waves.") == Caption("A man in a hat, who waves", (14, 14))
    assert answer("") == Failure(NO_CAPTION)
    assert answer("A dog in a hat") == Failure(NO_PERSON)
    assert answer("A man in a hat sits on a bench") == Failure(TOO_LONG)


def test_captions_of_street_photos_keep_every_word(shared: Path) -> None:
    lines = (shared / "data" / "ccp" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        caption = json.loads(line)["caption"]
        assert short_prompt(caption, 60).lower() == caption.lower().rstrip(".")
