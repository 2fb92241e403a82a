"""Store: pages, changes, single reads, and what they answer for what is not there."""

from __future__ import annotations

import itertools

import pytest

from chat_system.errors import NotFound
from chat_system.model import NUMBER_MAX, ApplicationId, Window
from tests.contract.houses import OpenHouse

UNKNOWN = ApplicationId(987_654_321)
ITEMS = 7
BOUNDS = (1, 2, 4, 7, 8, 9, NUMBER_MAX, NUMBER_MAX + 1, 2**32, 2**32 + 5, 2**63 - 1)
WINDOWS = [
    Window(limit, after, before, from_end, descending)
    for limit, after, before, from_end, descending in itertools.product(
        (1, 3, ITEMS, 200), (0, *BOUNDS), (None, *BOUNDS), (False, True), (False, True)
    )
]


def expected(window: Window, last: int) -> list[int]:
    """What a page of 1 to last holds, by the words of `Window`."""
    inside = [n for n in range(1, last + 1) if window.after < n < (window.before or last + 1)]
    if window.before is not None and window.before < 1:
        inside = []
    page = inside[-window.limit :] if window.from_end else inside[: window.limit]
    return page[::-1] if window.descending else page


async def test_every_page_of_messages_is_what_its_window_says(ports: OpenHouse) -> None:
    """For all bounds, sizes, ends and orders, with neighbours on both sides, tombstones included."""
    application = await ports.new_application()
    chats = [await ports.open_chat(application) for _ in range(3)]
    for chat in chats:
        await ports.post(application, chat, *map(str, range(ITEMS)))
    await ports.delete(application, chats[1], 4)
    for window in WINDOWS:
        page = await ports.store.messages(application, chats[1], window)
        assert [message.number for message in page] == expected(window, ITEMS), window


async def test_every_page_of_chats_is_what_its_window_says(ports: OpenHouse) -> None:
    """The same of chats, with applications on both sides; pages by their number too."""
    applications = [await ports.new_application() for _ in range(3)]
    for application in applications:
        for _ in range(ITEMS):
            await ports.open_chat(application)
    for window in WINDOWS:
        page = await ports.store.chats(applications[1], window)
        assert [chat.number for chat in page] == expected(window, ITEMS), window
    for limit, skip in itertools.product((1, 3, 200), (0, 1, 3, 6, 7, 8, 2**40)):
        page = await ports.store.chats(applications[1], Window(limit, skip=skip))
        assert [chat.number for chat in page] == list(range(1, ITEMS + 1))[skip : skip + limit]


async def test_changes_are_each_message_once_by_its_last_revision(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """After any revision: what changed since, in its latest state; never what stands in another chat."""
    other = await ports.open_chat(application)
    await ports.post(application, other, "elsewhere")
    await ports.post(application, chat, "one", "two", "three")
    await ports.edit(application, chat, 1, "ONE")
    await ports.delete(application, chat, 2)
    await ports.edit(application, chat, 1, "ONE!")
    messages = {message.number: message for message in await ports.all_messages(application, chat)}
    latest = [messages[3], messages[2], messages[1]]
    assert [message.revision for message in latest] == [3, 5, 6]
    for after in (0, 1, 2, 3, 4, 5, 6, 7, 2**62):
        wanted = [message for message in latest if message.revision > after]
        assert await ports.store.changes(application, chat, after, 10) == wanted
        assert await ports.store.changes(application, chat, after, 1) == wanted[:1]


async def test_what_is_unknown_or_another_applications_is_not_found(ports: OpenHouse) -> None:
    """Every read of a chat or message says NotFound, alike for both."""
    application, chat = await ports.new_chat()
    await ports.post(application, chat, "mine")
    other = await ports.new_application()
    store = ports.store
    for owner, number in ((other, chat), (application, 2), (application, NUMBER_MAX + 1), (UNKNOWN, chat)):
        for read in (
            store.chat(owner, number),
            store.message(owner, number, 1),
            store.messages(owner, number, Window()),
            store.changes(owner, number, 0, 10),
            store.revision(owner, number),
            ports.search.in_chat(owner, number, "mine", before=None, limit=10),
        ):
            with pytest.raises(NotFound):
                await read


async def test_a_message_number_beyond_the_last_is_not_found(ports: OpenHouse) -> None:
    """Also where numbers would run into the keys of the next chat."""
    application = await ports.new_application()
    chats = [await ports.open_chat(application) for _ in range(4)]
    for chat in chats:
        await ports.post(application, chat, "mine")
    for chat, number in itertools.product(chats, (0, 2, NUMBER_MAX, 2**31, 2**32, 2**32 + 1, 2**33 + 1, 2**63 - 1)):
        with pytest.raises(NotFound):
            await ports.store.message(application, chat, number)


async def test_lists_of_nothing_are_empty(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """A chat without messages and an application without chats have empty pages and revision 0."""
    assert await ports.store.messages(application, chat, Window()) == []
    assert await ports.store.changes(application, chat, 0, 10) == []
    assert await ports.store.revision(application, chat) == 0
    assert await ports.store.chats(await ports.new_application(), Window()) == []


async def test_all_chats_come_by_number(ports: OpenHouse) -> None:
    """More than a page of them, each once, and none of another application."""
    application, other = await ports.new_application(), await ports.new_application()
    for _ in range(3):
        await ports.open_chat(other)
    for _ in range(401):
        await ports.open_chat(application)
    assert [chat.number async for chat in ports.store.all_chats(application)] == list(range(1, 402))


async def test_a_healthy_house_answers_its_ping(ports: OpenHouse) -> None:
    """Nothing is away."""
    await ports.store.ping()


async def test_a_healthy_house_has_nothing_to_mend(ports: OpenHouse) -> None:
    """After all kinds of changes `verify` finds nothing, `recount` finds nothing and changes nothing."""
    application, chat = await ports.new_chat()
    for owner, number in ((application, chat), await ports.new_chat()):
        await ports.post(owner, number, "one", "two", "three")
        await ports.edit(owner, number, 1, "ONE")
        await ports.delete(owner, number, 2)
        await ports.open_chat(owner)
    await ports.settle()
    before = await ports.store.application(application), await ports.store.chat(application, chat)
    assert await ports.store.verify() == []
    assert await ports.store.recount() == []
    assert await ports.store.verify() == []
    assert (await ports.store.application(application), await ports.store.chat(application, chat)) == before
    assert (await ports.post(application, chat, "four")).number == 4
