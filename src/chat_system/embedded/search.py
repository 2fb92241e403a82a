"""Substring search in the SQLite file: exact in every script, at any length.

A message matches when its folded body contains the folded query. The newest messages are simply read; most
searches fill their page from them. What lies further back is found through the trigrams of FTS5, which names
candidates, and whatever it does not know yet is read as well, so nothing waits for the index. Every candidate
is checked on its row: the index may be behind, it is never believed. Queries under three characters have no
trigram, and go on reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from chat_system import telemetry
from chat_system.embedded import unindexed
from chat_system.embedded.database import INLINE_MAX_BYTES, Database
from chat_system.embedded.rows import MESSAGE_COLUMNS, NUMBER_MASK, found_message, message_id
from chat_system.errors import Unavailable
from chat_system.model import ApplicationId, FoundMessage, Message, messages_of
from chat_system.ports import Entry, Found

RECENT_MESSAGES = 2_000
"""How many of the newest messages are read before the index is asked."""

TRIGRAM = 3
TRIGRAMS_WEIGHED = 24
"""How many trigrams of a query are looked at, spread over it."""

TRIGRAMS_ASKED = 4
"""How many of them the index is asked for, the rarest: more hardly narrow the candidates and cost their lists."""

SAMPLED_MESSAGES = 200
"""How many of the newest messages show which trigrams are rare."""

IN_THREAD = INLINE_MAX_BYTES + 1
"""The size of a write that must not run on the event loop."""
MERGES_PER_BATCH = 12
"""At most, so that a merge of the largest segments does not keep new messages waiting: it goes on after the next batch.
Each page is merged once for each size of segments, and a batch of 200 messages has about ten pages."""
MERGED_PAGES_MIN = 16
MESSAGES_PER_MERGED_PAGE = 12
"""So many pages are merged at once that it takes about as long as indexing the batch did."""

END = 2**63 - 1

_MATCHES = "m.deleted_at IS NULL AND instr(coalesce(m.folded, m.body), :folded) > 0"

# A range of a chat, read.
_SCAN_CHAT = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages m
    WHERE m.id > :low AND m.id < :high AND {_MATCHES} ORDER BY m.id DESC LIMIT :limit"""
# What the newest messages of a range say, as one text.
_SAMPLE_CHAT = """
    SELECT group_concat(said, char(0)) FROM (
        SELECT coalesce(folded, body) AS said FROM messages WHERE id > :low AND id < :high
        ORDER BY id DESC LIMIT :sampled)"""
# A range of a chat through the index; CROSS JOIN keeps the index first.
_INDEXED_CHAT = f"""
    SELECT {MESSAGE_COLUMNS} FROM search CROSS JOIN messages m ON m.id = search.rowid
    WHERE search MATCH :trigrams AND search.rowid > :low AND search.rowid < :high AND {_MATCHES}
    ORDER BY search.rowid DESC LIMIT :limit"""
# What the queue names in that range.
_QUEUED_CHAT = f"""
    SELECT {MESSAGE_COLUMNS} FROM search_queue q CROSS JOIN messages m ON m.id = q.id
    WHERE q.id > :low AND q.id < :high AND {_MATCHES} ORDER BY q.id DESC LIMIT :limit"""

_FOUND_COLUMNS = f"{MESSAGE_COLUMNS}, c.number, m.created_at, m.id"
_BEYOND = "m.application_id = :application AND (m.created_at, m.id) < (:at, :id)"
_NEWEST_FIRST = "ORDER BY m.created_at DESC, m.id DESC LIMIT :limit"
# How far back the newest messages of an application reach.
_SINCE = """
    SELECT created_at FROM messages WHERE application_id = :application AND created_at <= :at
    ORDER BY created_at DESC LIMIT 1 OFFSET :skip"""
# The newest of an application, read by age.
_SCAN_RECENT = f"""
    SELECT {_FOUND_COLUMNS} FROM messages m JOIN chats c ON c.id = m.id >> 32
    WHERE {_BEYOND} AND m.created_at <= :at AND m.created_at >= :since AND {_MATCHES} {_NEWEST_FIRST}"""
