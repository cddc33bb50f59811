import time
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from fairhuman.data.caption.item import Caption, clean_text
from fairhuman.data.caption.tokens import SMALL_FOLDER, TokenBudget, _strip_dangling, load_tokenizers
from fairhuman.detect.worker import Failure
from fairhuman.errors import ModelError
from fairhuman.models.tokenizer import build_tokenizer

ANY_TEXT = st.text(max_size=400) | st.lists(
    st.sampled_from(["A man.", "red", "hat,", "and", "x" * 90, "日本。", "🙂", "<|endoftext|>", "\u200d", "\x00", "—"]),
    max_size=80,
).map(" ".join)


@given(ANY_TEXT)
def test_any_text_is_cut_to_fit_and_cutting_again_changes_nothing(text: str) -> None:
    budget = TokenBudget(load_tokenizers_once(), max_tokens=20)
    caption = budget.caption(text, "empty")
    if isinstance(caption, Failure):
        assert clean_text(text) == ""
        return
    assert caption.text
    assert max(caption.tokens) <= 20
    assert caption.tokens == budget.count(caption.text)
    assert caption.cut == (caption.text != clean_text(text))
    assert clean_text(text).startswith(caption.text)
    assert budget.caption(caption.text, "empty") == Caption(caption.text, caption.tokens)


@given(st.text())
def test_clean_text_is_one_line_without_markers_and_clean(text: str) -> None:
    clean = clean_text(f" <|end\u200boftext|>{text}<|startoftext|>\n")
    assert clean == clean_text(clean)
    assert clean == unicodedata.normalize("NFC", clean)
    assert "oftext|>" not in clean.replace(clean_text(text), "")
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in clean)
    assert clean == " ".join(clean.split())


def test_cleaning_joins_accents_and_keeps_emoji_together() -> None:
    assert clean_text("cafe\u0301\tau\u00adto  \u202e👩\u200d🚀\ud800") == "café auto 👩\u200d🚀"


def test_counts_are_those_of_the_tokenizers_with_both_markers(budget: TokenBudget) -> None:
    expected = len(build_tokenizer()("A man in a red shirt, waving.").input_ids)
    assert budget.count("A man in a red shirt, waving.") == (expected, expected)


def test_the_stricter_tokenizer_decides() -> None:
    class Letters:
        """A token a letter."""

        def __call__(self, text: str, add_special_tokens: bool = True, **options: object) -> "Letters":
            self.offset_mapping = [(i, i + 1) for i in range(len(text))]
            self.input_ids = [0] * (len(text) + 2 * add_special_tokens)
            return self

        def num_special_tokens_to_add(self) -> int:
            return 2

    small, _ = load_tokenizers_once()
    for pair in ((small, Letters()), (Letters(), small)):
        caption = TokenBudget(pair, max_tokens=12).caption("red hat and blue shirt", "empty")
        assert caption == Caption("red hat", tuple(len(t("red hat").input_ids) for t in pair), cut=True)


SENTENCE = "A young woman wearing a red shirt."  # 8 tokens


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{SENTENCE} {SENTENCE} {SENTENCE}", f"{SENTENCE} {SENTENCE}"),
        (
            "A man wearing a red hat, a blue shirt, a coat with a belt and shoes",
            "A man wearing a red hat, a blue shirt",
        ),
        (
            "A man. She is wearing a long red dress and a belt and shoes and a hat, a bag",
            "A man. She is wearing a long red dress and a belt",
        ),
        ("One hat. Two hats and a man in a red hat. A man and a hat", "One hat. Two hats and a man in a red hat."),
        ("A man of 1.5 or two no. two red shirts, hats and shoes", "A man of 1.5 or two no. two red shirts"),
    ],
)
def test_cuts_at_the_coarsest_boundary_that_keeps_half(budget: TokenBudget, text: str, kept: str) -> None:
    caption = TokenBudget(budget.tokenizers, max_tokens=18).caption(text, "empty")
    assert isinstance(caption, Caption)
    assert caption.text == kept


