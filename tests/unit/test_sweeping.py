"""House.run: the sweep comes round by itself, is called at once when something was erased, and outlives a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from chat_system import wiring
from chat_system.errors import Unavailable
from chat_system.wiring import House
from tests.eventually import eventually

END_TIMEOUT_S = 5.0


class Swept:
    """A system that has so many pieces to remove, and may fail."""

    def __init__(self, pieces: int = 0) -> None:
        self.pieces = pieces
        self.calls = 0
        self.failures: list[Exception] = []

    async def sweep(self) -> bool:
        """Remove a piece; True when more remains."""
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.pieces = max(0, self.pieces - 1)
        return self.pieces > 0

    async def reaches(self, calls: int) -> None:
        """Wait until it was called so often."""

        async def reached() -> bool:
            return self.calls >= calls

        await eventually(reached, True)


@asynccontextmanager
async def running(system: Swept, **fields: Any) -> AsyncIterator[House]:
    """A house that does nothing but sweep."""
    nothing = cast(Any, None)
    house = House(cast(Any, system), nothing, nothing, nothing, nothing, where="", projections=(), **fields)
    task = asyncio.create_task(house.run())
    try:
        yield house
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=END_TIMEOUT_S)
        assert task.done(), "it was cancelled, and goes on"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of no length."""
    monkeypatch.setattr(wiring, "SWEEP_PAUSE_S", 0.0)


async def test_a_sweep_takes_all_pieces_and_comes_round_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and after each interval."""
    monkeypatch.setattr(wiring, "SWEEP_EVERY_S", 0.01)
    system = Swept(pieces=5)
    async with running(system):
        await system.reaches(5)
        assert system.pieces == 0
        system.pieces = 3
        await system.reaches(system.calls + 10)
        assert system.pieces == 0


async def test_a_sweep_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away, and a defect alike: what was erased must not stay for ever."""
    monkeypatch.setattr(wiring, "SWEEP_EVERY_S", 0.01)
    system = Swept(pieces=2)
    system.failures = [Unavailable("away"), ZeroDivisionError("a defect")]
    async with running(system):
        await system.reaches(4)
        assert system.pieces == 0


async def test_an_erasure_does_not_wait_for_the_next_round() -> None:
    """The interval is a minute; whoever sets `sweep_now` is served at once, each time."""
    system = Swept()
    async with running(system) as house:
        for calls in (1, 2, 3):
            await system.reaches(calls)
            await asyncio.sleep(0.01)
            assert system.calls == calls
            house.sweep_now.set()
        await system.reaches(4)


async def test_a_house_that_is_ended_in_the_moment_of_an_erasure_ends() -> None:
    """The call to sweep does not swallow the call to end: the server would not stop."""
    system = Swept()
    async with running(system) as house:
        await system.reaches(1)
        await asyncio.sleep(0.01)
        house.sweep_now.set()
        # Both are there when it next runs.


async def test_a_house_that_does_not_sweep_leaves_it_to_others() -> None:
    """In stack mode the API processes: the workers do."""
    system = Swept(pieces=1)
    async with running(system, sweeps=False):
        await asyncio.sleep(0.05)
    assert system.calls == 0
