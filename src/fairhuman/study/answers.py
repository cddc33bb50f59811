"""Answers as self-contained votes, and their tables in CSV or JSON, also from other sources."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairhuman.errors import DataError, RecipeError
from fairhuman.report.text import plural
from fairhuman.study.candidates import TIE
from fairhuman.study.ranks import JOIN, Ranks, parse_ranks, ranks_text, sole_best
from fairhuman.study.study import DATABASE, StoredStudy
from fairhuman.utils.files import write_atomically, write_json
from fairhuman.utils.parse import parse_json

COLUMNS = ("participant", "trial", "question", "prompt", "shown", "chosen", "seconds", "given", "item", "better")
POSSIBLE = "possible_seconds"  # a last column, where the server's clock was read
RANKS = "ranks"  # a column where pictures were ranked, before that
OPTIONAL = ("prompt", "seconds", "given", "item", "better")  # optional in tables from other sources
MAX_LISTED = 10  # invalid rows that are listed
_TRIAL = re.compile("[0-9]{1,9}")
# Spreadsheets run a cell that begins so as a formula; the apostrophe before it makes it a text. A cell that has the
# apostrophe already gets another one, so that what is read is what was written.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer with everything it refers to.

    Attributes:
        participant: identifier of the participant.
        trial: number of the trial, from 0, unique for the participant.
        question: name of the question.
        prompt: prompt of the pictures; empty if unknown.
        shown: methods from left to right.
        chosen: method of the preferred picture; None: a tie, of all pictures or, with ranks, of the best ones.
        seconds: answer time; NaN if unknown.
        given: time of the answer, ISO 8601; empty if unknown.
        item: identifier of the group of pictures, independent of the methods shown.
        better: for attention checks, the correct choice; None: a real item.
        possible: seconds that the answer can have taken at most by the server's clock; NaN if unknown.
        ranks: rank of each of `shown`, 1 for the best, equal for tied ones; None: only the best was chosen.
    """

    participant: str
    trial: int
    question: str
    prompt: str
    shown: tuple[str, ...]
    chosen: str | None
    seconds: float
    given: str
    item: str
    better: str | None = None
    possible: float = math.nan
    ranks: Ranks | None = None

    @property
    def top(self) -> tuple[str, ...]:
        """The methods of the best pictures; several if they are tied."""
        if self.ranks is None:
            return self.shown if self.chosen is None else (self.chosen,)
        return tuple(method for method, rank in zip(self.shown, self.ranks, strict=True) if rank == 1)

    def against(self, a: str, b: str) -> float | None:
        """1 if a's picture is better than b's, 0 if it is worse, 0.5 if they are tied; None: it isn't said."""
        if a not in self.shown or b not in self.shown:
            return None
        if self.ranks is not None:
            first, second = (self.ranks[self.shown.index(method)] for method in (a, b))
            return 0.5 if first == second else float(first < second)
        if self.chosen is None:
            return 0.5
        return float(self.chosen == a) if self.chosen in (a, b) else None


@dataclass
class Votes:
    """Votes in the order of participants, trials and questions; location and reason of each invalid row; and the number
    of votes in a complete session, None without a design.
    """

    votes: list[Vote]
    bad: list[str] = field(default_factory=list)
    expected: int | None = None

    def counted(self) -> str:
        """Numbers of answers, without attention checks, of checks and of participants, as text."""
        if not self.votes:
            return "no answers yet"
        checks = sum(vote.better is not None for vote in self.votes)
        people = len({vote.participant for vote in self.votes})
        more = f" and {plural(checks, 'attention check')}" if checks else ""
        return f"{plural(len(self.votes) - checks, 'answer')}{more} of {plural(people, 'participant')}"

    def bad_lines(self) -> list[str]:
        """The first invalid rows, and the number of further ones."""
        rest = len(self.bad) - MAX_LISTED
        return [*self.bad[:MAX_LISTED], *([f"and {rest} more"] if rest > 0 else [])]


def write_votes(votes: Sequence[Vote], path: Path) -> None:
    """Write votes as a table that `read_votes` restores; the suffix selects CSV or JSON.

    In CSV a text that a spreadsheet would run as a formula gets an apostrophe before it.

    Raises:
        DataError: another suffix.
    """
    lines: list[dict[str, Any]] = [
        {
            "participant": vote.participant,
            "trial": vote.trial,
            "question": vote.question,
            "prompt": vote.prompt,
            "shown": JOIN.join(vote.shown),
            "chosen": TIE if vote.chosen is None else vote.chosen,
            "seconds": vote.seconds if math.isfinite(vote.seconds) else None,
            "given": vote.given,
            "item": vote.item,
            "better": vote.better,
        }
        for vote in votes
    ]
    columns: tuple[str, ...] = COLUMNS
    if any(vote.ranks is not None for vote in votes):
        columns = (*columns, RANKS)
        for line, vote in zip(lines, votes, strict=True):
            line[RANKS] = None if vote.ranks is None else ranks_text(vote.ranks)
    if any(math.isfinite(vote.possible) for vote in votes):
        columns = (*columns, POSSIBLE)
        for line, vote in zip(lines, votes, strict=True):
            line[POSSIBLE] = round(vote.possible, 3) if math.isfinite(vote.possible) else None
    if _kind(path) == "json":
        write_json(path, lines)
        return

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({name: _as_text(value) for name, value in line.items()} for line in lines)

    write_atomically(path, write)


