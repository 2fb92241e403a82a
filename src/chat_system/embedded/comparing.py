"""The search index compared with the messages: both hold every trigram of the same texts, and of no other.

An index is built anew in memory, a slice of the messages at a time, by FTS5 itself. Of each trigram one number is
formed of all messages that have it, on either side: of the index as a search asks for it, so what no search finds is
not there. The numbers go into a fixed count of sums by the trigrams' hashes, so memory stays bounded however many
trigrams there are. Where sums differ, messages are looked for. All is read at one moment of the file: an index that is
fed meanwhile differs from nothing.

Not promised: that all wrong messages are named. After the first few the rest is not looked for.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing

from chat_system.embedded import unindexed
from chat_system.embedded.rows import NUMBER_MASK
from chat_system.ports import Discrepancy

SLICE_MESSAGES = 10_000
SLICE_BYTES = 4 * 1024 * 1024

SUMS = 65_536
SUMS_LOOKED_INTO = 20
TRIGRAMS_LOOKED_FOR = 8
"""For each of them all messages are read once."""

SUSPECTS_MAX = 20
"""After so many wrong messages the rest is not looked for."""

# A prime, so that a square of what is left by it fits into 64 bits; not next to a power of two, or chats and numbers
# that lie near each other would leave the same.
_PRIME = 1_500_450_271
_NUMBER = f"sum(1 + {{key}} % {_PRIME} + ({{key}} % {_PRIME}) * ({{key}} % {_PRIME}) % {_PRIME})"

_TERMS = "CREATE VIRTUAL TABLE IF NOT EXISTS temp.search_terms USING fts5vocab (main, search, row)"
_INDEXED_TERMS = "SELECT CAST(term AS BLOB) FROM temp.search_terms"
_INDEXED_NUMBER = f"SELECT {_NUMBER.format(key='rowid')} FROM search WHERE search MATCH CAST(? AS TEXT)"
_SLICE_TERMS = "CREATE VIRTUAL TABLE instances USING fts5vocab (search, instance)"
_SLICE_NUMBERS = f"SELECT CAST(term AS BLOB), {_NUMBER.format(key='doc')} FROM instances GROUP BY term"

# Texts as bytes: one that is damaged, so that it is no UTF-8, is compared all the same.
_SAID = f"SELECT id, CAST(said AS BLOB) FROM ({unindexed.SAID_TO_BE_HELD}) WHERE said IS NOT NULL"
_SAID_WITH = f"SELECT id FROM ({unindexed.SAID_TO_BE_HELD}) WHERE instr(said, CAST(? AS TEXT)) > 0 ORDER BY id"
_INDEXED_WITH = "SELECT rowid FROM search WHERE search MATCH CAST(? AS TEXT) ORDER BY rowid"
_PLACE = """
    SELECT c.application_id, c.number FROM chats c WHERE c.id = ?1 >> 32
    AND EXISTS (SELECT 1 FROM messages WHERE id = ?1)"""

_END = 2**63 - 1

_Numbers = Iterator[tuple[bytes, int]]


def compare_index(connection: sqlite3.Connection) -> list[Discrepancy]:
    """Messages that the index holds under another text than `unindexed` says, or only one of the two knows."""
    _make_readable(connection)
    connection.execute("BEGIN")
    try:
        sums = _differing_sums(connection)
        return _wrong_messages(connection, _differing_trigrams(connection, sums)) if sums else []
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        return [Discrepancy("search index", f"it is damaged: {error}")]
    finally:
        connection.execute("COMMIT")


def _make_readable(connection: sqlite3.Connection) -> None:
    # A name for what is in the file already, on this connection only. That is a change to SQLite, though not of a file.
    (query_only,) = connection.execute("PRAGMA query_only").fetchone()
    connection.execute("PRAGMA query_only = OFF")
    try:
        connection.execute(_TERMS)
    finally:
        connection.execute(f"PRAGMA query_only = {query_only}")


def _differing_sums(connection: sqlite3.Connection) -> list[int]:
    sums = [0] * SUMS
    for term, number in said_numbers(connection):
        sums[hash(term) % SUMS] += hash(term) * number
    for term, number in _indexed_numbers(connection):
        sums[hash(term) % SUMS] -= hash(term) * number
    return [place for place, left in enumerate(sums) if left]


def _differing_trigrams(connection: sqlite3.Connection, sums: Sequence[int]) -> list[bytes]:
    within = frozenset(sums[:SUMS_LOOKED_INTO])
    left: Counter[bytes] = Counter()
    for term, number in said_numbers(connection):
        if hash(term) % SUMS in within:
            left[term] += number
    for term, number in _indexed_numbers(connection):
        if hash(term) % SUMS in within:
            left[term] -= number
    return [term for term, number in left.items() if number]


def _wrong_messages(connection: sqlite3.Connection, terms: Sequence[bytes]) -> list[Discrepancy]:
    wrong: defaultdict[int, set[bool]] = defaultdict(set)
    for term in terms[:TRIGRAMS_LOOKED_FOR]:
        said = (key for (key,) in connection.execute(_SAID_WITH, (term,)))
        indexed = (key for (key,) in connection.execute(_INDEXED_WITH, (_quoted(term),)))
        for key, is_said in _only_one(said, indexed):
            if key in wrong or len(wrong) < SUSPECTS_MAX:
                wrong[key].add(is_said)
            else:
                break
    return [_discrepancy(connection, key, ways) for key, ways in sorted(wrong.items())]


def _discrepancy(connection: sqlite3.Connection, key: int, ways: set[bool]) -> Discrepancy:
    place = connection.execute(_PLACE, (key,)).fetchone()
    if place is None:
        return Discrepancy("search index", f"it holds key {key}, of which there is no message")
    where = f"application {place[0]}, chat {place[1]}, message {key & NUMBER_MASK}"
    if len(ways) == 2:
        return Discrepancy(where, "the search index holds another text than its")
    lacking = True in ways
    return Discrepancy(
        where, "the search index " + ("does not hold all of its text" if lacking else "holds more than its text")
    )


def _only_one(said: Iterator[int], indexed: Iterator[int]) -> Iterator[tuple[int, bool]]:
    """Keys that only one of two rising rows has, and whether it is the first."""
    one, other = next(said, _END), next(indexed, _END)
    while min(one, other) < _END:
        key = min(one, other)
        if one != other:
            yield key, one == key
        if one == key:
            one = next(said, _END)
        if other == key:
            other = next(indexed, _END)


def _indexed_numbers(connection: sqlite3.Connection) -> _Numbers:
    for (term,) in connection.execute(_INDEXED_TERMS):
        yield term, connection.execute(_INDEXED_NUMBER, (_quoted(term),)).fetchone()[0] or 0


def said_numbers(connection: sqlite3.Connection) -> _Numbers:
    """A trigram comes once for each slice that has it: the numbers of one trigram add up."""
    (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'search'").fetchone()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as anew:
        anew.execute(sql)
        anew.execute(_SLICE_TERMS)
        for texts in _slices(connection):
            anew.execute("BEGIN")
            anew.executemany("INSERT INTO search (rowid, folded) VALUES (?, ?)", texts)
            anew.execute("COMMIT")
            yield from anew.execute(_SLICE_NUMBERS)
            anew.execute("INSERT INTO search (search) VALUES ('delete-all')")


def _slices(connection: sqlite3.Connection) -> Iterator[list[tuple[int, bytes]]]:
    texts: list[tuple[int, bytes]] = []
    size = 0
    for key, text in connection.execute(_SAID):
        texts.append((key, text))
        size += len(text)
        if len(texts) == SLICE_MESSAGES or size >= SLICE_BYTES:
            yield texts
            texts, size = [], 0
    yield texts


def _quoted(term: bytes) -> bytes:
    return b'"' + term.replace(b'"', b'""') + b'"'
