"""What a process does until it is cancelled ends then, also when what it waited for comes in the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from chat_system.stack import feed
from chat_system.stack.lanes import Lane
from chat_system.worker import Pulse, _keep_measuring

END_TIMEOUT_S = 5.0


async def ends_in_the_moment_of(event: asyncio.Event, task: asyncio.Task[None]) -> bool:
    """Whether a task that waits for the event ends when the event and the call to end come at once."""
    await asyncio.sleep(0.01)
    event.set()
    task.cancel()
    await asyncio.wait({task}, timeout=END_TIMEOUT_S)
    ended = task.done() and task.cancelled()
    task.cancel()
    return ended


async def test_a_lane_that_is_ended_in_the_moment_of_a_message_ends() -> None:
    """Else it would wait for a step that never comes, and the worker for it."""
    wake = asyncio.Event()
    lane = Lane(cast(Any, None), wake, asyncio.Event(), cast(Any, None))
    assert await ends_in_the_moment_of(wake, asyncio.create_task(lane.wait("store")))


async def test_measuring_that_is_ended_in_the_moment_of_a_figure_ends() -> None:
    """Else the worker would measure for ever, and not stop."""
    there = asyncio.Event()

    class House:
        async def measure(self) -> None:
            await there.wait()

    assert await ends_in_the_moment_of(there, asyncio.create_task(_keep_measuring(cast(Any, House()), Pulse())))


async def test_a_feed_that_is_ended_in_the_moment_when_redis_goes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told to end together, as a rule. Else it would try for ever to hear from it, and the server not stop."""
    lines: list[Callable[[], None]] = []

    class Line:
        def __init__(self, _opened: Any, _hear: Any, lost: Callable[[], None]) -> None:
            lines.append(lost)

        def say(self, *_words: Any) -> None:
            pass

        def cut(self) -> None:
            pass

    class Redis:
        partitions = 1

        def key(self, _partition: int, name: str) -> str:
            return name

        async def open(self, _node: str) -> None:
            pass

    monkeypatch.setattr(feed, "Connection", Line)
    task = asyncio.create_task(feed.StackFeed(cast(Any, Redis())).run())
    await asyncio.sleep(0.01)
    [lost] = lines
    lost()
    task.cancel()
    await asyncio.wait({task}, timeout=END_TIMEOUT_S)
    assert task.cancelled()
