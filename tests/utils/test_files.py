"""Files appear whole or not at all."""

import json
import resource
from pathlib import Path

import pytest

from fairhuman.utils.files import alone, free_name, natural_path_order, touch, write_atomically, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_text_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "page.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    write_text(path, "new ☺")
    assert path.read_text(encoding="utf-8") == "new ☺"
    assert names(path.parent) == ["page.txt"]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    write_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["table.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    def make(*files: str) -> None:
        def write(partial: Path) -> None:
            (partial / "deep").mkdir(parents=True)
            for file in files:
                if file == "broken":
                    raise OSError("no")
                (partial / "deep" / file).write_text(file, encoding="utf-8")

        write_atomically(tmp_path / "model", write)

    make("a", "b")
    with pytest.raises(OSError, match="no"):
        make("c", "broken")
    assert names(tmp_path / "model" / "deep") == ["a", "b"]
    make("c")
    assert names(tmp_path / "model" / "deep") == ["c"]
    assert names(tmp_path) == ["model"]


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "photos", "a page")
    assert names(tmp_path / "photos") == ["a.png"]
    assert names(tmp_path) == ["photos"]


def test_leftovers_of_a_killed_process_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "half").write_text("", encoding="utf-8")
    (tmp_path / ".model.old").mkdir()
    (tmp_path / "model").mkdir()
    write_atomically(tmp_path / "model", lambda partial: partial.mkdir())
    assert names(tmp_path) == ["model"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None, "ä"]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"b": [1, None, "ä"]}
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", {"b": float("nan")})


def test_an_empty_file_is_never_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("kept")
    for name, target in (("new", "elsewhere"), ("old", "there")):
        link = tmp_path / name
        link.symlink_to(tmp_path / target)
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            touch(link)
        with pytest.raises(OSError, match="Too many levels of symbolic links"), alone(link, "busy"):
            pass
    assert not (tmp_path / "elsewhere").exists()
    touch(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "kept"


def test_natural_order_and_free_names_count() -> None:
    names = ["a/10.png", "a/9.png", "10.png", "9.png", "1" * 5000 + ".png"]
    assert sorted(names, key=natural_path_order) == ["9.png", "10.png", "1" * 5000 + ".png", "a/9.png", "a/10.png"]
    assert [free_name("a", taken.__contains__) for taken in ((), ("a",), ("a", "a-2", "a-4"))] == ["a", "a-2", "a-3"]
