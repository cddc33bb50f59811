"""Files of JSON lines: the end may be torn, what lies before is whole or named."""

from pathlib import Path

import pytest

from fairhuman.errors import DataError
from fairhuman.utils.journal import Journal, read_rows


def test_only_the_end_may_be_torn(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    path.write_text('{"step": 1}\n\n{"step": 2}\n{"st')
    assert read_rows(path, step=int) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"step": 2}')
    assert read_rows(path, step=int) == [{"step": 1}, {"step": 2}]  # nothing is missing but the end of the line
    journal = Journal(path, step=int)
    journal.add([{"step": 3}])
    assert [row["step"] for row in journal] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"step": 2, "lo', "Unterminated string"),
        (b'{"step": NaN}', "step must be a whole number, found nan"),
        (b'{"step": true}', "step must be a whole number, found True"),
        (b'{"steq": 2}', "step must be a whole number, found None"),
        (b'{"step": 2, "loss": "\xff"}', "utf-8"),
        (b"[2]", "expected an object, found"),
        (bytes(8), "Expecting value"),
        (b'{"step": ' + b"[" * 200_000 + b"}", "levels deep"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(DataError, match=rf"rows.jsonl:2: is damaged: .*{said}.*backup, or delete this line") as told:
        read_rows(path, step=int)
    assert len(str(told.value).splitlines()) == 1


def test_needed_values_have_their_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "b": true, "c": "x", "d": []}\n')
    assert len(read_rows(path, a=float, b=bool, c=str, d=list)) == 1
    for needed, said in (
        ({"a": str}, "a must be a text"),
        ({"b": int}, "b must be"),
        ({"c": float}, "c must be a number"),
    ):
        with pytest.raises(DataError, match=said):
            read_rows(path, **needed)


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    mine, path = tmp_path / "mine.txt", tmp_path / "rows.jsonl"
    mine.write_text("half a line")
    path.symlink_to(mine)
    with pytest.raises(DataError, match=rf"^{path}: must be a file, but is a link; delete it"):
        Journal(path)
    path.unlink()
    journal = Journal(path)
    path.unlink()
    path.symlink_to(tmp_path / "none.txt")
    with pytest.raises(DataError, match="is a link"):
        journal.add([{"step": 1}])
    assert mine.read_text() == "half a line"
    assert not (tmp_path / "none.txt").exists()
