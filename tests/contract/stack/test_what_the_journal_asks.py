"""What the store tells the journal when something is cold: epochs, counters, keys."""

from __future__ import annotations

import asyncio

import pytest

from chat_system.model import ApplicationId, ChatCounted
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
from tests.eventually import eventually


async def begin_epoch(store: StackStore, partition: int = 0) -> int:
    """Begin an epoch that nobody else has begun."""

    async def known() -> int:
        return 0

    async def begin(epoch: int) -> int:
        return epoch

    return await store.begin_epoch(partition, known, begin)


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
    assert not await store.has_receipts()
    first, second = used("kept", 1, now), used("kept", 2, now + 1)
    expired, anew = used("expired", 3, now - 7_200_000), used("expired", 4, now)
    forever, old = used("forever", 5, CREATED, None), used("old", 6, now - 7_200_000)
    for fact in (first, second, expired, anew, forever, used("forever", 7, now), old):
        await store.apply(entries(application, fact))
    assert await store.has_receipts()
    wanted_keys = [(application, fact.once.key) for fact in (first, anew, forever, old)]
    kept = await store.receipts([*wanted_keys, (UNKNOWN, first.once.key), (application, b"\0" * 16)])
    assert kept == dict(zip(wanted_keys[:3], (first, anew, forever), strict=True))
    assert await store.receipts([]) == {}