def test_no_dangling_words_at_the_end(budget: TokenBudget) -> None:
    for limit in range(8, 24):
        caption = TokenBudget(budget.tokenizers, limit).caption(
            "A man with a hat and the coat of a woman, " * 4, "empty"
        )
        assert isinstance(caption, Caption)
        assert caption.text.split()[-1] in ("man", "hat", "coat", "woman")


def test_too_long_is_kept_and_marked_with_over_warn(budget: TokenBudget) -> None:
    caption = TokenBudget(budget.tokenizers, 8, over="warn").caption("a red hat " * 9, "empty")
    assert caption == Caption(("a red hat " * 9).strip(), (29, 29), over=True)


def test_an_unfinished_sentence_is_removed_if_another_remains(budget: TokenBudget) -> None:
    assert budget.caption("A red hat. A woman and", "e", unfinished=True) == Caption("A red hat.", (6, 6), cut=True)
    assert budget.caption("A woman with a", "e", unfinished=True) == Caption("A woman", (4, 4), cut=True)


def test_tokenizers_alone_are_enough_and_read_from_a_folder(tmp_path: Path) -> None:
    for part in ("tokenizer", "tokenizer_2"):
        build_tokenizer().save_pretrained(tmp_path / part)
    loaded = load_tokenizers(str(tmp_path))
    assert [len(tokenizer) for tokenizer in loaded] == [len(tokenizer) for tokenizer in load_tokenizers_once()]
    assert load_tokenizers("small-untrained")[0]("a hat").input_ids == loaded[1]("a hat").input_ids


@pytest.mark.parametrize("words", [49408, 800])
def test_a_single_file_has_the_tokenizers_of_its_text_encoders(tmp_path: Path, words: int) -> None:
    name = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
    (tmp_path / "x.safetensors").write_bytes(save({name: torch.zeros(words, 1)}))
    first, second = load_tokenizers(str(tmp_path / "x.safetensors"))
    assert len(first) == len(second) == (words if words == 49408 else len(load_tokenizers_once()[0]))
    assert (first.pad_token == second.pad_token) == (words != 49408)


def test_an_invalid_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"tokens\.model .*found no tokenizer"):
        load_tokenizers(str(tmp_path))
    for part in ("tokenizer", "tokenizer_2"):
        (tmp_path / part).mkdir()
    with pytest.raises(ModelError, match=r"tokens\.model"):
        load_tokenizers(str(tmp_path))
    with pytest.raises(ModelError, match="expected 'small', a folder, a file or a hub id; it is none of them"):
        load_tokenizers("no/such/folder")
    (tmp_path / "vae.safetensors").write_bytes(save({"decoder.weight": torch.zeros(1)}))
    with pytest.raises(ModelError, match="expected an SDXL model, found a file without text encoders"):
        load_tokenizers(str(tmp_path / "vae.safetensors"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"tokens\.model 'nobody/nothing'.*isn't in the hub's local cache"):
        load_tokenizers("nobody/nothing")


def load_tokenizers_once(loaded: list[tuple] = []) -> tuple:  # noqa: B006 a cache
    if not loaded:
        loaded.append(load_tokenizers(str(SMALL_FOLDER)))
    return loaded[0]


@pytest.mark.parametrize("long", ["." * 30_000 + "x", "a " * 15_000 + "x", "-" * 30_000 + "x", ".'" * 15_000 + "x"])
@pytest.mark.parametrize("unfinished", [False, True])
def test_no_text_takes_longer_than_its_length(budget: TokenBudget, long: str, unfinished: bool) -> None:
    began = time.process_time()
    caption = budget.caption(f"{'a woman ' * 40}{long}", "empty", unfinished)
    assert isinstance(caption, Caption)
    assert time.process_time() - began < 3, "where it is quadratic, it takes ten times as long"


def test_words_that_dangle_go_whatever_lies_between_them() -> None:
    ends = {
        "a man, and the": "a man",
        "x with HER -- in": "x",
        "banana": "banana",
        "a": "a",
        " the": "",
        "it-a": "it-a",
    }
    assert {text: _strip_dangling(text) for text in ends} == ends
