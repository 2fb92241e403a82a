"""Journal.read, acknowledge, set_aside, backlog and wait: what a projection lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from chat_system.model import ApplicationId, Message, MessageChanged, MessageNamed
from chat_system.ports import Entry, Projection
from tests.contract.houses import OpenHouse

Place = tuple[int, int]

SEARCH: Projection = "search"
MANY = 1_000
PATIENCE_S = 10.0


def places(entries: Sequence[Entry]) -> list[Place]:
    """Which messages the entries are about: chat and number."""
    return [(entry.chat, named(entry).number) for entry in entries]


def named(entry: Entry) -> MessageChanged | MessageNamed:
    """The message that the entry is about."""
    assert isinstance(entry.fact, MessageChanged | MessageNamed)
    return entry.fact


def check_states(entries: Sequence[Entry], stored: Sequence[Message]) -> None:
    """The last entry of each message has its latest state, or leaves it to the index to read it."""
    latest = {named(entry).number: named(entry) for entry in entries}
    assert list(latest) == [message.number for message in stored]
    for message in stored:
        state = latest[message.number]
        assert isinstance(state, MessageNamed) or state.shown() == message


async def drain(ports: OpenHouse, limit: int = MANY) -> list[Entry]:
    """Read, apply and acknowledge until there is nothing more; what was read."""
    seen: list[Entry] = []
    while entries := await ports.journal.read(SEARCH, limit):
        await ports.search.apply(entries)
        await ports.journal.acknowledge(SEARCH, entries)
        seen += entries
    return seen


async def test_what_was_posted_is_read_by_number(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """An entry says where its message stands, and shows it as the store does."""
    await ports.post(application, chat, "one")
    await ports.post(application, chat, "two", "three")
    entries = await ports.journal.read(SEARCH, MANY)
    assert places(entries) == [(chat, 1), (chat, 2), (chat, 3)]
    assert {entry.application for entry in entries} == {application}
    check_states(entries, await ports.all_messages(application, chat))
    assert len({entry.position for entry in entries}) == 3


async def test_the_messages_of_a_chat_come_by_number(ports: OpenHouse, application: ApplicationId) -> None:
    """In every read, whatever the order in which they changed and whatever other chats have to be read."""
    chats = [await ports.open_chat(application) for _ in range(3)]
    for chat in (chats[2], chats[0], chats[1], chats[0], chats[2]):
        await ports.post(application, chat, "one", "two")
    await drain(ports)
    for chat in chats:
        for number in (2, 1):
            await ports.edit(application, chat, number, f"edited {number}")
    await ports.delete(application, chats[2], 3)
    for limit in (MANY, 2, 1):
        read: list[Place] = []
        for _ in range(8):
            entries = places(await ports.journal.read(SEARCH, limit))
            for chat in chats:
                numbers = [number for at, number in entries if at == chat]
                assert numbers == sorted(numbers)
            read += entries
        assert set(read) == {(chat, number) for chat in chats for number in (1, 2)} | {(chats[2], 3)}


async def test_a_read_takes_as_many_as_it_is_asked_for(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """In pieces of any size all entries are read, each in the end acknowledged."""
    await ports.post(application, chat, *map(str, range(23)))
    for limit in (1, 2, 5):
        assert len(await ports.journal.read(SEARCH, limit)) == limit
    seen = await drain(ports, 4)
    assert sorted(set(places(seen))) == [(chat, number) for number in range(1, 24)]


async def test_a_read_waits_for_nothing(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """With nothing recorded, and with everything acknowledged, it is empty at once."""
    assert await ports.journal.read(SEARCH, MANY) == []
    await ports.post(application, chat, "one")
    await drain(ports)
    assert await ports.journal.read(SEARCH, MANY) == []


async def test_the_store_projection_ends_too(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """A house that applies to the store at once never has a backlog there; any other comes to its end."""
    await ports.post(application, chat, "one")
    await ports.settle()
    assert await ports.journal.read("store", MANY) == []
    backlog = await ports.journal.backlog("store")
    assert (backlog.entries, backlog.lag_s, backlog.set_aside) == (0, 0.0, 0)


async def test_what_was_not_acknowledged_is_read_again(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """A projection that read and then died loses nothing, in this life and the next."""
    await ports.post(application, chat, *map(str, range(10)))
    everything = {(chat, number) for number in range(1, 11)}
    for _ in range(2):
        for limit in (3, MANY):
            again: set[Place] = set()
            for _ in range(20):
                again |= set(places(await ports.journal.read(SEARCH, limit)))
            assert again == everything
        await ports.reopen()


async def test_what_was_acknowledged_is_not_read_again(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """The rest is; in the next life too."""
    await ports.post(application, chat, *map(str, range(6)))
    entries = await ports.journal.read(SEARCH, 4)
    await ports.search.apply(entries)
    await ports.journal.acknowledge(SEARCH, entries)
    await ports.reopen()
    assert places(await drain(ports)) == [(chat, 5), (chat, 6)]
    await ports.reopen()
    assert await ports.journal.read(SEARCH, MANY) == []


async def test_of_what_changed_several_times_the_latest_state_is_read(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Tombstones included; and that state is what the index has when it was applied."""
    await ports.post(application, chat, "one", "two", "three")
    for body in ("first edit", "second edit"):
        await ports.edit(application, chat, 1, body)
    await ports.delete(application, chat, 2)
    check_states(await ports.journal.read(SEARCH, MANY), await ports.all_messages(application, chat))
    await drain(ports)
    await ports.until_searchable()
    found = await ports.search.in_chat(application, chat, "e", before=None, limit=MANY)
    assert [(message.number, message.body) for message in found] == [(3, "three"), (1, "second edit")]


