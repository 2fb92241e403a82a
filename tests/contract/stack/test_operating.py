"""Applications as they stand in MySQL, and what operators do: sweep, verify, recount, reading all rows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chat_system.errors import ConfigurationError, NotFound, Unavailable
from chat_system.model import ApplicationId, ChatCounted, MessageChanged, Once
from chat_system.ports import ApplicationWindow, Discrepancy
from chat_system.stack import store as module
from chat_system.stack.mysql import Database
from chat_system.stack.store import StackStore
from tests.contract.stack.facts import (
    CREATED,
    TOKEN_CHARACTERS,
    UNKNOWN,
    contents,
    create,
    deleted,
    entries,
    now_ms,
    opened,
    posted,
    used,
)
from tests.contract.stack.surroundings import Surroundings
from tests.servers.process import free_port

HOUR_MS = 3_600_000


async def test_of_simultaneous_creations_with_one_key_one_creates(store: StackStore, database: Database) -> None:
    """The others are given the same application."""
    once = Once.of("/applications", "key", b"payload")
    answers = await asyncio.gather(
        *(store.create_application(f"{index:0{TOKEN_CHARACTERS}d}", "Name", once=once) for index in range(8))
    )
    assert len({application.token for application, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert len(await store.applications(ApplicationWindow(10))) == 1


async def test_a_token_still_opens_while_mysql_is_away(
    store: StackStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked before is remembered for as long as it takes; what is unknown is Unavailable."""
    monkeypatch.setattr(module, "TOKEN_KEPT_S", 0.0)
    application = await create(store, "a")
    token, other = (text.ljust(TOKEN_CHARACTERS, "x") for text in "ab")
    assert await store.resolve(token) == application
    await database.close()
    address, database.address = database.address, replace(database.address, port=free_port())
    assert await store.resolve(token) == application
    with pytest.raises(Unavailable):
        await store.resolve(other)
    database.address = address
    assert await store.resolve(other) is None
    await database.fetch("UPDATE applications SET erased_at = 1")
    assert await store.resolve(token) is None


async def test_erasing_again_closes_the_application_again(
    store: StackStore, application: ApplicationId, around: Surroundings
) -> None:
    """Whoever marked it first may have been stopped before others were told."""
    await store.erase_application(application)
    with pytest.raises(NotFound):
        await store.erase_application(application)
    assert around.told == [("erased", application)] * 2
    with pytest.raises(NotFound):
        await store.erase_application(UNKNOWN)


async def test_a_setting_stays_as_it_was_first(store: StackStore) -> None:
    """The same value passes, another is refused by name."""
    await asyncio.gather(*(store.fix("partitions", "8") for _ in range(4)))
    with pytest.raises(ConfigurationError, match="partitions is 9, and was 8"):
        await store.fix("partitions", "9")


async def test_an_erased_application_is_removed_in_pieces_its_row_an_hour_later(
    store: StackStore, database: Database, application: ApplicationId, around: Surroundings
) -> None:
    """It leaves the index first; what arrives late goes, too; while the row only waits, nothing is left to do."""
    await store.apply(entries(application, opened(), *(posted(number) for number in range(1, 4_100))))
    await store.apply(entries(application, used("key", 1, CREATED, None)))
    await store.erase_application(application)
    around.told.clear()
    assert await store.sweep()
    assert around.told == [("erased", application), ("index", application)]
    while await store.sweep():
        pass
    assert (await contents(database))[:3] == [[], [], []]
    await database.fetch("INSERT INTO chats (application_id, number) VALUES (%s, 1)", (application,))
    assert await store.sweep()
    assert not await store.sweep()
    assert len(await database.fetch("SELECT 1 FROM applications")) == 1
    await database.fetch("UPDATE applications SET erased_at = erased_at - %s", (HOUR_MS + 1,))
    assert not await store.sweep()
    assert await database.fetch("SELECT 1 FROM applications") == []
    assert around.told[2:] == [("index", application)]


async def test_expired_keys_are_removed(store: StackStore, database: Database, application: ApplicationId) -> None:
    """Those that are kept, for a while or for ever, stay."""
    now = now_ms()
    await store.apply(entries(application, used("a", 1, now), used("b", 2, CREATED), used("c", 3, CREATED, None)))
    while await store.sweep():
        pass
    assert await database.fetch("SELECT number FROM receipts ORDER BY number") == [(1,), (3,)]


