"""Substring search in the SQLite file: exact in every script, at any length.

A message matches when its folded body contains the folded query. The newest messages are simply read; most
searches fill their page from them. What lies further back is found through the trigrams of FTS5, which names
candidates, and whatever is still in the queue is read as well, so nothing waits for the index. Every candidate
is checked on its row: the index may be behind, it is never believed. Queries under three characters have no
trigram, and go on reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import json

from chat_system import telemetry
from chat_system.embedded.database import INLINE_MAX_BYTES, Database, Transaction
from chat_system.embedded.rows import MESSAGE_COLUMNS, NUMBER_MASK, found_message, message, message_id
from chat_system.model import ApplicationId, FoundMessage, Message
from chat_system.ports import Entry, Found

RECENT_MESSAGES = 2_000
"""How many of the newest messages are read before the index is asked."""

TRIGRAM = 3
TRIGRAMS_MAX = 24
"""Trigrams asked for at most: further ones hardly narrow the candidates and cost their lists."""

IN_THREAD = INLINE_MAX_BYTES + 1
"""The size of a write that must not run on the event loop."""

END = 2**63 - 1

_MATCHES = "m.deleted_at IS NULL AND instr(coalesce(m.folded, m.body), :folded) > 0"

# A range of a chat, read.
_SCAN_CHAT = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages m
    WHERE m.id > :low AND m.id < :high AND {_MATCHES} ORDER BY m.id DESC LIMIT :limit"""
# A range of a chat through the index; CROSS JOIN keeps the index first.
_INDEXED_CHAT = f"""
    SELECT {MESSAGE_COLUMNS} FROM search CROSS JOIN messages m ON m.id = search.rowid
    WHERE search MATCH :trigrams AND search.rowid > :low AND search.rowid < :high AND {_MATCHES}
    ORDER BY search.rowid DESC LIMIT :limit"""
# What the index does not know yet in that range.
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
_INDEXED_APPLICATION = f"""
    SELECT {_FOUND_COLUMNS} FROM search CROSS JOIN messages m ON m.id = search.rowid
    JOIN chats c ON c.id = m.id >> 32
    WHERE search MATCH :trigrams AND {_BEYOND} AND {_MATCHES} {_NEWEST_FIRST}"""
_QUEUED_APPLICATION = f"""
    SELECT {_FOUND_COLUMNS} FROM search_queue q CROSS JOIN messages m ON m.id = q.id
    JOIN chats c ON c.id = m.id >> 32
    WHERE {_BEYOND} AND {_MATCHES} {_NEWEST_FIRST}"""

# Bringing the index up to the rows: what it holds under an old text goes, what is there now comes.
_UNINDEX_QUEUED = """
    INSERT INTO search (search, rowid, folded) SELECT 'delete', id, indexed_as FROM search_queue
    WHERE indexed_as IS NOT NULL AND id IN (SELECT value FROM json_each(:ids))"""
_INDEX_QUEUED = """
    INSERT INTO search (rowid, folded) SELECT m.id, coalesce(m.folded, m.body)
    FROM search_queue q JOIN messages m ON m.id = q.id
    WHERE m.deleted_at IS NULL AND q.id IN (SELECT value FROM json_each(:ids))"""
_DEQUEUE = "DELETE FROM search_queue WHERE id IN (SELECT value FROM json_each(:ids))"
_UNINDEX_OTHERS = """
    INSERT INTO search (search, rowid, folded) SELECT 'delete', id, coalesce(folded, body) FROM messages
    WHERE deleted_at IS NULL AND id IN (SELECT value FROM json_each(:ids))
        AND id NOT IN (SELECT id FROM search_queue)"""


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
        """See `ports.SearchIndex.apply`. Takes the entries out of the queue in the same transaction."""
        ids = {"ids": json.encode([int(entry.position) for entry in entries]).decode()}

        def unit(transaction: Transaction) -> None:
            # A statement each for all of them: the thread needs the interpreter's lock only between two.
            for sql in (_UNINDEX_QUEUED, _INDEX_QUEUED, _DEQUEUE):
                transaction.execute(sql, ids)

        await self._database.write(unit, size=IN_THREAD)
        telemetry.INDEXED.inc(len(entries))

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


def remove(transaction: Transaction, keys: Sequence[int]) -> None:
    """Take messages out of the index and its queue, in the transaction that removes their rows."""
    ids = {"ids": json.encode(keys).decode()}
    for sql in (_UNINDEX_OTHERS, _UNINDEX_QUEUED, _DEQUEUE):
        transaction.execute(sql, ids)


def trigrams(folded: str) -> str:
    """The FTS5 query for messages that have every trigram of the text; at most TRIGRAMS_MAX, spread over it."""
    all_of_them = list(dict.fromkeys(folded[start : start + TRIGRAM] for start in range(len(folded) - TRIGRAM + 1)))
    step = max(1, -(-len(all_of_them) // TRIGRAMS_MAX))
    return " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in all_of_them[::step])


def _in_chat(connection: sqlite3.Connection, chat_id: int, folded: str, high: int, limit: int) -> list[Message]:
    newest = connection.execute(
        "SELECT max(id) FROM messages WHERE id > ? AND id < ?", (message_id(chat_id, 0), message_id(chat_id, high))
    ).fetchone()[0]
    if newest is None:
        return []
    start = message_id(chat_id, 0)
    recent = max(start, newest - RECENT_MESSAGES)
    parameters = {"folded": folded, "low": recent, "high": newest + 1, "limit": limit}
    found = connection.execute(_SCAN_CHAT, parameters).fetchall()
    if len(found) < limit and recent > start:
        parameters |= {"low": start, "high": recent + 1, "limit": limit - len(found)}
        if len(folded) < TRIGRAM:
            found += connection.execute(_SCAN_CHAT, parameters).fetchall()
        else:
            parameters["trigrams"] = trigrams(folded)
            found += _merge(connection, (_INDEXED_CHAT, _QUEUED_CHAT), parameters, key=0)
    return [message(row) for row in found]


def _in_application(connection: sqlite3.Connection, parameters: dict[str, Any]) -> list[tuple[Found, FoundMessage]]:
    since = connection.execute(_SINCE, parameters | {"skip": RECENT_MESSAGES}).fetchone()
    found = connection.execute(_SCAN_RECENT, parameters | {"since": -END if since is None else since[0]}).fetchall()
    if len(found) < parameters["limit"] and since is not None:
        if len(parameters["folded"]) < TRIGRAM:
            found = connection.execute(SCAN_APPLICATION, parameters).fetchall()
        else:
            parameters = parameters | {"trigrams": trigrams(parameters["folded"])}
            found = _merge(connection, (_INDEXED_APPLICATION, _QUEUED_APPLICATION), parameters, key=slice(-2, None))
    return [(Found(row[-2], row[-3], row[0]), found_message(row[:-2])) for row in found]


def _merge(connection: sqlite3.Connection, queries: Sequence[str], parameters: dict[str, Any], key: Any) -> list[Any]:
    """The first rows of several queries that are ordered by the same falling key, each row once."""
    # One snapshot: a message that is indexed between two queries would be in neither.
    connection.execute("BEGIN")
    try:
        rows = {row[key]: row for query in queries for row in connection.execute(query, parameters)}
    finally:
        connection.execute("COMMIT")
    return [rows[place] for place in sorted(rows, reverse=True)[: parameters["limit"]]]
