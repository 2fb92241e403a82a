"""Tails: what was posted together stands once, in the stream, and readers see each message as it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from chat_system.model import ApplicationId, Message, MessageChanged, Window
from chat_system.ports import Entry, Projection
from chat_system.stack import gathering, tail
from tests.contract.houses import OPENERS, OpenHouse

pytestmark = pytest.mark.skipif("stack" not in OPENERS, reason="only the stack house has tails")

STORE: Projection = "store"
SEARCH: Projection = "search"
MANY = 1_000
BODIES = [f"message {number}" for number in range(1, 8)]


async def apply(stack: OpenHouse, entries: Sequence[Entry]) -> None:
    """As the store's projector does it."""
    if not entries:
        return
    await stack.store.apply(entries)  # type: ignore[attr-defined]
    await stack.journal.acknowledge(STORE, entries)


def of(entries: Sequence[Entry], *numbers: int) -> list[Entry]:
    """The facts about these messages."""
    return [entry for entry in entries if isinstance(entry.fact, MessageChanged) and entry.fact.number in numbers]


async def told(stack: OpenHouse, application: ApplicationId, chat: int) -> list[tuple[int, int, str | None]]:
    """Number, revision and body of all messages: by pages of all sizes, one by one and by their changes, the same."""
    whole = list(await stack.store.messages(application, chat, Window(MANY)))
    for size in (1, 2, 3):
        found: list[Message] = []
        while page := await stack.store.messages(application, chat, Window(size, found[-1].number if found else 0)):
            found += page
        assert found == whole
        last = await stack.store.messages(application, chat, Window(size, from_end=True))
        assert list(last) == whole[-size:]
        found = []
        while changes := await stack.store.changes(application, chat, found[-1].revision if found else 0, size):
            found += changes
        assert found == sorted(whole, key=lambda message: message.revision)
    assert [await stack.store.message(application, chat, message.number) for message in whole] == whole
    return [(message.number, message.revision, message.body) for message in whole]


def posted(first: int, *bodies: str) -> list[tuple[int, int, str | None]]:
    """Messages of a chat in which nothing was changed."""
    return [(number, number, body) for number, body in enumerate(bodies, first)]


@pytest.mark.parametrize("applied", [(1,), (4,), (7,), (1, 2, 3), (2, 5), (5, 6, 7), (1, 2, 3, 4, 5, 6, 7)])
async def test_a_run_that_is_applied_in_part_is_seen_whole(stack: OpenHouse, applied: tuple[int, ...]) -> None:
    """What is applied comes from MySQL, the rest from the stream, and each once; then the rest is applied, too."""
    application, chat = await stack.new_chat()
    await stack.settle()
    await stack.post(application, chat, *BODIES)
    entries = list(await stack.journal.read(STORE, MANY))
    await apply(stack, of(entries, *applied))
    assert await told(stack, application, chat) == posted(1, *BODIES)
    # Again, as after an answer that was lost.
    await apply(stack, of(entries, *applied))
    assert await told(stack, application, chat) == posted(1, *BODIES)
    await stack.settle()
    assert await told(stack, application, chat) == posted(1, *BODIES)


async def test_of_a_run_whose_messages_were_changed_only_the_latest_is_seen(stack: OpenHouse) -> None:
    """Edits and deletions of messages in the midst of runs, before anything of them is applied."""
    application, chat = await stack.new_chat()
    await stack.post(application, chat, "one", "two", "three")
    await stack.edit(application, chat, 2, "TWO")
    await stack.post(application, chat, "four", "five")
    await stack.delete(application, chat, 1)
    await stack.edit(application, chat, 2, "Two")
    await stack.edit(application, chat, 5, "FIVE")
    expected = [(1, 7, None), (2, 8, "Two"), (3, 3, "three"), (4, 5, "four"), (5, 9, "FIVE")]
    assert await told(stack, application, chat) == expected
    await stack.settle()
    assert await told(stack, application, chat) == expected


