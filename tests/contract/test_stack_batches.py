"""What the projections are handed: whole stream entries where it can be, and single facts where it must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from chat_system.model import ApplicationId, ChatCounted, NewMessage, PostMessages, Window
from chat_system.ports import Entry, Projection
from chat_system.stack import consuming
from chat_system.stack.batches import Batch
from chat_system.stack.bulk import expected, pieces
from chat_system.stack.consuming import _runs
from tests.contract.houses import OPENERS, OpenHouse

pytestmark = pytest.mark.skipif("stack" not in OPENERS, reason="only the stack house has stream entries")

STORE: Projection = "store"
SEARCH: Projection = "search"
MANY = 1_000
BODIES = ["one", 'two "quoted"', "three\\", "four\n\f\x01", "五"]


async def filled(stack: OpenHouse) -> tuple[ApplicationId, int]:
    """A chat to which two batches were posted; its opening is applied."""
    application, chat = await stack.new_chat()
    await stack.settle()
    await stack.post(application, chat, *BODIES)
    await stack.post(application, chat, *BODIES[:3])
    return application, chat


async def check_stored(stack: OpenHouse, application: ApplicationId, chat: int) -> None:
    """All of it is applied: nothing waits, and MySQL alone has every message and the count."""
    assert (await stack.journal.backlog(STORE)).entries == 0
    assert await stack.journal.read(STORE, MANY) == []
    page = await stack.store.messages(application, chat, Window(MANY, 0))
    assert [message.body for message in page] == BODIES + BODIES[:3]
    assert (await stack.store.chat(application, chat)).messages_count == len(page)
    assert list(await stack.store.verify()) == []


async def test_stream_entries_are_handed_out_whole_as_far_as_they_fit(stack: OpenHouse) -> None:
    """Each with its messages and their chat's count; as a sequence it is the same facts one by one."""
    application, chat = await filled(stack)
    first = await stack.journal.read(STORE, len(BODIES) + 2)
    assert isinstance(first, Batch)
    assert [type(entry.fact) for entry in first].count(ChatCounted) == 1
    assert [entry.message.body for entry in first[1:]] == BODIES
    second = await stack.journal.read(STORE, MANY)
    assert len(second) == len(BODIES) + 3 + 2
    for batch in (first, second):
        await stack.store.apply(batch)  # type: ignore[attr-defined]
    await stack.journal.acknowledge(STORE, first)
    await stack.journal.acknowledge(STORE, second)
    await check_stored(stack, application, chat)


async def test_the_index_is_handed_messages_only(stack: OpenHouse) -> None:
    """Whole stream entries as well, without their counts; what is in none of them is acknowledged unread."""
    application, chat = await stack.new_chat()
    await stack.settle()
    await stack.post(application, chat, *BODIES)
    await stack.open_chat(application)
    batch = await stack.journal.read(SEARCH, MANY)
    assert isinstance(batch, Batch)
    assert [entry.message.body for entry in batch] == BODIES
    await stack.search.apply(batch)
    await stack.journal.acknowledge(SEARCH, batch)
    assert (await stack.journal.backlog(SEARCH)).entries == 0


async def test_a_document_is_the_same_from_a_whole_entry_as_from_a_single_fact(stack: OpenHouse) -> None:
    """Posted, imported, edited or deleted; with and without sender and metadata; folded or not."""
    application, chat = await stack.new_chat()
    await stack.settle()
    posted = [NewMessage("Straße"), NewMessage("plain", "ada", {"ä": 1})]
    await stack.journal.append(application, PostMessages(chat, posted))
    await stack.journal.append(application, PostMessages(chat, posted, [1_000, 2_000]))
    await stack.edit(application, chat, 1, "Edited")
    await stack.delete(application, chat, 3)
    batch = await stack.journal.read(SEARCH, MANY)
    assert isinstance(batch, Batch)
    singles = list(batch)
    assert len(singles) == len(batch) == 6
    assert documents(batch) == documents(singles)
    assert [documents([entry])[1][0] for entry in singles] == [
        expected(application, chat, entry.message) for entry in singles
    ]


def documents(entries: Sequence[Entry]) -> tuple[list[str], list[Any]]:
    """Where they go with which version, and the documents, by place and version."""
    lines = [msgspec.json.decode(line) for _, body in pieces(entries) for line in body.splitlines()]
    pairs = sorted(zip(lines[::2], lines[1::2], strict=True), key=lambda pair: str(pair[0]))
    return [str(target) for target, _ in pairs], [document for _, document in pairs]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7])
async def test_a_stream_entry_larger_than_the_limit_is_handed_out_in_parts(stack: OpenHouse, limit: int) -> None:
    """Each fact once when each is acknowledged; all of them when none is."""
    application, chat = await filled(stack)
    seen: set[str] = set()
    for _ in range(50):
        seen |= {entry.position for entry in await stack.journal.read(STORE, limit)}
    assert len(seen) == len(BODIES) + 3 + 2
    applied: list[str] = []
    while entries := await stack.journal.read(STORE, limit):
        assert len(entries) <= limit
        await stack.store.apply(entries)  # type: ignore[attr-defined]
        await stack.journal.acknowledge(STORE, entries)
        applied += [entry.position for entry in entries]
    assert sorted(applied) == sorted(seen)
    await check_stored(stack, application, chat)


async def test_parts_of_a_batch_are_acknowledged_alone(stack: OpenHouse) -> None:
    """As a projector does that looks for the one fact at fault; the rest is read again."""
    application, chat = await filled(stack)
    batch = await stack.journal.read(STORE, MANY)
    assert isinstance(batch, Batch)
    half: list[Entry] = batch[: len(batch) // 2]
    rest = {entry.position for entry in batch[len(batch) // 2 :]}
    await stack.store.apply(half)  # type: ignore[attr-defined]
    await stack.journal.acknowledge(STORE, half)
    await stack.journal.acknowledge(STORE, batch[:1])
    again = await stack.journal.read(STORE, MANY)
    assert {entry.position for entry in again} == rest
    await stack.store.apply(again)  # type: ignore[attr-defined]
    await stack.journal.acknowledge(STORE, again)
    await check_stored(stack, application, chat)


async def test_what_changed_again_since_it_was_read_stays_on_the_tail(
    stack: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a run of revisions, and when a run is told in several calls."""
    monkeypatch.setattr(consuming, "SETTLE_CHUNK", 2)
    application, chat = await filled(stack)
    batch = await stack.journal.read(STORE, MANY)
    await stack.edit(application, chat, 3, "edited")
    await stack.store.apply(batch)  # type: ignore[attr-defined]
    await stack.journal.acknowledge(STORE, batch)
    assert (await stack.store.message(application, chat, 3)).body == "edited"
    await stack.settle()
    assert (await stack.store.message(application, chat, 3)).body == "edited"
    assert (await stack.journal.backlog(STORE)).entries == 0


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([], []),
        ([7], [7, 7]),
        ([1, 2, 3], [1, 3]),
        ([1, 3], [1, 1, 3, 3]),
        ([1, 2, 4, 5, 6, 9], [1, 2, 4, 6, 9, 9]),
    ],
)
def test_runs_cover_the_numbers_and_nothing_between(numbers: list[int], runs: list[int]) -> None:
    """The first and the last of each."""
    assert _runs(numbers) == runs
