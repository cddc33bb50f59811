"""Take back a change that was made by hand, or give up a damaged line of the file of changes."""

import json
from datetime import UTC, datetime
from pathlib import Path

from fairhuman.data.sources.edits import (
    MAX_LINES,
    DamagedLineError,
    Edit,
    Edits,
    EditsWriter,
    edits_command,
    edits_file,
    holding,
    line_problem,
    read_edits,
)
from fairhuman.errors import DataError
from fairhuman.regions.boxes import shorten
from fairhuman.utils.files import write_atomically, writing
from fairhuman.utils.parse import parse_json


def undo_edit(path: Path, number: int) -> str:
    """Take back line `number` of the changes beside a data set, or give it up if it is damaged; say what was done.

    Raises:
        DataError: there is no such line, it doesn't count, or another line is damaged; or as `EditsWriter`.
        FairHumanError: as `EditsWriter`.
    """
    try:
        with EditsWriter(path) as writer:
            line = next((line for line in writer.edits.lines if line.n == number), None)
            if line is None:
                raise DataError(f"{writer.file}: has no change {number}; `{edits_command(path)}` lists them")
            reason = writer.edits.without_effect().get(number)
            if reason is not None:
                raise DataError(f"{writer.file}: change {number} doesn't count: {reason}")
            writer.add(line.key, {"undo": number})
            return f"taken back: {line.key}: {line.text()}"
    except DamagedLineError as error:
        if error.number != number:
            raise
    with holding(path), writing(edits_file(path)):
        try:
            read_edits(path)
        except DamagedLineError as error:
            return _give_up(edits_file(path), error)
    raise DataError(f"{edits_file(path)}: line {number} was damaged, and isn't any more")


def _give_up(file: Path, damaged: DamagedLineError) -> str:
    """Put lines that change nothing in the place of the damaged one and of what can't be read after it.

    The next line that is as it must be, with a number of its own, and all after it stay. So a change that was split
    over two lines, or two that became one, cost no others.
    """
    content = file.read_bytes()
    lines, first = content.split(b"\n"), damaged.number - 1
    raw = lines[first]
    lines.pop()  # empty, or half a line, which is no change
    numbers = ((place, _number(lines[place], damaged)) for place in range(first, len(lines)))
    none = len(lines), max(len(lines), damaged.number) + 1
    end, following = next(((place, number) for place, number in numbers if number is not None), none)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lost = [{"n": n, "at": at, "key": "", "lost": damaged.problem} for n in range(damaged.number, following)]
    written = [*lines[:first], *(json.dumps(line).encode() for line in lost), *lines[end:]]
    before = file.with_name(f".{file.name}.before-{damaged.number}")
    write_atomically(before, lambda partial: partial.write_bytes(content))
    write_atomically(file, lambda partial: partial.write_bytes(b"".join(line + b"\n" for line in written)))
    which = f"change {damaged.number}" if len(lost) == 1 else f"changes {damaged.number} to {following - 1}"
    found = shorten(raw.decode("utf-8", "backslashreplace"))
    return f"given up: {which}, found {found}; what a lost line took back counts again. The file as it was: {before}"


def _number(line: bytes, damaged: DamagedLineError) -> int | None:
    """The number of a line that is as it must be if those from the damaged one up to it are lost; None: it isn't."""
    try:
        values = parse_json(line.decode("utf-8"))
    except ValueError:
        return None
    number = values.get("n") if isinstance(values, dict) else None
    if type(number) is not int or not damaged.number <= number <= MAX_LINES:
        return None
    lost = [Edit(n, "", {"lost": ""}) for n in range(damaged.number, number)]
    return None if line_problem(values, number, Edits([*damaged.before.lines, *lost])) else number
