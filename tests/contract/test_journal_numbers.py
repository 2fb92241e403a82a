"""Journal.append: numbers and revisions without gaps, whatever runs beside and whatever is refused."""

from __future__ import annotations

import asyncio
import random

import pytest

from chat_system.errors import Conflict, IdempotencyMismatch, NotFound, Stale
from chat_system.model import (
    ApplicationId,
    Change,
    ChangeChat,
    ChatEdit,
    DeleteMessage,
    EditMessage,
    NewChat,
    NewMessage,
    Once,
    OpenChat,
    PostMessages,
    Receipt,
    Window,
    rfc3339,
)
from tests.contract.houses import OpenHouse

UNKNOWN_APPLICATION = ApplicationId(987_654_321)


async def test_chats_are_numbered_from_one_in_each_application(ports: OpenHouse) -> None:
    """Every application counts its own chats: 1, 2, 3 …, and each receipt says so."""
    first, second = await ports.new_application(), await ports.new_application()
    assert [await ports.open_chat(first) for _ in range(3)] == [1, 2, 3]
    assert [await ports.open_chat(second) for _ in range(2)] == [1, 2]
    assert [chat.number for chat in await ports.store.chats(first, Window())] == [1, 2, 3]


async def test_messages_and_revisions_are_numbered_from_one_in_each_chat(
    ports: OpenHouse, application: ApplicationId
) -> None:
    """Every chat counts its own messages and revisions."""
    for _ in range(2):
        chat = await ports.open_chat(application)
        receipts = [await ports.post(application, chat, "hello") for _ in range(3)]
        assert [(receipt.number, receipt.revision) for receipt in receipts] == [(1, 1), (2, 2), (3, 3)]
        assert [receipt.count for receipt in receipts] == [1, 1, 1]
        assert not any(receipt.replayed for receipt in receipts)