async def test_verify_names_all_that_is_wrong(
    store: StackStore, database: Database, application: ApplicationId
) -> None:
    """Nothing where all is well; else a sentence for each fault, at its place."""
    for chat in (1, 2, 3, 4):
        await store.apply(entries(application, opened(), *map(posted, (1, 2, 3)), ChatCounted(3, 3), chat=chat))
    assert await store.verify() == []
    for statement in (
        "UPDATE applications SET chats_count = 9",
        "UPDATE chats SET messages_count = 7 WHERE number = 1",
        "DELETE FROM messages WHERE chat_number = 2 AND number = 2",
        "UPDATE messages SET revision = 3 WHERE chat_number = 3 AND number = 1",
        "UPDATE chats SET revision = 5 WHERE number = 4",
        "UPDATE messages SET chat_number = 7 WHERE chat_number = 4 AND number = 3",
    ):
        await database.fetch(statement)
    where = f"application {application}"
    assert await store.verify() == [
        Discrepancy(where, "chats_count is 9, there are 4"),
        Discrepancy(f"{where}, chat 1", "messages_count is 7, there are 3"),
        Discrepancy(f"{where}, chat 2", "messages_count is 3, there are 2"),
        Discrepancy(f"{where}, chat 2", "messages are numbered from 1 to 3, there are 2"),
        Discrepancy(f"{where}, chat 3", "3 messages have 2 different revisions"),
        Discrepancy(f"{where}, chat 4", "messages_count is 3, there are 2"),
        Discrepancy(f"{where}, chat 4", "revision is 5, the latest message has 2"),
        Discrepancy(f"{where}, chat 7", "1 messages stand in no chat"),
    ]


async def test_recount_mends_counts_and_has_the_journal_forget_them(
    store: StackStore, database: Database, application: ApplicationId, around: Surroundings
) -> None:
    """It tells what was wrong, and leaves alone a chat of which something is still on its way."""
    for chat in (1, 2, 3):
        await store.apply(entries(application, opened(), posted(1), posted(2), ChatCounted(2, 2), chat=chat))
    await database.fetch("UPDATE applications SET chats_count = 5")
    await database.fetch("UPDATE chats SET messages_count = 9 WHERE number = 2")
    await store.apply(entries(application, ChatCounted(3, 3), chat=3))
    where = f"application {application}"
    assert await store.recount() == [
        Discrepancy(where, "chats_count is 5, there are 3"),
        Discrepancy(f"{where}, chat 2", "messages_count is 9, there are 2"),
    ]
    assert around.told == [("forget", (application, 2))]
    await store.apply(entries(application, posted(3), chat=3))
    assert await store.verify() == []
    assert await store.recount() == []


async def test_rows_are_all_messages_in_chunks_of_bounded_size(
    store: StackStore, application: ApplicationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By chat and number, tombstones included, none of another application; long messages come in shorter chunks."""
    monkeypatch.setattr(module, "ROWS_MAX", 50)
    monkeypatch.setattr(module, "ROWS_BYTES", 10_000)
    other = await create(store, "other")
    await store.apply(entries(other, opened(), posted(1)))
    facts: list[tuple[int, MessageChanged]] = []
    for chat, body in ((1, "short"), (2, "short"), (5, "long " * 200), (7, "short")):
        states = [*(posted(number, body) for number in range(1, 100)), deleted(100, 101)]
        facts += [(chat, state) for state in states]
        await store.apply(entries(application, *states, chat=chat))
    chunks = [chunk async for chunk in store.rows(application)]
    assert [row for chunk in chunks for row in chunk] == facts
    assert max(map(len, chunks)) == 50
    # Once long ones were seen, a chunk is as long as it should be, more or less.
    long = [chunk for chunk in chunks if all(chat == 5 for chat, _ in chunk)]
    assert len(long) >= 5
    assert max(map(len, long[1:])) <= 11
    assert await store.count_messages(application) == len(facts)
    assert [number async for number in store.application_ids()] == [application, other]
