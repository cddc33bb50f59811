"""Answers in a database, as the study server writes them."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path


def write_database(path: Path, rows: Sequence[tuple[object, ...]]) -> Path:
    """As the server's tables are, less what a report doesn't read."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "CREATE TABLE answers (participant INTEGER, trial INTEGER, question TEXT, choice INTEGER, seconds REAL,"
            " given TEXT, PRIMARY KEY (participant, trial, question))"
        )
        connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    return path
