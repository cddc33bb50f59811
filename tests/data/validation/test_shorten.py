"""Prompts are brief, about people, made of the caption's own words; pairs that were read by eye stay as they are."""

import json
import re
from pathlib import Path

import pytest

from fairhuman.data.validation import words as w
from fairhuman.data.validation.grammar import articles, is_adjective, participle
from fairhuman.data.validation.shorten import LONGEST, MAX_WORDS, names_person, short_prompt, words_of

_LINES = (Path(__file__).parent / "captions.txt").read_text(encoding="utf-8").splitlines()
PAIRS = [(caption, prompt[1:].strip()) for caption, prompt in zip(_LINES[::2], _LINES[1::2], strict=True)]
MADE = {"in", "a", "an", "with", "and"}  # words that the rules put in


@pytest.mark.parametrize(("caption", "prompt"), PAIRS)
def test_captions_become_the_prompts_that_were_read(caption: str, prompt: str) -> None:
    assert short_prompt(caption) == prompt


def check(caption: str, prompt: str) -> None:
    assert names_person(words_of(prompt))
    assert len(prompt.split()) <= MAX_WORDS
    assert prompt[0] == prompt[0].upper()
    assert not re.search(r"\.$|,$|\b(a|the|with|in|and|is|are|who|which)$", prompt)
    words = {word.lower() for word in words_of(prompt)} - {","}
    assert not words & w.QUALITY - {"film", "focus"}
    source = {word.lower() for word in words_of(caption)}
    said = source | {form for word in source if (form := participle(word))}
    assert {word.strip(".!?;") for word in words} <= {word.strip(".!?;") for word in said} | MADE


@pytest.mark.parametrize(("caption", "prompt"), [pair for pair in PAIRS if pair[1]])
def test_prompts_are_short_about_people_and_invent_nothing(caption: str, prompt: str) -> None:
    check(caption, prompt)
    assert len(prompt) <= len(caption) + 10


@pytest.mark.parametrize("prompt", [prompt for _, prompt in PAIRS if prompt and prompt.count(",") == 0])
def test_a_prompt_is_its_own_prompt(prompt: str) -> None:
    assert short_prompt(prompt) == prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "A woman in dress standing in front of a building",
        "A man in a suit and tie standing with his hands on his hips",
    ],
)
def test_the_examples_of_the_supplement_stay_as_they_are(prompt: str) -> None:
    assert short_prompt(prompt) == prompt
    assert short_prompt(f"The image shows {prompt[0].lower()}{prompt[1:]}, 8k, masterpiece.") == prompt


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
    for caption, _ in PAIRS:
        assert len(short_prompt(caption, limit).split()) <= limit


def test_markup_of_other_tools_goes() -> None:
    caption = "(masterpiece:1.2), <lora:film:0.8> a *young* woman [smiling], https://x.org/a #portrait"
    assert short_prompt(caption) == "A young woman smiling"


def test_articles_fit_the_next_word() -> None:
    assert articles(["a", "umbrella", "and", "an", "cup", ",", "an", "uniform", ",", "a", "hour"]) == (
        ["an", "umbrella", "and", "a", "cup", ",", "a", "uniform", ",", "an", "hour"]
    )


def test_captions_of_street_photos_keep_every_garment(shared: Path) -> None:
    lines = (shared / "data" / "ccp" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        caption = json.loads(line)["caption"]
        prompt = short_prompt(caption, 60)
        kept = [word for word in words_of(caption) if not is_adjective(word) and word not in (",", "a", "an")]
        assert [word for word in words_of(prompt.lower()) if word not in (",", "a", "an")] == kept
