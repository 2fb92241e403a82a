"""What runs at the same moment may share a transaction: it must not harm each other.

Calls that are started together, with nothing awaited in between, are what a house may record in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from chat_system.errors import NotFound
from chat_system.model import ApplicationId, ChangeChat, ChatEdit, EditMessage, Receipt, Window
from tests.contract.houses import OpenHouse

PATIENCE_S = 10.0


async def together(*calls: Awaitable[Any]) -> list[Any]:
    """Start all at once; their results or errors. A call that never returns is a failure."""
    return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE_S)


@pytest.fixture
async def doomed(ports: OpenHouse) -> ApplicationId:
    """An application that is to be erased."""
    application, chat = await ports.new_chat()
    await ports.post(application, chat, "doomed")
    return application


async def test_a_chat_opens_while_another_application_is_erased(
    ports: OpenHouse, application: ApplicationId, doomed: ApplicationId
) -> None:
    """Before, with and after the erasure: chats open, are numbered and counted, and the house goes on."""
    outcomes = await together(
        ports.open_chat(application),
        ports.store.erase_application(doomed),
        ports.open_chat(application),
    )
    assert outcomes == [1, None, 2]
    await ports.settle()
    assert (await ports.store.application(application)).chats_count == 2
    assert await asyncio.wait_for(ports.open_chat(application), PATIENCE_S) == 3
    await ports.settle()
    assert await ports.store.verify() == []


async def test_counts_hold_when_an_application_is_erased_between_two_posts(
    ports: OpenHouse, application: ApplicationId, chat: int, doomed: ApplicationId
) -> None:
    """Both posts are numbered and counted."""
    outcomes = await together(
        ports.post(application, chat, "one"),
        ports.store.erase_application(doomed),
        ports.post(application, chat, "two"),
    )
    assert [outcome.number for outcome in outcomes if isinstance(outcome, Receipt)] == [1, 2]
    await ports.settle()
    assert (await ports.store.chat(application, chat)).messages_count == 2
    assert await ports.store.verify() == []


async def test_counts_hold_when_they_are_recounted_between_two_posts(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """A recount finds nothing wrong with what is being posted, and breaks nothing."""
    outcomes = await together(
        ports.open_chat(application),
        ports.post(application, chat, "one"),
        ports.store.recount(),
        ports.post(application, chat, "two"),
        ports.open_chat(application),
    )
    assert [outcome.number for outcome in (outcomes[1], outcomes[3])] == [1, 2]
    assert (outcomes[0], outcomes[2], outcomes[4]) == (2, [], 3)
    await ports.settle()
    assert (await ports.store.chat(application, chat)).messages_count == 2
    assert (await ports.store.application(application)).chats_count == 3
    assert await ports.store.verify() == []


async def test_what_runs_beside_an_erasure_stands_or_is_refused_and_what_comes_later_is_refused(
    ports: OpenHouse, doomed: ApplicationId
) -> None:
    """Calls on the application itself: those at the same moment either way, all that follow not found."""
    calls = [
        ports.post(doomed, 1, "before"),
        ports.open_chat(doomed),
        ports.store.erase_application(doomed),
        ports.post(doomed, 1, "after"),
        ports.open_chat(doomed),
    ]
    outcomes = await together(*calls)
    assert (outcomes[0].number, outcomes[1], outcomes[2]) == (2, 2, None)
    assert all(isinstance(outcome, Receipt | int | NotFound) for outcome in outcomes[3:])
    for call in (
        ports.post(doomed, 1, "later"),
        ports.open_chat(doomed),
        ports.store.chats(doomed, Window()),
    ):
        with pytest.raises(NotFound):
            await call
    await ports.settle()
    while await ports.store.sweep():
        pass
    assert await ports.store.verify() == []


async def test_a_chat_is_opened_changed_and_filled_at_the_same_moment(
    ports: OpenHouse, application: ApplicationId
) -> None:
    """Who asks before the opening was answered may find no chat yet; nobody finds, or leaves, half of anything."""
    opened, *others = await together(
        ports.open_chat(application),
        ports.post(application, 1, "one"),
        ports.journal.append(application, ChangeChat(1, ChatEdit(title="Title"))),
        ports.post(application, 1, "two"),
    )
    assert opened == 1
    assert all(isinstance(outcome, Receipt | NotFound) for outcome in others)
    if isinstance(others[1], NotFound):
        await ports.journal.append(application, ChangeChat(1, ChatEdit(title="Title")))
    await ports.settle()
    posted = [body for body, outcome in (("one", others[0]), ("two", others[2])) if isinstance(outcome, Receipt)]
    chat = await ports.store.chat(application, 1)
    assert (chat.title, chat.messages_count, chat.revision) == ("Title", len(posted), len(posted))
    assert await ports.bodies(application, 1) == posted
    assert await ports.store.verify() == []


async def test_a_change_in_the_moment_of_the_creation_is_told_from_it(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """However quickly an edit or a deletion follows: updated_at is later than created_at."""
    await ports.post(application, chat, "one", "two", "three")
    await together(
        ports.journal.append(application, EditMessage(chat, 1, 1, "edited", None)),
        ports.delete(application, chat, 2),
    )
    edited, deleted, untouched = await ports.all_messages(application, chat)
    assert edited.updated_at > edited.created_at
    assert deleted.updated_at == deleted.deleted_at
    assert deleted.updated_at > deleted.created_at
    assert untouched.updated_at == untouched.created_at


async def test_posting_deleting_indexing_and_sweeping_all_at_once_leaves_all_in_order(
    ports: OpenHouse,
) -> None:
    """Many rounds of everything at the same time; at the end nothing is missing and nothing is wrong."""
    kept = [await ports.new_chat() for _ in range(3)]
    projectors = [ports.projector(7, projection) for projection in ports.ports.projections]
    for round_ in range(8):
        gone, gone_chat = await ports.new_chat()
        await ports.post(gone, gone_chat, "gone needle")
        outcomes = await together(
            *(ports.post(*chat, f"needle {round_}.{index}") for chat in kept for index in range(4)),
            ports.store.erase_application(gone),
            *(ports.delete(*chat, 1 + round_) for chat in kept if round_),
            *(ports.open_chat(application) for application, _ in kept),
            *(projector.step() for projector in projectors),
            ports.store.sweep(),
            *(ports.post(*chat, f"needle {round_} again") for chat in kept),
        )
        assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    await ports.until_searchable()
    while await ports.store.sweep():
        pass
    assert await ports.store.verify() == []
    for application, chat in kept:
        live = [number for number, body in enumerate(await ports.bodies(application, chat), 1) if body is not None]
        assert len(live) == 8 * 5 - 7
        for _ in range(2):
            found = await ports.search.in_chat(application, chat, "needle", before=None, limit=100)
            assert [message.number for message in found] == live[::-1]
            await ports.settle()
