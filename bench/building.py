"""Databases too large to import: the rows of messages written straight into the servers, as the system would have them.

An import takes a journal's way, and ten million messages half an hour of it. Here each message is written once, to its
table and to the search index, in large pieces and without waiting for the disk; afterwards everything is as after an
import that was applied: counts, revisions, an index that is behind on nothing. The scenarios that use it compare what
they read with the corpus, and `chat-system check` finds nothing wrong with it.

Not promised: anything about how fast the system takes messages. Like `projections` this module knows its inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import aiohttp
from asyncmy.connection import Connection

from bench.corpus import BEGINNING, Corpus, Line
from bench.measure import Wrong
from chat_system.embedded.rows import message_id
from chat_system.model import ApplicationId, MessageChanged, fold
from chat_system.ports import Entry
from chat_system.settings import Settings
from chat_system.stack import values
from chat_system.stack.bulk import pieces as bulk_pieces
from chat_system.stack.elasticsearch import Elasticsearch
from chat_system.stack.indices import Indices
from chat_system.stack.mysql import Address
from chat_system.stack.search import AT_ONCE

PIECE = 10_000
"""Messages that are written together."""

TOLD_EVERY_S = 30.0
CACHE_KIB = 256 * 1024
BEGINNING_MS = int(BEGINNING.timestamp() * 1000)
SECOND_MS = 1000

EAGER = {"refresh_interval": "-1", "translog.durability": "async", "translog.flush_threshold_size": "1gb"}
"""An index that is being filled; afterwards it is what it was."""


@dataclass(frozen=True)
class Plan:
    """What to build: an application, and its chats by title, each with so many messages of the corpus."""

    corpus: Corpus
    application: str
    chats: Sequence[tuple[str, int]]

    @property
    def messages(self) -> int:
        """How many there are in all."""
        return sum(count for _, count in self.chats)

    @property
    def ends_at(self) -> int:
        """The time after the last message, in milliseconds since 1970."""
        return BEGINNING_MS + self.messages * SECOND_MS

    def pieces(self) -> Iterator[tuple[int, Sequence[tuple[int, int, Line]]]]:
        """Each chat's number with some of its messages, each with its number and time, as an import has them."""
        index = 0
        told_at = started_at = time.monotonic()
        for chat, (_, count) in enumerate(self.chats, 1):
            lines = enumerate(self.corpus.messages(index, count), 1)
            while piece := list(islice(lines, PIECE)):
                if time.monotonic() - told_at > TOLD_EVERY_S:
                    told_at = time.monotonic()
                    print(f"  {index:,} messages in {told_at - started_at:.0f} s", file=sys.stderr, flush=True)
                yield (
                    chat,
                    [
                        (number, BEGINNING_MS + (index + offset) * SECOND_MS, line)
                        for offset, (number, line) in enumerate(piece)
                    ],
                )
                index += len(piece)


def build_sqlite(path: Path, plan: Plan) -> None:
    """Fill a file of the embedded house that has its tables and no rows."""
    at = plan.ends_at
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("BEGIN")
        database.execute(
            "INSERT INTO applications (id, token, name, chats_count, created_at, updated_at) VALUES (1, ?, ?, ?, ?, ?)",
            (secrets.token_urlsafe(32), plan.application, len(plan.chats), at, at),
        )
        database.executemany(
            "INSERT INTO chats (id, application_id, number, title, messages_count, revision, created_at, updated_at)"
            " VALUES (?, 1, ?, ?, ?, ?, ?, ?)",
            [
                (number, number, title, count, count, BEGINNING_MS, BEGINNING_MS)
                for number, (title, count) in enumerate(plan.chats, 1)
            ],
        )
        for chat, piece in plan.pieces():
            folded = [fold(line.body) for _, _, line in piece]
            database.executemany(
                "INSERT INTO messages (id, application_id, revision, sender, body, folded, created_at)"
                " VALUES (?, 1, ?, ?, ?, ?, ?)",
                [
                    (message_id(chat, number), number, line.sender, line.body, None if text == line.body else text, at)
                    for (number, at, line), text in zip(piece, folded, strict=True)
                ],
            )
            database.executemany(
                "INSERT INTO search (rowid, folded) VALUES (?, ?)",
                [(message_id(chat, number), text) for (number, _, _), text in zip(piece, folded, strict=True)],
            )
            database.execute("COMMIT")
            database.execute("BEGIN")
        database.execute("COMMIT")


