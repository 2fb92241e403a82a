"""Comparing the servers: what Redis counts and what Elasticsearch holds against what MySQL stores.

All three may be written to meanwhile, so what differs is looked at again before it is reported, and a difference
that a backlog explains is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from chat_system.model import ApplicationId
from chat_system.ports import Discrepancy
from chat_system.stack.documents import LOOKS, PAUSE_S, compare_documents
from chat_system.stack.facts import COUNTERS
from chat_system.stack.journal import StackJournal
from chat_system.stack.redis import Redis
from chat_system.stack.search import StackSearch
from chat_system.stack.store import StackStore

KEYS_PER_SCAN = 1000


async def compare_counters(redis: Redis, store: StackStore) -> Sequence[Discrepancy]:
    """Chats whose counters in Redis are not what MySQL holds, though nothing of them is unapplied."""
    wrong = []
    async for application, chat in _warm_chats(redis):
        found = await _differing_counters(redis, store, application, chat)
        for _ in range(LOOKS - 1):
            if found is None:
                break
            await asyncio.sleep(PAUSE_S)
            found = await _differing_counters(redis, store, application, chat)
        if found is not None:
            wrong.append(Discrepancy(f"application {application}, chat {chat}", found))
    return wrong


async def compare_index(journal: StackJournal, store: StackStore, search: StackSearch) -> Sequence[Discrepancy]:
    """Applications of which Elasticsearch does not hold as many messages as MySQL, or other states of them."""
    await search.refresh()
    wrong = []
    async for application in store.application_ids():
        found = await _differing_count(journal, store, search, application)
        for _ in range(LOOKS - 1):
            if found is None:
                break
            await asyncio.sleep(PAUSE_S)
            await search.refresh()
            found = await _differing_count(journal, store, search, application)
        if found is not None:
            wrong.append(Discrepancy(f"application {application}", found))
        else:
            wrong += await compare_documents(store, search, application, partial(_backlog, journal))
    return wrong


async def _differing_count(
    journal: StackJournal, store: StackStore, search: StackSearch, application: ApplicationId
) -> str | None:
    stored, indexed = await store.count_messages(application), await search.count(application)
    if abs(stored - indexed) <= await _backlog(journal):
        return None
    return f"the search index holds {indexed} messages, MySQL {stored}"


async def _backlog(journal: StackJournal) -> int:
    behind = [await journal.backlog(projection) for projection in ("store", "search")]
    return sum(one.entries + one.set_aside for one in behind)


async def _differing_counters(redis: Redis, store: StackStore, application: ApplicationId, chat: int) -> str | None:
    """What differs, as a sentence; None when nothing does, or when the tail explains it."""
    partition, name = redis.partition(application), f"{application}:{chat}"
    seed = await store.chat_seed(application, chat)
    counters, waiting = await redis.commands(
        [
            ("GET", redis.key(partition, f"c:{name}")),
            ("EXISTS", redis.key(partition, f"r:{name}"), redis.key(partition, f"t:{name}")),
        ]
    )
    if waiting or counters is None:
        return None
    counted = COUNTERS.unpack(counters)[:3]
    if seed is None:
        # Not applied yet, or erased a moment ago.
        unapplied = await redis.command("HEXISTS", redis.key(partition, f"ct:{application}"), chat)
        erased = await store.last_chat(application) is None
        return None if unapplied or erased else "Redis counts its messages, and MySQL does not have it"
    stored = (seed.last, seed.revision, seed.messages_count)
    if counted == stored:
        return None
    return (
        f"Redis has given number {counted[0]}, revision {counted[1]} and counts {counted[2]} messages; MySQL {stored}"
    )


async def _warm_chats(redis: Redis) -> AsyncIterator[tuple[ApplicationId, int]]:
    for partition in range(redis.partitions):
        prefix = redis.key(partition, "c:")
        async for key in redis.keys(partition, "c:*", KEYS_PER_SCAN):
            application, _, chat = key[len(prefix) :].decode().partition(":")
            yield ApplicationId(int(application)), int(chat)