async def test_what_changed_since_it_was_read_is_not_forgotten(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """An edit and a deletion between read and acknowledge reach the index all the same."""
    await ports.post(application, chat, "apple one", "apple two", "apple three")
    entries = await ports.journal.read(SEARCH, MANY)
    await ports.edit(application, chat, 1, "banana one")
    await ports.delete(application, chat, 2)
    await ports.search.apply(entries)
    await ports.edit(application, chat, 3, "cherry three")
    await ports.journal.acknowledge(SEARCH, entries)
    await drain(ports)
    await ports.until_searchable()

    async def found(folded: str) -> list[int]:
        matches = await ports.search.in_chat(application, chat, folded, before=None, limit=10)
        return [message.number for message in matches]

    assert [await found(fruit) for fruit in ("apple", "banana", "cherry")] == [[], [1], [3]]


async def test_a_change_after_indexing_is_read(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Edited and deleted messages come back to the projection, untouched ones don't."""
    await ports.post(application, chat, "one", "two", "three")
    await drain(ports)
    await ports.edit(application, chat, 3, "edited")
    await ports.delete(application, chat, 1)
    assert sorted(places(await drain(ports))) == [(chat, 1), (chat, 3)]


async def test_what_is_recorded_while_the_projection_works_is_read_too(
    ports: OpenHouse, application: ApplicationId
) -> None:
    """Nobody starves: with others posting all the time, every entry is read and the end is reached."""
    chats = [await ports.open_chat(application) for _ in range(3)]
    seen: list[Place] = []
    for index in range(12):
        for chat in chats:
            await ports.post(application, chat, f"{index}")
        entries = await ports.journal.read(SEARCH, 2)
        await ports.search.apply(entries)
        await ports.journal.acknowledge(SEARCH, entries)
        seen += places(entries)
    seen += places(await drain(ports, 2))
    assert sorted(seen) == [(chat, number) for chat in chats for number in range(1, 13)]


async def test_what_was_set_aside_is_out_of_the_way(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """It is counted, never read again, and hinders no other; in the next life too."""
    await ports.post(application, chat, "one", "two", "three")
    entries = await ports.journal.read(SEARCH, MANY)
    await ports.journal.set_aside(SEARCH, entries[1], "it can't be applied")
    for _ in range(2):
        assert set(places(await ports.journal.read(SEARCH, MANY))) <= {(chat, 1), (chat, 3)}
        backlog = await ports.journal.backlog(SEARCH)
        assert (backlog.entries, backlog.set_aside) == (2, 1)
        await ports.reopen()
    assert sorted(places(await drain(ports))) == [(chat, 1), (chat, 3)]
    backlog = await ports.journal.backlog(SEARCH)
    assert (backlog.entries, backlog.lag_s, backlog.set_aside) == (0, 0.0, 1)


async def test_what_was_set_aside_is_listed_and_can_be_tried_again(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """With its place and its error; tried again it is read like any other, and applied."""
    await ports.post(application, chat, "apple one", "apple two")
    entries = await ports.journal.read(SEARCH, MANY)
    await ports.journal.set_aside(SEARCH, entries[1], "it can't be applied")
    await drain(ports)
    (aside,) = await ports.journal.asides()
    assert (aside.projection, aside.error) == (SEARCH, "it can't be applied")
    assert aside.about == f"application {application}, chat {chat}, message 2"
    assert await ports.journal.retry(SEARCH) == 1
    assert await ports.journal.asides() == []
    assert places(await drain(ports)) == [(chat, 2)]
    assert (await ports.journal.backlog(SEARCH)).set_aside == 0
    assert await ports.journal.retry(SEARCH) == 0


async def test_the_backlog_tells_how_much_and_how_old(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Entries are counted, the lag is the age of the oldest; a projection that is up to date has neither."""
    backlog = await ports.journal.backlog(SEARCH)
    assert (backlog.entries, backlog.lag_s, backlog.set_aside) == (0, 0.0, 0)
    await ports.post(application, chat, "one", "two")
    await asyncio.sleep(0.3)
    await ports.post(application, chat, "three")
    backlog = await ports.journal.backlog(SEARCH)
    assert backlog.entries == 3
    assert backlog.lag_s >= 0.29
    await drain(ports)
    assert (await ports.journal.backlog(SEARCH)).entries == 0
    assert (await ports.journal.backlog(SEARCH)).lag_s == 0.0


@pytest.mark.parametrize("what", ["post", "edit", "delete"])
async def test_whoever_waits_is_told_when_there_is_something_to_read(
    ports: OpenHouse, application: ApplicationId, chat: int, what: str
) -> None:
    """A wait that began with nothing to read returns after the next change."""
    await ports.post(application, chat, "one")
    await drain(ports)
    waiting = asyncio.create_task(ports.journal.wait(SEARCH))
    await asyncio.sleep(0)
    if what == "post":
        await ports.post(application, chat, "two")
    elif what == "edit":
        await ports.edit(application, chat, 1, "edited")
    else:
        await ports.delete(application, chat, 1)
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert len(await ports.journal.read(SEARCH, MANY)) == 1


async def test_whoever_waits_while_there_is_something_to_read_is_told_at_once(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Also right after opening, when what waits was recorded in an earlier life."""
    await ports.post(application, chat, "one")
    await asyncio.wait_for(ports.journal.wait(SEARCH), PATIENCE_S)
    await ports.reopen()
    await asyncio.wait_for(ports.journal.wait(SEARCH), PATIENCE_S)