def build_servers(settings: Mapping[str, str], plan: Plan) -> None:
    """Fill a place of the stack house that has its tables and no rows."""
    asyncio.run(_build_servers(Settings.from_environment(settings), plan))


async def _build_servers(settings: Settings, plan: Plan) -> None:
    connection = await Address.of(settings.mysql_url).connect()
    try:
        await _query(connection, "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
        await _query(connection, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
        application = await _insert_chats(connection, plan)
        async with _filling(settings) as index:
            for chat, piece in plan.pieces():
                await asyncio.gather(
                    _insert_messages(connection, application, chat, piece), index.add(application, chat, piece)
                )
        await _query(connection, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    finally:
        await connection.ensure_closed()


async def _insert_chats(connection: Connection, plan: Plan) -> ApplicationId:
    at = plan.ends_at
    application = [(values.MARK, secrets.token_urlsafe(32), plan.application, len(plan.chats), at, at)]
    await _query(
        connection,
        b"INSERT INTO applications (token, name, chats_count, created_at, updated_at) VALUES "
        + values.written(application),
    )
    identifier = ApplicationId(connection.insert_id())
    chats = [
        (values.MARK, identifier, number, title, count, count, 1, BEGINNING_MS, BEGINNING_MS)
        for number, (title, count) in enumerate(plan.chats, 1)
    ]
    await _query(
        connection,
        b"INSERT INTO chats (application_id, number, title, messages_count, revision, version, created_at, updated_at)"
        b" VALUES " + values.written(chats),
    )
    return identifier


async def _insert_messages(
    connection: Connection, application: ApplicationId, chat: int, piece: Sequence[tuple[int, int, Line]]
) -> None:
    rows = [(values.MARK, application, chat, number, number, line.sender, line.body, at) for number, at, line in piece]
    await _query(
        connection,
        b"INSERT INTO messages (application_id, chat_number, number, revision, sender, body, created_at) VALUES "
        + values.written(rows),
    )


async def _query(connection: Connection, statement: str | bytes) -> None:
    # Not through a cursor, which takes texts only.
    await connection.query(statement)  # type: ignore[no-untyped-call]


class _Filling:
    """An index that takes documents in bulk requests, some at once."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._free = asyncio.Semaphore(AT_ONCE)

    async def add(self, application: ApplicationId, chat: int, piece: Sequence[tuple[int, int, Line]]) -> None:
        """Index some messages of a chat."""
        entries = [
            Entry("", application, chat, MessageChanged(number, number, line.sender, line.body, None, at))
            for number, at, line in piece
        ]
        await asyncio.gather(*(self._send(body) for _, body in bulk_pieces(entries)))

    async def _send(self, body: bytes) -> None:
        async with self._free, self._http.post(self._url, data=body) as answer:
            said = await answer.read()
            if said != b'{"errors":false}':
                raise Wrong(f"a bulk request was answered {answer.status} {said[:500]!r}")


@contextlib.asynccontextmanager
async def _filling(settings: Settings) -> AsyncIterator[_Filling]:
    """The place's index, made and eager to be filled; as it was made, and showing everything, at the end."""
    elasticsearch = Elasticsearch(settings.elasticsearch_url)
    alias = settings.elasticsearch_index
    try:
        await Indices(elasticsearch, alias).create()
        found = await elasticsearch.ask("GET", f"/{alias}/_settings", flat_settings=True)
        before = next(iter(found.values()))["settings"]
        await elasticsearch.ask("PUT", f"/{alias}/_settings", EAGER)
        async with aiohttp.ClientSession(headers={"content-type": "application/x-ndjson"}) as http:
            yield _Filling(http, f"{settings.elasticsearch_url}/{alias}/_bulk?filter_path=errors")
        as_it_was = {name: before.get(f"index.{name}") for name in EAGER}
        await elasticsearch.ask("PUT", f"/{alias}/_settings", as_it_was)
        for last in ("_flush", "_refresh"):
            await elasticsearch.ask("POST", f"/{alias}/{last}", timeout_s=600.0)
    finally:
        await elasticsearch.close()
