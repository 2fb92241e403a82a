"""What the store tells the journal when something is cold: epochs, counters, keys."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from chat_system.model import TOKEN_CHARACTERS, ApplicationId, ChatCounted, Once
from chat_system.stack.epochs import Epochs
from chat_system.stack.mysql import Database
from chat_system.stack.store import StackStore
from chat_system.stack.tail import ChatSeed
from tests.contract.stack.facts import (
    CREATED,
    UNKNOWN,
    deleted,
    entries,
    now_ms,
    opened,
    posted,
    used,
)
from tests.contract.stack.surroundings import Surroundings
from tests.eventually import eventually
from tests.servers.process import free_port


async def begin_epoch(store: StackStore, partition: int = 0) -> int:
    """Begin an epoch that nobody else has begun."""

    async def known() -> int:
        return 0

    async def begin(epoch: int, _has_receipts: bool) -> int:
        return epoch

    return await store.begin_epoch(partition, known, begin)


class NewRedis:
    """Redis as `Epochs` asks it, that knows of no epoch; what it was told of each that began."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, bool]] = []

    async def call(self, _script: object, calls: Any) -> list[int]:
        ((_partition, (_beginner, epoch, knows_all)),) = calls
        if epoch:
            self.begun.append((epoch, bool(knows_all)))
        return [epoch]


@pytest.fixture
async def line(database: Database) -> AsyncIterator[Database]:
    """The same database over one connection."""
    line = Database(database.address, 1)
    yield line
    await line.close()


@pytest.fixture
def crowded(line: Database, around: Surroundings) -> StackStore:
    """A store that has one connection."""
    tail: Any = None
    return StackStore(line, tail, around.erased)


async def waiting_statements(database: Database) -> int:
    """How many transactions wait for a lock that another holds."""
    # The server renews this table only when nobody has read it for a tenth of a second.
    await asyncio.sleep(0.2)
    return len(await database.fetch("SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"))


async def test_facts_of_an_epoch_that_is_over_are_dropped(store: StackStore, application: ApplicationId) -> None:
    """Their numbers may have been given again; those of the epoch that began are applied."""
    assert [await begin_epoch(store, partition) for partition in (0, 0, 1, 0)] == [1, 2, 1, 3]
    await store.apply([*entries(application, posted(1, "old"), epoch=2), *entries(application, posted(2), epoch=3)])
    assert await store.stored_message(application, 1, 1) is None
    assert await store.stored_message(application, 1, 2) == posted(2)


@pytest.mark.parametrize("begun", [False, True])
async def test_an_epoch_begins_after_what_is_being_applied(
    store: StackStore, database: Database, application: ApplicationId, begun: bool
) -> None:
    """Whoever raised it sees all that the epoch before left, also when it is the first."""
    if begun:
        await begin_epoch(store)
    async with database.transaction() as other:
        # An apply can't end while another holds the row of its application's chat.
        await other.execute("INSERT INTO chats (application_id, number) VALUES (%s, 1)", (application,))
        applying = asyncio.create_task(store.apply(entries(application, opened(), posted(1), epoch=int(begun))))
        await eventually(lambda: waiting_statements(database), 1)
        beginning = asyncio.create_task(begin_epoch(store))
        await eventually(lambda: waiting_statements(database), 2)
        assert not applying.done()
        assert not beginning.done()
    assert await beginning == int(begun) + 1
    assert await store.stored_message(application, 1, 1) == posted(1)
    await applying


@pytest.mark.parametrize("is_used", [False, True])
async def test_more_epochs_begin_at_once_than_there_are_connections(
    store: StackStore, crowded: StackStore, application: ApplicationId, is_used: bool
) -> None:
    """Each needs the one connection that it holds: else they would wait for each other, and reads for them."""
    # Keys that created applications are none of Redis' business.
    await store.create_application("t" * TOKEN_CHARACTERS, "Name", once=Once.of("/applications", "key", b"payload"))
    if is_used:
        await store.apply(entries(application, used("kept", 1, now_ms())))
    redis: Any = NewRedis()
    epochs = Epochs(redis)
    epochs.connect(crowded)
    assert await asyncio.gather(*map(epochs.begin, range(3))) == [1, 1, 1]
    # When none is kept elsewhere, Redis knows them all.
    assert redis.begun == [(1, not is_used)] * 3


async def test_a_beginning_that_fails_after_everyone_has_left_is_no_news(database: Database, store: StackStore) -> None:
    """Whoever had waited for it is gone; the log does not get a traceback in their place."""
    database.address = replace(database.address, port=free_port())
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    redis: Any = NewRedis()
    epochs = Epochs(redis)
    epochs.connect(store)
    await database.close()
    waiting = asyncio.create_task(epochs.begin(0))
    await asyncio.sleep(0)
    waiting.cancel()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert len(left) == 2
    await asyncio.wait(left)
    del left, waiting
    gc.collect()
    assert told == []


async def test_a_chat_is_counted_when_its_count_was_lost(store: StackStore, application: ApplicationId) -> None:
    """A count of an earlier revision than the messages' latest says nothing any more."""
    await store.apply(entries(application, opened(), posted(1), posted(2), ChatCounted(2, 2)))
    await store.apply(entries(application, posted(3), posted(4), deleted(2, 5)))
    assert await store.chat_seed(application, 1) == ChatSeed(4, 5, 3, 1)
    assert await store.chat_seed(application, 2) is None


async def test_a_number_that_any_row_bears_was_given(store: StackStore, application: ApplicationId) -> None:
    """Even when only a message of the chat survived: no later chat takes its number."""
    assert await store.last_chat(application) == 0
    await store.apply(entries(application, posted(1), chat=3))
    assert await store.last_chat(application) == 3
    await store.apply(entries(application, opened(), chat=5))
    assert await store.last_chat(application) == 5
    assert await store.last_chat(UNKNOWN) is None
    await store.erase_application(application)
    assert await store.last_chat(application) is None
    assert await store.chat_seed(application, 5) is None


async def test_the_first_use_of_a_key_counts_until_it_expires(store: StackStore, application: ApplicationId) -> None:
    """A later use of a key that is kept changes nothing, one of an expired key replaces it; expired are not told."""
    now = now_ms()
    first, second = used("kept", 1, now), used("kept", 2, now + 1)
    expired, anew = used("expired", 3, now - 7_200_000), used("expired", 4, now)
    forever, old = used("forever", 5, CREATED, None), used("old", 6, now - 7_200_000)
    for fact in (first, second, expired, anew, forever, used("forever", 7, now), old):
        await store.apply(entries(application, fact))
    wanted_keys = [(application, fact.once.key) for fact in (first, anew, forever, old)]
    kept = await store.receipts([*wanted_keys, (UNKNOWN, first.once.key), (application, b"\0" * 16)])
    assert kept == dict(zip(wanted_keys[:3], (first, anew, forever), strict=True))
    assert await store.receipts([]) == {}


async def test_keys_are_looked_up_unprepared(crowded: StackStore, line: Database, application: ApplicationId) -> None:
    """No two lookups read alike: prepared, each would be for one use, and displace a query that comes again."""

    async def prepared() -> int:
        return int((await line.fetch("SHOW SESSION STATUS LIKE 'Com_stmt_prepare'"))[0][1])

    before = await prepared()
    for number in range(3):
        assert await crowded.receipts([(application, number.to_bytes(16))]) == {}
    assert await prepared() == before