# All of an application, read chat by chat: faster than by age, which jumps about in the file. NOT INDEXED: SQLite
# would look through all of the application's messages by age again for each chat.
SCAN_APPLICATION = f"""
    SELECT {_FOUND_COLUMNS} FROM chats c
    CROSS JOIN messages m NOT INDEXED ON m.id BETWEEN c.id << 32 AND (c.id << 32) + {NUMBER_MASK}
    WHERE c.application_id = :application AND {_BEYOND} AND {_MATCHES} {_NEWEST_FIRST}"""
_SAMPLE_APPLICATION = """
    SELECT group_concat(said, char(0)) FROM (
        SELECT coalesce(folded, body) AS said FROM messages WHERE application_id = :application
        ORDER BY created_at DESC LIMIT :sampled)"""
_INDEXED_APPLICATION = f"""
    SELECT {_FOUND_COLUMNS} FROM search CROSS JOIN messages m ON m.id = search.rowid
    JOIN chats c ON c.id = m.id >> 32
    WHERE search MATCH :trigrams AND {_BEYOND} AND {_MATCHES} {_NEWEST_FIRST}"""
_QUEUED_APPLICATION = f"""
    SELECT {_FOUND_COLUMNS} FROM search_queue q CROSS JOIN messages m ON m.id = q.id
    JOIN chats c ON c.id = m.id >> 32
    WHERE {_BEYOND} AND {_MATCHES} {_NEWEST_FIRST}"""
_UNINDEXED_APPLICATION = f"""
    SELECT {_FOUND_COLUMNS} FROM search_behind b CROSS JOIN chats c ON c.id = b.chat_id
    CROSS JOIN messages m NOT INDEXED ON m.id > (c.id << 32) + b.above AND m.id <= (c.id << 32) + {NUMBER_MASK}
    WHERE c.application_id = :application AND {_BEYOND} AND {_MATCHES} {_NEWEST_FIRST}"""


