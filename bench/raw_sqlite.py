"""Limit: what sqlite3 alone reaches for the same rows, with the same durability.

One table without indexes, WAL, `synchronous=FULL`, one `executemany` and one commit for each transaction.
No HTTP, no JSON, no numbering, no search index: what a server puts around it is the difference.

Each function runs in the client's process and works on a new database in the folder that it is given.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.corpus import Line, read_import_file
from bench.measure import Sample, percentile

ROWS_PER_IMPORT_TRANSACTION = 10_000

SCHEMA = "CREATE TABLE messages (id INTEGER PRIMARY KEY, sender TEXT, body TEXT NOT NULL, created_at INTEGER)"
INSERT = "INSERT INTO messages (sender, body, created_at) VALUES (?, ?, ?)"

Record = tuple[str, str, int]


@dataclass(frozen=True)
class Commits:
    """Transactions of so many rows, one after the other, for some seconds."""

    folder: Path
    lines: tuple[Line, ...]
    rows_per_transaction: int
    seconds: float


@dataclass(frozen=True)
class Import:
    """All rows of an import file, in large transactions. Reading the file is not measured."""

    folder: Path
    file: Path


def run_commits(work: Commits) -> Sample:
    """Commit until the seconds are over; rates, and the time of a transaction."""
    records = itertools.cycle((line.sender, line.body, 1_600_000_000_000) for line in work.lines)
    durations: list[float] = []
    with _database(work.folder) as connection:
        started_at = now = time.perf_counter()
        while now < started_at + work.seconds:
            _commit(connection, list(itertools.islice(records, work.rows_per_transaction)))
            before, now = now, time.perf_counter()
            durations.append(now - before)
    durations.sort()
    return {
        "answers_per_s": len(durations) / sum(durations),
        "messages_per_s": len(durations) * work.rows_per_transaction / sum(durations),
        "p50_ms": percentile(durations, 0.50) * 1e3,
        "p99_ms": percentile(durations, 0.99) * 1e3,
    }


def run_import(work: Import) -> Sample:
    """Commit a file's rows, and return their rate."""
    records = [(line.sender, line.body, 1_600_000_000_000) for line in read_import_file(work.file)]
    with _database(work.folder) as connection:
        started_at = time.perf_counter()
        for start in range(0, len(records), ROWS_PER_IMPORT_TRANSACTION):
            _commit(connection, records[start : start + ROWS_PER_IMPORT_TRANSACTION])
        seconds = time.perf_counter() - started_at
    return {"messages_per_s": len(records) / seconds}


@contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    with (
        tempfile.TemporaryDirectory(dir=folder) as own,
        closing(sqlite3.connect(Path(own) / "raw.sqlite3", isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(SCHEMA)
        yield connection


def _commit(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, records)
    connection.execute("COMMIT")
