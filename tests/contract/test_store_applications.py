"""Store: the lifecycle of applications, from their creation until nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chat_system.errors import NotFound
from chat_system.model import (
    Application,
    ApplicationId,
    ChangeChat,
    ChatEdit,
    DeleteMessage,
    EditMessage,
    NewChat,
    NewMessage,
    Once,
    OpenChat,
    PostMessages,
    Window,
    milliseconds,
)
from chat_system.ports import ApplicationWindow
from tests.contract.houses import TOKEN_CHARACTERS, OpenHouse

UNKNOWN = ApplicationId(987_654_321)
ONCE = Once.of("path", "key", b"payload")


def token(text: str) -> str:
    """A token that begins like this."""
    return text.ljust(TOKEN_CHARACTERS, "x")


async def create(ports: OpenHouse, count: int) -> list[Application]:
    """So many applications, some of them created in the same moment; oldest first, ties by token."""
    made: list[Application] = []
    while len(made) < count:
        names = [f"{len(made) + offset:02d}" for offset in range(min(3, count - len(made)))]
        made += [
            application
            for application, _ in await asyncio.gather(
                *(ports.store.create_application(token(name), f"Name {name}") for name in names)
            )
        ]
        await asyncio.sleep(0.002)
    return sorted(made, key=place)


def place(application: Application) -> tuple[int, str]:
    """Where an application stands in the list of all."""
    return milliseconds(application.created_at), application.token


async def test_a_new_application_is_empty_and_opens_by_its_token(ports: OpenHouse) -> None:
    """What creation returns is what is read, now and in the next life; no other token opens it."""
    created, replayed = await ports.store.create_application(token("a"), "  Name\u00a0e\u0301 ")
    assert not replayed
    assert (created.token, created.name, created.chats_count) == (token("a"), "  Name\u00a0e\u0301 ", 0)
    assert created.created_at == created.updated_at
    for _ in range(2):
        application = await ports.store.resolve(token("a"))
        assert application is not None
        assert await ports.store.application(application) == created
        for other in (token("b"), token("A"), token("a")[:-1], "", token("a") + "x"):
            assert await ports.store.resolve(other) is None
        await ports.reopen()


async def test_an_unknown_application_is_not_found(ports: OpenHouse) -> None:
    """It can be neither read nor renamed nor erased."""
    for act in (
        ports.store.application(UNKNOWN),
        ports.store.rename_application(UNKNOWN, "Name"),
        ports.store.erase_application(UNKNOWN),
    ):
        with pytest.raises(NotFound):
            await act


async def test_renaming_changes_the_name_and_nothing_else(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """The answer is what is read; the same name again leaves no trace."""
    before = await ports.store.application(application)
    await asyncio.sleep(0.003)
    renamed = await ports.store.rename_application(application, "Another name")
    assert renamed == await ports.store.application(application)
    assert renamed.name == "Another name"
    assert milliseconds(renamed.updated_at) > milliseconds(before.updated_at)
    assert (renamed.token, renamed.chats_count, renamed.created_at) == (
        before.token,
        before.chats_count,
        before.created_at,
    )
    await asyncio.sleep(0.003)
    assert await ports.store.rename_application(application, "Another name") == renamed


async def test_chats_are_counted(ports: OpenHouse) -> None:
    """chats_count is the number of chats, opened one by one and all at once."""
    application, other = await ports.new_application(), await ports.new_application()
    await ports.open_chat(application)
    await asyncio.gather(*(ports.open_chat(application) for _ in range(7)))
    await ports.settle()
    assert (await ports.store.application(application)).chats_count == 8
    assert (await ports.store.application(other)).chats_count == 0
    await ports.reopen()
    assert (await ports.store.application(application)).chats_count == 8


async def test_applications_are_listed_oldest_first(ports: OpenHouse) -> None:
    """Every window of the list is what the whole list says, from either side of any place."""
    everything = await create(ports, 11)
    list_them = ports.store.applications
    for limit in (1, 4, 11, 50):
        for skip in (0, 1, 5, 11, 12):
            page = await list_them(ApplicationWindow(limit, skip=skip))
            assert page == everything[skip : skip + limit]
        for index, one in enumerate(everything):
            at, start = milliseconds(one.created_at), one.token[:12]
            assert await list_them(ApplicationWindow(limit, after=(at, start))) == everything[index + 1 :][:limit]
            before = await list_them(ApplicationWindow(limit, before=(at, start)))
            assert before == everything[max(0, index - limit) : index]


async def test_an_erased_application_leaves_the_list_and_its_token_opens_nothing(ports: OpenHouse) -> None:
    """At once, and after the sweep and a restart; the others stay."""
    everything = await create(ports, 4)
    gone = await ports.store.resolve(everything[1].token)
    assert gone is not None
    await ports.store.erase_application(gone)
    left = [everything[0], *everything[2:]]
    for step in range(3):
        assert await ports.store.resolve(everything[1].token) is None
        assert await ports.store.applications(ApplicationWindow(10)) == left
        with pytest.raises(NotFound):
            await ports.store.application(gone)
        with pytest.raises(NotFound):
            await ports.store.rename_application(gone, "Back")
        with pytest.raises(NotFound):
            await ports.store.erase_application(gone)
        if step == 0:
            await sweep_all(ports)
        await ports.reopen()


async def test_of_simultaneous_erasures_one_succeeds(ports: OpenHouse, application: ApplicationId) -> None:
    """The others are told that it was erased already."""
    outcomes = await asyncio.gather(
        *(ports.store.erase_application(application) for _ in range(4)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 3


Act = Callable[[OpenHouse, ApplicationId], Awaitable[Any]]

MISSING: dict[str, Act] = {
    "application": lambda ports, gone: ports.store.application(gone),
    "chat": lambda ports, gone: ports.store.chat(gone, 1),
    "message": lambda ports, gone: ports.store.message(gone, 1, 1),
    "messages": lambda ports, gone: ports.store.messages(gone, 1, Window()),
    "changes": lambda ports, gone: ports.store.changes(gone, 1, 0, 10),
    "revision": lambda ports, gone: ports.store.revision(gone, 1),
    "chats": lambda ports, gone: ports.store.chats(gone, Window()),
    "all chats": lambda ports, gone: anext(ports.store.all_chats(gone)),
    "search in chat": lambda ports, gone: ports.search.in_chat(gone, 1, "secret", before=None, limit=10),
    "search in application": lambda ports, gone: ports.search.in_application(gone, "secret", after=None, limit=10),
    "open": lambda ports, gone: ports.journal.append(gone, OpenChat(NewChat())),
    "change chat": lambda ports, gone: ports.journal.append(gone, ChangeChat(1, ChatEdit(title="x"))),
    "post": lambda ports, gone: ports.journal.append(gone, PostMessages(1, [NewMessage("x")])),
    "edit": lambda ports, gone: ports.journal.append(gone, EditMessage(1, 1, 1, "x", None)),
    "delete": lambda ports, gone: ports.journal.append(gone, DeleteMessage(1, 1)),
    "repeat": lambda ports, gone: ports.journal.append(gone, PostMessages(1, [NewMessage("the secret")]), once=ONCE),
}


@pytest.mark.parametrize("act", MISSING.values(), ids=MISSING)
async def test_what_an_erased_application_held_is_gone_at_once(ports: OpenHouse, act: Act) -> None:
    """Before any sweep, whether its chats were in memory or not: nothing can be read, changed or repeated."""
    application, chat = await ports.new_chat()
    await ports.post(application, chat, "the secret", once=ONCE)
    await ports.edit(application, chat, 1, "the edited secret")
    await ports.store.erase_application(application)
    for _ in range(2):
        with pytest.raises(NotFound):
            await act(ports, application)
        await ports.reopen()


async def test_sweeping_leaves_everyone_else_as_they_were(ports: OpenHouse) -> None:
    """What the neighbours of an erased application hold, count and find is untouched."""
    trio = [await ports.new_chat() for _ in range(3)]
    for application, chat in trio:
        await ports.post(application, chat, *(f"needle {index}" for index in range(40)), once=ONCE)
    await ports.projector().drain()
    for application, chat in trio:
        await ports.edit(application, chat, 1, "edited needle")
    await ports.until_searchable()

    async def state(application: ApplicationId, chat: int) -> object:
        return (
            await ports.store.application(application),
            await ports.store.chat(application, chat),
            await ports.all_messages(application, chat),
            await ports.search.in_chat(application, chat, "needle", before=None, limit=100),
            await ports.search.in_application(application, "needle", after=None, limit=100),
        )

    neighbours = [trio[0], trio[2]]
    before = [await state(*one) for one in neighbours]
    await ports.store.erase_application(trio[1][0])
    await sweep_all(ports)
    assert [await state(*one) for one in neighbours] == before
    await ports.settle()
    assert [await state(*one) for one in neighbours] == before
    assert await ports.store.verify() == []
    for application, chat in neighbours:
        receipt = await ports.post(application, chat, "next")
        assert receipt.number == 41


async def test_sweeping_goes_on_beside_those_who_write(ports: OpenHouse) -> None:
    """Posts between the pieces of a sweep are recorded as ever, and the sweep comes to its end."""
    gone, gone_chat = await ports.new_chat()
    for _ in range(3):
        await ports.post(gone, gone_chat, *(f"old {index}" for index in range(500)))
    application, chat = await ports.new_chat()
    await ports.settle()
    await ports.store.erase_application(gone)
    pieces = 0
    while await ports.store.sweep():
        pieces += 1
        assert (await ports.post(application, chat, "beside")).number == pieces
    assert pieces > 1, "an application is removed in pieces"
    assert not await ports.store.sweep()
    await ports.settle()
    assert await ports.store.verify() == []


async def test_identities_are_never_used_again(ports: OpenHouse) -> None:
    """An application that follows an erased one is another, and finds nothing of it."""
    seen = set()
    for index in range(5):
        application, chat = await ports.new_chat()
        assert application not in seen
        seen.add(application)
        assert await ports.store.messages(application, chat, Window()) == []
        await ports.post(application, chat, f"needle {index}")
        await ports.settle()
        found = await ports.search.in_application(application, "needle", after=None, limit=10)
        assert [message.body for _, message in found] == [f"needle {index}"]
        await ports.store.erase_application(application)
        await sweep_all(ports)
        if index % 2:
            await ports.reopen()


async def sweep_all(ports: OpenHouse) -> None:
    """Sweep until nothing remains."""
    while await ports.store.sweep():
        pass
