from pathlib import Path

from transformers import CLIPTokenizer

from fairhuman.models.tokenizer import WORDS, build_tokenizer


def test_every_word_of_the_list_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert [word for word in WORDS if len(tokenizer.tokenize(word)) != 1] == []


def test_any_text_can_be_encoded() -> None:
    tokenizer = build_tokenizer()
    text = "ein überfüllter straßenmarkt, 日本 🙂"
    ids = tokenizer(text).input_ids
    body = tokenizer.convert_ids_to_tokens(ids[1:-1])
    assert tokenizer.unk_token not in body
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_two_builds_and_a_saved_one_agree(tmp_path: Path) -> None:
    first, second = build_tokenizer(), build_tokenizer()
    first.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "A person with an orange Cardigan, jumping"
    assert first.get_vocab() == second.get_vocab() == loaded.get_vocab()
    assert first(text).input_ids == second(text).input_ids == loaded(text).input_ids


def test_captions_are_padded_to_77() -> None:
    ids = build_tokenizer()("a hat", padding="max_length", truncation=True).input_ids
    tokenizer = build_tokenizer()
    assert len(ids) == 77
    assert ids[0] == tokenizer.bos_token_id
    assert ids[3:] == [tokenizer.eos_token_id] * 74


def test_numbers_are_the_same_in_every_process() -> None:
    """A learner that breaks ties by hash order would give other numbers each time that Python starts."""
    assert build_tokenizer()("a man in a red shirt").input_ids == [1053, 320, 621, 614, 320, 978, 640, 1054]
