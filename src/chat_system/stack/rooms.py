"""The rooms of the stack house, made and connected in the order in which they need each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial

from chat_system.errors import Unavailable
from chat_system.ports import Discrepancy, Projection, SetAside, Source
from chat_system.settings import Settings
from chat_system.stack.asides import discard
from chat_system.stack.comparing import compare_counters, compare_index
from chat_system.stack.consuming import Following
from chat_system.stack.elasticsearch import Elasticsearch
from chat_system.stack.epochs import Epochs
from chat_system.stack.feed import STREAMS, WORKERS, StackFeed
from chat_system.stack.journal import StackJournal
from chat_system.stack.mysql import Database
from chat_system.stack.rates import StackRates
from chat_system.stack.redis import Redis
from chat_system.stack.reindex import Reindex
from chat_system.stack.search import StackSearch
from chat_system.stack.store import StackStore
from chat_system.stack.tail import Tail

CANCEL_AGAIN_S = 0.2
INSIST_EVERY_S = 1.0
LISTEN_WAIT_S = 5.0
"""How long a process that starts waits until it hears what others announce."""


@dataclass
class Rooms:
    """What the house is made of; `where` names its servers, for people."""

    redis: Redis
    journal: StackJournal
    store: StackStore
    search: StackSearch
    feed: StackFeed
    rates: StackRates
    where: str

    def lanes(self, projection: Projection, count: int) -> Sequence[Source]:
        """As many sources of a projection's entries. See `lanes`."""
        return [self.journal if index == 0 else self.journal.another_lane(projection) for index in range(count)]

    async def discard(self, position: str) -> Sequence[SetAside]:
        """See `asides.discard`."""
        return await discard(self.redis, position)

    async def compare_counters(self) -> Sequence[Discrepancy]:
        """See `comparing`."""
        return await compare_counters(self.redis, self.store)

    async def compare_index(self) -> Sequence[Discrepancy]:
        """See `comparing`."""
        return await compare_index(self.journal, self.store, self.search)

    async def reindex(
        self, progress: Callable[[int, int], None], *, shards: int | None, discard: bool
    ) -> tuple[str, int]:
        """See `wiring.Reindexing`."""
        reindex = Reindex(self.search, self.store, partial(Following.begin, self.redis), progress)
        done = await reindex.run(shards=shards, discard=discard)
        return done.index, done.copied + done.followed


@contextlib.asynccontextmanager
async def open_rooms(settings: Settings, *, working: bool) -> AsyncIterator[Rooms]:
    """The rooms, open until the context ends. `working`: the projections will run here.

    Raises:
        ConfigurationError: a setting does not fit, or is not what it was at the first start.
        Unavailable: MySQL is away.
    """
    async with contextlib.AsyncExitStack() as closing:
        database = await Database.open(settings.mysql_url)
        closing.push_async_callback(database.close)
        redis = Redis(settings.redis_url, settings.redis_prefix, settings.partitions)
        closing.push_async_callback(redis.close)
        elasticsearch = Elasticsearch(settings.elasticsearch_url)
        closing.push_async_callback(elasticsearch.close)

        epochs = Epochs(redis)
        tail = Tail(redis, epochs.renewed)
        journal = StackJournal(redis, tail, epochs, settings.redis_memory_mb)
        feed = StackFeed(redis, WORKERS if working else STREAMS)
        store = StackStore(database, tail, journal.erased)
        search = StackSearch(elasticsearch, settings.elasticsearch_index, store.require, store.require_chat)
        epochs.connect(store)
        journal.connect(store)
        store.forget = journal.forget
        store.erase_index = search.erase
        feed.on_any(journal.wake)

        await store.fix("partitions", str(settings.partitions))
        closing.push_async_callback(journal.close)
        background = [feed.run(), journal.run()]
        if working:
            # Ahead of the first message, which would find a server that is busy making it.
            background.append(_insist(search.create))
        await closing.enter_async_context(_running(*background))
        with contextlib.suppress(TimeoutError):
            # Without Redis nothing can be served; but who starts before it shall find it when it comes.
            await asyncio.wait_for(feed.listening.wait(), LISTEN_WAIT_S)
        where = f"{database.address}, {redis.where}, {settings.elasticsearch_index}"
        yield Rooms(redis, journal, store, search, feed, StackRates(redis), where)


@contextlib.asynccontextmanager
async def _running(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs in the background while the context is open."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            # Again and again: a client that was just reading may have taken it for its own time-out.
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


async def _insist(attempt: Callable[[], Awaitable[None]]) -> None:
    """Try until what it needs is there."""
    while True:
        with contextlib.suppress(Unavailable):
            return await attempt()
        await asyncio.sleep(INSIST_EVERY_S)
