"""Names of files: safe in any reader, one for each key."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairhuman.data.export.names import MAX_BYTES, Names, safe_name
from fairhuman.data.sources.webdataset import META

KEYS = st.text(st.characters(), max_size=40) | st.sampled_from(
    ["", ".", "..", "a/b", "a\\b", "A/b", "__a__", "a.b.png"]
)


@given(st.lists(KEYS, max_size=12))
@example(["a/b", "a b", "a_b", "A_B", "a.b", "a_b-2", "a_b"])
@example(["é", "e\u0301", "É"])
@example(["x" * 500 + "a", "x" * 500 + "b", "写" * 200])
@example(["\ud800", "../../etc/passwd", "\x00", "__meta__", "-rf"])
def test_every_key_has_a_unique_name(keys):
    names = Names()
    found = [names.of(key) for key in keys]
    folded = {unicodedata.normalize("NFC", name.casefold()) for name in found}
    assert len(folded) == len(keys)
    for name in found:
        assert name
        assert re.search(r'[\s./\\:*?"<>|\x00-\x1f]', name) is None
        assert not name.startswith("-")
        assert META.match(f"{name}.jpg") is None
        assert len(name.encode("utf-8")) <= MAX_BYTES + 8
    again = Names()
    assert [again.of(key) for key in keys] == found


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("photos/0001.jpg", "photos_0001"),
        ("14 file name with spaces – ünïcödé 写真 😀.jpg", "14_file_name_with_spaces_–_ünïcödé_写真_😀"),
        ("a.b.c", "a_b_c"),
        ("...", "picture"),
        ("val2017/12.jpg", "valx2017_12"),
        ("training day", "trainingx_day"),
        ("portrait", "portrait"),
    ],
)
def test_names_can_be_read(key, name):
    assert safe_name(key) == name


@pytest.mark.parametrize("word", ["train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"])
def test_no_name_is_taken_for_a_split(tmp_path, word):
    """Else `load_dataset` would find one picture, and none of its metadata."""
    from datasets.data_files import get_data_patterns

    for key in (word, f"{word}2017/1", f"a-{word}", f"1{word}1", f"{word}/{word}"):
        (tmp_path / f"{safe_name(key)}.jpg").write_bytes(b"")
    assert list(get_data_patterns(str(tmp_path))) == ["train"]
    assert get_data_patterns(str(tmp_path))["train"] == ["**"]