class EmbeddedSearch:
    """Reads and keeps the index. `chat_id` finds the key of a chat and `require` an application, or raise NotFound."""

    def __init__(
        self,
        database: Database,
        require: Callable[[ApplicationId], None],
        chat_id: Callable[[ApplicationId, int], int],
    ) -> None:
        self._database = database
        self._require = require
        self._chat_id = chat_id

    async def apply(self, entries: Sequence[Entry]) -> None:
        """See `ports.SearchIndex.apply`. What it has taken in is known as indexed in the same transaction."""
        keys = [int(entry.position) for entry in entries]
        try:
            await self._database.write(lambda transaction: unindexed.index(transaction, keys), size=IN_THREAD)
        except Unavailable as error:
            # What is refused for what it is would be refused for ever, and with it the rest of its batch.
            if isinstance(error.__cause__, sqlite3.IntegrityError | sqlite3.DataError):
                raise error.__cause__ from None
            raise
        telemetry.INDEXED.inc(len(entries))
        merge = partial(unindexed.merge, pages=max(MERGED_PAGES_MIN, len(keys) // MESSAGES_PER_MERGED_PAGE))
        # Each piece is a transaction of its own: whoever posts goes between two of them.
        for _ in range(MERGES_PER_BATCH):
            if not await self._database.write(merge, size=IN_THREAD):
                break

    async def in_chat(
        self, application: ApplicationId, chat: int, folded: str, *, before: int | None, limit: int
    ) -> Sequence[Message]:
        """See `ports.SearchIndex.in_chat`."""
        chat_id = self._chat_id(application, chat)
        high = min(before or NUMBER_MASK, NUMBER_MASK)
        return await self._database.scan(lambda connection: _in_chat(connection, chat_id, folded, high, limit))

    async def in_application(
        self, application: ApplicationId, folded: str, *, after: Found | None, limit: int
    ) -> Sequence[tuple[Found, FoundMessage]]:
        """See `ports.SearchIndex.in_application`."""
        self._require(application)
        at, key = END, END
        if after is not None:
            at, key = after.created_at, message_id(self._chat_id(application, after.chat), after.number)
        parameters = {"application": application, "folded": folded, "at": at, "id": key, "limit": limit}
        return await self._database.scan(lambda connection: _in_application(connection, parameters))

    async def ping(self) -> None:
        """Index and store are one file: see the store's."""


def trigrams(folded: str, sample: str) -> str:
    """The FTS5 query for messages that have the text's trigrams, at most TRIGRAMS_ASKED: the rarest of a sample."""
    every = list(dict.fromkeys(folded[start : start + TRIGRAM] for start in range(len(folded) - TRIGRAM + 1)))
    weighed = every[:: -(-len(every) // TRIGRAMS_WEIGHED)]
    rarest = sorted(weighed, key=sample.count)[:TRIGRAMS_ASKED] if len(weighed) > TRIGRAMS_ASKED else weighed
    return " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in rarest)


def _with_trigrams(connection: sqlite3.Connection, sample: str, parameters: dict[str, Any]) -> dict[str, Any]:
    (said,) = connection.execute(sample, parameters | {"sampled": SAMPLED_MESSAGES}).fetchone()
    return parameters | {"trigrams": trigrams(parameters["folded"], said or "")}


def _in_chat(connection: sqlite3.Connection, chat_id: int, folded: str, high: int, limit: int) -> list[Message]:
    start = message_id(chat_id, 0)
    with _snapshot(connection):
        newest = connection.execute(
            "SELECT max(id) FROM messages WHERE id > ? AND id < ?", (start, message_id(chat_id, high))
        ).fetchone()[0]
        if newest is None:
            return []
        recent = max(start, newest - RECENT_MESSAGES)
        parameters = {"folded": folded, "low": recent, "high": newest + 1, "limit": limit}
        found = connection.execute(_SCAN_CHAT, parameters).fetchall()
        if len(found) < limit and recent > start:
            known = start if len(folded) < TRIGRAM else min(recent, unindexed.above(connection, chat_id, recent))
            parameters |= {"low": known, "high": recent + 1, "limit": limit - len(found)}
            found += connection.execute(_SCAN_CHAT, parameters).fetchall()
            if len(found) < limit and known > start:
                parameters |= {"low": start, "high": known + 1, "limit": limit - len(found)}
                parameters = _with_trigrams(connection, _SAMPLE_CHAT, parameters)
                found += _merge(connection, (_INDEXED_CHAT, _QUEUED_CHAT), parameters, key=0)
    return messages_of(found)


def _in_application(connection: sqlite3.Connection, parameters: dict[str, Any]) -> list[tuple[Found, FoundMessage]]:
    with _snapshot(connection):
        since = connection.execute(_SINCE, parameters | {"skip": RECENT_MESSAGES}).fetchone()
        found = connection.execute(_SCAN_RECENT, parameters | {"since": -END if since is None else since[0]}).fetchall()
        if len(found) < parameters["limit"] and since is not None:
            if len(parameters["folded"]) < TRIGRAM:
                found = connection.execute(SCAN_APPLICATION, parameters).fetchall()
            else:
                parameters = _with_trigrams(connection, _SAMPLE_APPLICATION, parameters)
                queries = (_INDEXED_APPLICATION, _QUEUED_APPLICATION, _UNINDEXED_APPLICATION)
                found = _merge(connection, queries, parameters, key=slice(-2, None))
    return [(Found(row[-2], row[-3], row[0]), found_message(row[:-2])) for row in found]


def _merge(connection: sqlite3.Connection, queries: Sequence[str], parameters: dict[str, Any], key: Any) -> list[Any]:
    """The first rows of several queries that are ordered by the same falling key, each row once."""
    rows = {row[key]: row for query in queries for row in connection.execute(query, parameters)}
    return [rows[place] for place in sorted(rows, reverse=True)[: parameters["limit"]]]


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read within shows one moment: a message that is indexed between two queries would be in neither."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")