def load_votes(study: StoredStudy | None, database: str | None, table: Path | None = None) -> Votes:
    """Read votes from a table or from a study's database, given by URL or stored in the study's folder.

    A complete session is that of the study, if one is given, also for a table.

    Raises:
        RecipeError: neither a table nor a study is given.
        DataError: as in `read_votes` and `read_database`.
        FairHumanError: the database can't be opened.
    """
    if table is not None:
        votes = read_votes(table)
        if study is not None:
            votes.expected = len(study.design.participants[0]) * len(study.settings.questions)
        return votes
    if study is None:
        raise RecipeError("answers in a database need the study's folder: give it too")
    from fairhuman.study.recorded import read_database  # needs SQLAlchemy, which tables don't

    questions = [question.name for question in study.settings.questions]
    timed = study.settings.exclude.max_overclaimed is not None
    return read_database(database or study.folder / DATABASE, study.design, questions, timed=timed)


def read_votes(path: Path) -> Votes:
    """Read votes from a CSV table or a JSON list of objects.

    Columns: participant, trial, question, shown (methods from left to right, joined by |) and chosen (one of them, or
    "tie"); optionally prompt, seconds, given, item (by default the prompt), better (correct choice of an attention
    check), ranks (of the shown pictures, joined by |) and possible_seconds (that the answer can have taken at most).
    Other columns are ignored. Invalid rows are listed by line and skipped.

    Raises:
        DataError: the file can't be read, a column is missing, or no row is valid.
    """
    found: dict[tuple[str, int, str], Vote] = {}
    bad = []
    for line, values in _rows(path):
        vote = _parse(values)
        if isinstance(vote, str):
            bad.append(f"{path.name}, line {line}: {vote}")
        elif (vote.participant, vote.trial, vote.question) in found:
            bad.append(
                f"{path.name}, line {line}: a second answer to {vote.question} in trial {vote.trial} of "
                f"participant {vote.participant}"
            )
        else:
            found[vote.participant, vote.trial, vote.question] = vote
    if not found:
        raise DataError(f"{path}: holds no valid answer; {bad[0] if bad else 'there are no rows'}")
    return Votes(list(found.values()), bad)


def _kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "json"):
        raise DataError(f"{path}: a table of answers must be named .csv or .json")
    return kind


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield (number, row) with text values; the number is the line, or the position in a JSON list, from 1."""
    kind = _kind(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # bytes, because line ends inside a prompt must stay unchanged
        if kind == "csv":
            reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval="")
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                yield reader.line_num, {name: _from_text(value) for name, value in row.items() if name}
            return
        rows = parse_json(text)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: expected a table of answers in UTF-8; {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of objects, one per answer")
    for place, row in enumerate(rows, 1):
        _check_columns(path, row)
        yield place, {name: _plain(value) for name, value in row.items()}


def _check_columns(path: Path, columns: Any) -> None:
    missing = [name for name in COLUMNS if name not in OPTIONAL and name not in columns]
    if missing:
        raise DataError(f"{path}: must have the columns {', '.join(COLUMNS[:6])}; lacks {', '.join(missing)}")


def _as_text(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _from_text(cell: str) -> str:
    """The text of a cell, without the apostrophe of `_as_text`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _parse(values: Mapping[str, str]) -> Vote | str:
    """The vote of a row, or the reason why it is invalid."""
    participant, question = values["participant"].strip(), values["question"].strip()
    shown = tuple(name.strip() for name in values["shown"].split(JOIN))
    chosen: str | None = values["chosen"].strip()
    seconds = _seconds(values.get("seconds", ""))
    trial = values["trial"].strip()
    prompt = values.get("prompt", "")
    if not participant or not question:
        return "participant and question must not be empty"
    if not _TRIAL.fullmatch(trial):
        return f"trial must be a number from 0, found {trial[:40]!r}"
    if len(shown) < 2 or len(set(shown)) < len(shown) or not all(shown):
        return f"shown must be two or more different methods joined by {JOIN!r}; found {values['shown']!r}"
    if chosen != TIE and chosen not in shown:
        return f"chosen must be one of {', '.join(shown)}, or {TIE}; found {chosen!r}"
    if seconds is None:
        return f"seconds must be a number of at least 0, found {values['seconds']!r}"
    possible = _seconds(values.get(POSSIBLE, ""))
    if possible is None:
        return f"{POSSIBLE} must be a number of at least 0, found {values[POSSIBLE]!r}"
    better = values.get("better", "").strip() or None
    if better is not None and better not in shown:
        return f"better must be one of {', '.join(shown)}, or empty; found {better!r}"
    ranks: Ranks | None = None
    if text := values.get(RANKS, "").strip():
        try:
            ranks = parse_ranks(text, len(shown))
        except ValueError as error:
            return str(error)
        best = sole_best(ranks)
        if chosen != (TIE if best is None else shown[best]):
            return f"chosen must be {TIE if best is None else shown[best]}, as the ranks say; found {chosen!r}"
    item = values.get("item", "").strip() or prompt or f"trial {trial}"
    return Vote(
        participant,
        int(trial),
        question,
        prompt,
        shown,
        None if chosen == TIE else chosen,
        seconds,
        values.get("given", ""),
        item,
        better,
        possible,
        ranks,
    )


def _seconds(text: str) -> float | None:
    """Seconds, NaN for an empty cell, None for anything else."""
    if not text.strip():
        return math.nan
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