async def test_simultaneous_appends_share_no_number_and_leave_no_gap(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Messages and batches appended all at once fill 1 to n, and each stands where its receipt says."""
    sizes = [1, 1, 1, 5, 1, 2, 1, 17] * 12
    texts = [[f"{index}-{item}" for item in range(size)] for index, size in enumerate(sizes)]
    receipts = await asyncio.gather(*(ports.post(application, chat, *bodies) for bodies in texts))
    stored = await ports.bodies(application, chat)
    assert len(stored) == sum(sizes)
    for receipt, bodies in zip(receipts, texts, strict=True):
        assert receipt.count == len(bodies)
        assert stored[receipt.number - 1 : receipt.number - 1 + len(bodies)] == bodies
    messages = await ports.all_messages(application, chat)
    assert [message.revision for message in messages] == list(range(1, len(messages) + 1))


async def test_simultaneous_appends_to_many_chats_do_not_mix(ports: OpenHouse) -> None:
    """Chats that are opened and filled at the same moment, in several applications, stay apart and whole."""
    applications = [await ports.new_application() for _ in range(3)]

    async def fill(application: ApplicationId, name: str) -> None:
        chat = await ports.open_chat(application)
        posts = (ports.post(application, chat, f"{name}-{index}") for index in range(8))
        receipts = await asyncio.gather(*posts)
        assert sorted(receipt.number for receipt in receipts) == list(range(1, 9))
        assert {body and body.split("-")[0] for body in await ports.bodies(application, chat)} == {name}

    await asyncio.gather(
        *(fill(application, f"{application}.{index}") for application in applications for index in range(6))
    )
    await ports.settle()
    for application in applications:
        found = await ports.store.chats(application, Window())
        assert [(chat.number, chat.messages_count) for chat in found] == [(n, 8) for n in range(1, 7)]
    assert await ports.store.verify() == []


async def test_an_append_that_returned_before_another_began_has_the_smaller_number(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Among many writers at once, numbers respect the order of calls that did not overlap."""
    spans: list[tuple[int, int, int]] = []
    clock = 0

    async def write() -> None:
        nonlocal clock
        for _ in range(10):
            clock += 1
            began = clock
            receipt = await ports.post(application, chat, "tick")
            clock += 1
            spans.append((began, clock, receipt.number))
            await asyncio.sleep(0)

    await asyncio.gather(*(write() for _ in range(8)))
    assert sorted(number for _, _, number in spans) == list(range(1, 81))
    for _, ended, number in spans:
        assert all(number < other for began, _, other in spans if ended < began)


async def test_numbering_goes_on_after_reopening(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """What lived in memory is gone; numbers and revisions continue all the same, tombstones counted."""
    await ports.post(application, chat, "one", "two", "three")
    await ports.edit(application, chat, 1, "ONE")
    await ports.delete(application, chat, 3)
    await ports.reopen()
    receipt = await ports.post(application, chat, "four")
    assert (receipt.number, receipt.revision) == (4, 6)
    assert await ports.open_chat(application) == chat + 1
    await ports.settle()
    assert (await ports.store.chat(application, chat)).messages_count == 3


async def test_what_was_appended_can_be_read_by_every_reader(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """When append returns, message, messages, changes and revision show it, with the receipt's moment."""
    new = NewMessage("Hello", "ada", {"n": 1})
    receipt = await ports.journal.append(application, PostMessages(chat, [new]))
    message = await ports.store.message(application, chat, receipt.number)
    assert (message.body, message.sender, bytes(message.metadata or b"")) == ("Hello", "ada", b'{"n":1}')
    assert (message.revision, message.created_at) == (receipt.revision, rfc3339(receipt.at))
    assert (message.updated_at, message.deleted_at) == (message.created_at, None)
    assert await ports.store.messages(application, chat, Window()) == [message]
    assert await ports.store.changes(application, chat, 0, 10) == [message]
    assert await ports.store.revision(application, chat) == receipt.revision


async def test_messages_keep_the_times_that_they_were_sent_at_elsewhere(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """`sent_at` gives each message of an import its own time of creation, before 1970 too."""
    times = [-86_400_000, 0, 1_700_000_000_123]
    messages = [NewMessage(f"at {at}") for at in times]
    await ports.journal.append(application, PostMessages(chat, messages, times))
    stored = await ports.all_messages(application, chat)
    assert [message.created_at for message in stored] == [rfc3339(at) for at in times]


CHANGES_OF_A_CHAT: dict[str, Change] = {
    "post": PostMessages(7, [NewMessage("hello")]),
    "batch": PostMessages(7, [NewMessage("hello"), NewMessage("again")]),
    "edit": EditMessage(7, 1, 1, "other", None),
    "delete": DeleteMessage(7, 1),
    "title": ChangeChat(7, ChatEdit(title="Other")),
    "nothing": ChangeChat(7, ChatEdit()),
}


@pytest.mark.parametrize("change", CHANGES_OF_A_CHAT.values(), ids=CHANGES_OF_A_CHAT)
async def test_a_change_of_an_unknown_chat_is_not_found(
    ports: OpenHouse, application: ApplicationId, change: Change
) -> None:
    """Neither the chat of nobody nor that of another application can be changed, nor is one made."""
    other = await ports.new_application()
    for _ in range(7):
        await ports.open_chat(other)
    await ports.post(other, 7, "untouched")
    before = await ports.store.chat(other, 7)
    for owner in (application, UNKNOWN_APPLICATION):
        with pytest.raises(NotFound):
            await ports.journal.append(owner, change)
    assert await ports.store.chats(application, Window()) == []
    assert await ports.store.chat(other, 7) == before
    assert await ports.bodies(other, 7) == ["untouched"]


async def test_no_chat_opens_in_an_unknown_application(ports: OpenHouse) -> None:
    """Opening a chat needs an application."""
    with pytest.raises(NotFound):
        await ports.journal.append(UNKNOWN_APPLICATION, OpenChat(NewChat()))


async def test_refused_changes_consume_nothing(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """One after another: no refusal takes a number or a revision."""
    once = Once.of("path", "key", b"first")
    await ports.post(application, chat, "one", once=once)
    await ports.post(application, chat, "two")
    await ports.delete(application, chat, 2)
    with pytest.raises(Stale):
        await ports.journal.append(application, EditMessage(chat, 1, 7, "late", None))
    with pytest.raises(Conflict):
        await ports.journal.append(application, EditMessage(chat, 2, 3, "too late", None))
    with pytest.raises(NotFound):
        await ports.delete(application, chat, 3)
    with pytest.raises(IdempotencyMismatch):
        await ports.post(application, chat, "three", once=Once.of("path", "key", b"second"))
    assert await ports.store.revision(application, chat) == 3
    receipt = await ports.post(application, chat, "three")
    assert (receipt.number, receipt.revision) == (3, 4)


async def test_refused_changes_consume_nothing_of_what_runs_at_the_same_time(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """All at once: each refusal goes to who caused it, and the others are numbered without a gap."""
    once = Once.of("path", "key", b"first")
    await ports.post(application, chat, "first", once=once)
    refused: list[tuple[Change, Once | None, type[Exception]]] = [
        (PostMessages(99, [NewMessage("nowhere")]), None, NotFound),
        (EditMessage(chat, 1, 77, "stale", None), None, Stale),
        (DeleteMessage(chat, 10_000), None, NotFound),
        (PostMessages(chat, [NewMessage("x")]), Once.of("path", "key", b"other"), IdempotencyMismatch),
    ]
    good: list[Change] = [PostMessages(chat, [NewMessage(f"good {index}")]) for index in range(40)]
    attempts = [*((change, None, None) for change in good), *(refused * 5)]
    random.Random(7).shuffle(attempts)
    outcomes = await asyncio.gather(
        *(ports.journal.append(application, change, once=key) for change, key, _ in attempts),
        return_exceptions=True,
    )
    numbers = []
    for (_, _, error), outcome in zip(attempts, outcomes, strict=True):
        if error is None:
            assert isinstance(outcome, Receipt)
            assert outcome.number == outcome.revision
            numbers.append(outcome.number)
        else:
            assert type(outcome) is error
    assert sorted(numbers) == list(range(2, 42))
    assert await ports.store.revision(application, chat) == 41


async def test_a_caller_who_leaves_takes_no_number_with_him(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Appends that are cancelled while they run are recorded or not, but never leave a gap."""
    tasks = [asyncio.create_task(ports.post(application, chat, f"message {index}")) for index in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    stored = await ports.bodies(application, chat)
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Receipt):
            assert stored[outcome.number - 1] == f"message {index}"
    receipt = await ports.post(application, chat, "after")
    assert receipt.number == len(await ports.bodies(application, chat))


async def test_a_large_batch_is_numbered_like_a_small_one(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """500 messages of 4 KiB, among others at the same time: consecutive, and whole."""
    batch = [f"{index} " + "x" * 4096 for index in range(500)]
    before, receipt, after = await asyncio.gather(
        ports.post(application, chat, "before"),
        ports.post(application, chat, *batch),
        ports.post(application, chat, "after"),
    )
    stored = await ports.bodies(application, chat)
    assert stored[receipt.number - 1 : receipt.number + 499] == batch
    assert sorted([before.number, after.number, *range(receipt.number, receipt.number + 500)]) == list(range(1, 503))