async def test_a_change_that_is_applied_before_the_post_hides_it(stack: OpenHouse) -> None:
    """Order between consumers is not promised, and nobody sees the message as it was."""
    application, chat = await stack.new_chat()
    await stack.settle()
    await stack.post(application, chat, "one", "two", "three")
    before = list(await stack.journal.read(STORE, MANY))
    await stack.edit(application, chat, 2, "TWO")
    after = [entry for entry in await stack.journal.read(STORE, MANY) if entry not in before]
    await apply(stack, of(after, 2))
    expected = [(1, 1, "one"), (2, 4, "TWO"), (3, 3, "three")]
    assert await told(stack, application, chat) == expected
    await apply(stack, before)
    assert await told(stack, application, chat) == expected
    await stack.settle()
    assert await told(stack, application, chat) == expected


async def test_what_was_set_aside_is_seen_when_its_stream_entry_is_gone(stack: OpenHouse) -> None:
    """Both projections have taken everything else, and the journal was trimmed."""
    application, chat = await stack.new_chat()
    await stack.settle()
    await stack.post(application, chat, *BODIES)
    entries = list(await stack.journal.read(STORE, MANY))
    [poison] = of(entries, 3)
    await stack.journal.set_aside(STORE, poison, "poison")
    await apply(stack, [entry for entry in entries if entry is not poison])
    await stack.journal.acknowledge(SEARCH, list(await stack.journal.read(SEARCH, MANY)))
    await stack.post(application, chat, "later")
    await stack.settle()
    assert await told(stack, application, chat) == posted(1, *BODIES, "later")
    assert await stack.journal.retry(STORE) == 1
    await stack.settle()
    assert await told(stack, application, chat) == posted(1, *BODIES, "later")


async def test_any_course_of_posts_changes_and_applying_shows_what_was_done(
    stack: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By chance, but the same at each run: after each step readers see what a list would hold."""
    monkeypatch.setattr(gathering, "ROUND_MAX_REQUESTS", 3)
    chance = random.Random(20)
    application, chat = await stack.new_chat()
    expected: list[tuple[int, int, str | None]] = []
    for step in range(60):
        revision = max((revision for _, revision, _ in expected), default=0)
        choice = chance.random()
        alive = [number for number, _, body in expected if body is not None]
        if choice < 0.4 or not alive:
            bodies = [f"{step}.{index}" for index in range(chance.randint(1, 4))]
            await stack.post(application, chat, *bodies)
            expected += [(len(expected) + index, revision + index, body) for index, body in enumerate(bodies, 1)]
        elif choice < 0.7:
            number = chance.choice(alive)
            if chance.random() < 0.7:
                await stack.edit(application, chat, number, f"edit {step}")
                expected[number - 1] = (number, revision + 1, f"edit {step}")
            else:
                await stack.delete(application, chat, number)
                expected[number - 1] = (number, revision + 1, None)
        else:
            entries = list(await stack.journal.read(STORE, chance.choice([2, 5, MANY])))
            await apply(stack, chance.sample(entries, chance.randint(0, len(entries))))
        if step % 3 == 0:
            assert await told(stack, application, chat) == expected
    await stack.settle()
    assert await told(stack, application, chat) == expected


async def test_of_long_answers_few_are_asked_for_at_once(stack: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis would hold all that one call of a script answers, several times over, and answer nobody else."""
    application, chat = await stack.new_chat()
    body = "x" * 64_000
    for _ in range(40):
        await stack.post(application, chat, body)
    asked: list[int] = []
    decode = tail._decode_answers  # noqa: SLF001 - each call is one answer of the script

    def count(packed: bytes) -> Any:
        found = decode(packed)
        asked.append(len(found.answers))
        return found

    monkeypatch.setattr(tail, "_decode_answers", count)
    await stack.store.messages(application, chat, Window(MANY, 0))
    pages = await asyncio.gather(*(stack.store.messages(application, chat, Window(MANY, 0)) for _ in range(24)))
    assert [len(page) for page in pages] == [40] * 24
    assert max(asked) <= 2
    assert sum(asked) >= 25
