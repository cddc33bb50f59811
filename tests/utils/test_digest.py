"""Digests of a folder's files: what was written is sound, whatever else isn't."""

import hashlib
from pathlib import Path

import pytest

from fairhuman.utils.digest import SUMS, DamageError, check_folder, content_digest, write_sums
from helpers.damage import flip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").write_bytes(bytes(1000))
    (tmp_path / "a").write_bytes(b"a")
    write_sums(tmp_path)
    return tmp_path


def test_sums_are_those_of_sha256sum(folder: Path) -> None:
    found = (folder / SUMS).read_text().splitlines()
    assert found == [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in ("a", "b")]
    assert check_folder(folder)
    write_sums(folder)
    assert (folder / SUMS).read_text().splitlines() == found  # not of the sums themselves


def test_a_folder_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    assert not check_folder(tmp_path)


@pytest.mark.parametrize("at", [0, 500, 999])
def test_any_flipped_bit_is_found(folder: Path, at: int) -> None:
    flip(folder / "b", at, bit=at % 8)
    with pytest.raises(DamageError, match=rf"^{folder}/b: is damaged: differs from its digest in {SUMS}$"):
        check_folder(folder)


def test_a_missing_file_and_damaged_sums_are_damage(folder: Path) -> None:
    text = (folder / SUMS).read_text()
    (folder / "b").unlink()
    with pytest.raises(DamageError, match=r"/b: can't be read: No such file"):
        check_folder(folder)
    for damaged, said in (("", "it is empty"), (text.replace("  b", " b"), "expected a SHA-256 and a file name")):
        (folder / SUMS).write_text(damaged)
        with pytest.raises(DamageError, match=rf"{SUMS}: is damaged: {said}"):
            check_folder(folder)
    (folder / SUMS).write_bytes(b"\xff")
    with pytest.raises(DamageError, match=rf"{SUMS}: is damaged"):
        check_folder(folder)


def test_a_cut_list_is_damage(folder: Path) -> None:
    (folder / SUMS).write_text((folder / SUMS).read_text().splitlines()[0] + "\n")
    with pytest.raises(DamageError, match=rf"{SUMS}: is damaged: has no digest of b$"):
        check_folder(folder)


def test_parts_are_one_content() -> None:
    assert content_digest(b"ab", memoryview(b"c")) == hashlib.sha256(b"abc").hexdigest()
