"""Lanes: one process has several batches of a projection under way, and each fact in one of them only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat_system.ports import Entry
from chat_system.stack import consuming
from chat_system.stack.feed import WORKERS, StackFeed
from chat_system.stack.journal import StackJournal
from chat_system.stack.redis import Redis
from tests.contract.houses import OPENERS, OpenHouse
from tests.eventually import eventually
from tests.stack_place import stack_place

pytestmark = pytest.mark.skipif("stack" not in OPENERS, reason="only the stack house has lanes")

MESSAGES = 12
SHORT_S = 0.3


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """The stack house without a worker, in whose only chat some messages wait, each in a stream entry of its own."""
    house = OpenHouse(OPENERS["stack"], tmp_path)
    await house.open()
    application, chat = await house.new_chat()
    for number in range(1, MESSAGES + 1):
        await house.post(application, chat, f"message {number}")
    yield house
    await house.close()


def numbers(entries: list[Entry]) -> list[int]:
    """Which messages these are."""
    return [entry.message.number for entry in entries]


async def test_two_lanes_share_what_waits(stack: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has read and not acknowledged the other does not get; together they get all of it, once."""
    monkeypatch.setattr(consuming, "ENTRIES_PER_READ", 3)
    journal = stack.journal
    assert isinstance(journal, StackJournal)
    other = journal.another_lane("search")
    first = list(await journal.read("search", 2))
    second = list(await other.read("search", 2))
    assert numbers(first) == [1, 2]
    assert len(second) == 2
    assert min(numbers(second)) > 2
    await other.acknowledge("search", second)
    assert (await other.backlog("search")).entries == MESSAGES - 2
    got = numbers(second)
    for source in (journal, other):
        while entries := list(await source.read("search", MESSAGES)):
            await source.acknowledge("search", entries)
            got += numbers(entries)
    assert sorted(got) == list(range(1, MESSAGES + 1)), "the first two were read again: nobody had acknowledged them"
    assert (await journal.backlog("search")).entries == 0


async def test_another_lane_helps_only_while_whole_batches_wait(stack: OpenHouse) -> None:
    """It sleeps until one was read, and again after a smaller one; what it holds itself it tries again at once."""
    journal = stack.journal
    assert isinstance(journal, StackJournal)
    other = journal.another_lane("search")

    async def sleeps() -> bool:
        try:
            await asyncio.wait_for(other.wait("search"), SHORT_S)
        except TimeoutError:
            return True
        return False

    assert await sleeps()
    await journal.acknowledge("search", await journal.read("search", MESSAGES // 2))
    assert not await sleeps()
    await journal.acknowledge("search", await journal.read("search", MESSAGES))
    assert await sleeps()
    application, chat = await stack.new_chat()
    await stack.post(application, chat, "held")
    assert len(await other.read("search", MESSAGES)) == 1
    assert not await sleeps()


async def test_workers_are_told_when_something_comes_after_all_was_applied(stack: OpenHouse, tmp_path: Path) -> None:
    """And not of what comes while they are behind: they look for that by themselves."""
    settings = stack_place().settings(tmp_path, None)
    redis = Redis(settings.redis_url, settings.redis_prefix, settings.partitions)
    feed = StackFeed(redis, WORKERS)
    heard: list[None] = []

    async def anything() -> bool:
        return bool(heard)

    application, chat = await stack.new_chat()
    hearing = asyncio.create_task(feed.run())
    try:
        await feed.listening.wait()
        feed.on_any(lambda: heard.append(None))
        for _ in range(2):
            await stack.settle()
            heard.clear()
            for number in range(3):
                await stack.post(application, chat, f"message {number}")
            await eventually(anything, True)
            await asyncio.sleep(SHORT_S)
            assert len(heard) == 1
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await redis.close()
