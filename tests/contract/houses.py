"""The houses under the conformance suite, opened in this process as `wiring` opens them.

A house that is added to OPENERS joins every test of this folder but those of one house's own tables
(test_embedded_*.py, test_stack_*.py). An opener gets an empty folder or one that it has used before: opening it again
must find everything that was there.

No projection runs by itself here. What the ports promise must hold without one; a test that is about what projections
bring (counts, the rows themselves, the index of a house whose search lags) says `settle()` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chat_system.embedded.database import Database, migrate_file
from chat_system.embedded.feed import EmbeddedFeed
from chat_system.embedded.journal import EmbeddedJournal
from chat_system.embedded.search import EmbeddedSearch
from chat_system.embedded.store import EmbeddedStore
from chat_system.model import (
    ApplicationId,
    DeleteMessage,
    EditMessage,
    Message,
    NewChat,
    NewMessage,
    Once,
    OpenChat,
    PostMessages,
    Receipt,
    Window,
)
from chat_system.ports import Feed, Journal, Projection, SearchIndex, Store
from chat_system.projector import Projector
from chat_system.wiring import open_house
from tests.servers.shared import wanted
from tests.stack_place import stack_place

TOKEN_CHARACTERS = 43
SQLITE_FILE = "chat.sqlite3"
CLOSE_TIMEOUT_S = 15.0
SETTLING_BATCH = 2_000


@dataclass
class Ports:
    """The four ports of an open house."""

    journal: Journal
    store: Store
    search: SearchIndex
    feed: Feed
    projections: Sequence[Projection] = field(default=("search",), kw_only=True)
    """Those that have something to do."""

    refresh: Callable[[], Awaitable[None]] | None = field(default=None, kw_only=True)
    """What makes the index show all that was applied to it; None where it always does."""


@dataclass
class EmbeddedPorts(Ports):
    """The same of the embedded house, with the database below, for the tests of its tables and failures."""

    database: Database


Opener = Callable[[Path], AbstractAsyncContextManager[Ports]]


@asynccontextmanager
async def open_embedded(folder: Path) -> AsyncIterator[EmbeddedPorts]:
    """One process and one SQLite file, which starts as a copy of one that was migrated once."""
    path = folder / SQLITE_FILE
    if not path.exists():
        path.write_bytes(_migrated_file())
    database = await Database.open(path)
    try:
        feed = EmbeddedFeed()
        journal = EmbeddedJournal(database, feed.announce)
        store = EmbeddedStore(database, journal.forget, feed.announce_erased)
        search = EmbeddedSearch(database, store.require, store.chat_id)
        yield EmbeddedPorts(journal, store, search, feed, database)
    finally:
        await database.close()


@cache
def _migrated_file() -> bytes:
    # Alembic takes a tenth of a second, which a hundred tests would pay.
    with TemporaryDirectory() as folder:
        path = Path(folder) / SQLITE_FILE
        migrate_file(path)
        return path.read_bytes()


@asynccontextmanager
async def open_stack(folder: Path, redis_url: str | None = None) -> AsyncIterator[Ports]:
    """MySQL, Redis and Elasticsearch, without a worker."""
    settings = await asyncio.to_thread(lambda: stack_place().settings(folder, redis_url))
    async with open_house(settings) as house:
        search: Any = house.search
        await search.create()
        four = house.journal, house.store, house.search, house.feed
        yield Ports(*four, projections=("store", "search"), refresh=search.refresh)


OPENERS: dict[str, Opener] = {"embedded": open_embedded}
if wanted():
    OPENERS["stack"] = open_stack

CLUSTER = "stack-cluster"
"""The stack house on a Redis Cluster, for the suites that are about Redis."""


class OpenHouse:
    """An open house, and short words for what most tests do with it."""

    def __init__(self, opener: Opener, folder: Path) -> None:
        self._opener = opener
        self._folder = folder
        self._open = AsyncExitStack()
        self._applications = 0
        self.ports: Ports

    async def open(self) -> None:
        """Open it over its folder."""
        self.ports = await self._open.enter_async_context(self._opener(self._folder))

    async def close(self) -> None:
        """Close it in order; one that has stopped answering fails the test rather than the whole run."""
        await asyncio.wait_for(self._open.aclose(), CLOSE_TIMEOUT_S)

    async def reopen(self) -> None:
        """Close it in order and open it again: nothing that lived in memory is left."""
        await self.close()
        await self.open()

    @property
    def journal(self) -> Journal:
        """The journal of the open house."""
        return self.ports.journal

    @property
    def store(self) -> Store:
        """The store of the open house."""
        return self.ports.store

    @property
    def search(self) -> SearchIndex:
        """The search index of the open house."""
        return self.ports.search

    @property
    def feed(self) -> Feed:
        """The feed of the open house."""
        return self.ports.feed

    def projector(self, batch: int = 200, projection: Projection = "search") -> Projector:
        """A projector, as the wiring makes one."""
        apply = self.search.apply if projection == "search" else self.store.apply  # type: ignore[attr-defined]
        return Projector(projection, self.journal, apply, batch=batch)

    async def settle(self) -> None:
        """Apply all that was accepted, to the store and to the index, as workers would by and by."""
        for projection in self.ports.projections:
            await self.projector(SETTLING_BATCH, projection).drain()
        if self.ports.refresh is not None:
            await self.ports.refresh()

    async def until_searchable(self) -> None:
        """The same in a house whose search lags, so that it finds all that was accepted; in any other, nothing."""
        if self.ports.refresh is not None:
            await self.settle()

    async def new_application(self) -> ApplicationId:
        """A fresh application."""
        self._applications += 1
        token = f"{self._applications:0{TOKEN_CHARACTERS}d}"
        await self.store.create_application(token, f"Application {self._applications}")
        application = await self.store.resolve(token)
        assert application is not None
        return application

    async def open_chat(self, application: ApplicationId, *, once: Once | None = None) -> int:
        """Open the application's next chat; its number."""
        return (await self.journal.append(application, OpenChat(NewChat()), once=once)).number

    async def new_chat(self) -> tuple[ApplicationId, int]:
        """A fresh chat in a fresh application."""
        application = await self.new_application()
        return application, await self.open_chat(application)

    async def post(self, application: ApplicationId, chat: int, *bodies: str, once: Once | None = None) -> Receipt:
        """Post one message, or several as a batch."""
        change = PostMessages(chat, [NewMessage(body) for body in bodies])
        return await self.journal.append(application, change, once=once)

    async def edit(self, application: ApplicationId, chat: int, number: int, body: str) -> Receipt:
        """Replace a message's body, based on its latest state."""
        revision = (await self.store.message(application, chat, number)).revision
        return await self.journal.append(application, EditMessage(chat, number, revision, body, None))

    async def delete(self, application: ApplicationId, chat: int, number: int) -> Receipt:
        """Leave a tombstone."""
        return await self.journal.append(application, DeleteMessage(chat, number))

    async def all_messages(self, application: ApplicationId, chat: int) -> list[Message]:
        """Every message of a chat in its latest state, by number."""
        found: list[Message] = []
        while page := await self.store.messages(
            application, chat, Window(limit=200, after=found[-1].number if found else 0)
        ):
            found += page
        return found

    async def bodies(self, application: ApplicationId, chat: int) -> list[str | None]:
        """The bodies of a chat by number, None for tombstones; the numbers must have no gap."""
        messages = await self.all_messages(application, chat)
        assert [message.number for message in messages] == list(range(1, len(messages) + 1))
        return [message.body for message in messages]
