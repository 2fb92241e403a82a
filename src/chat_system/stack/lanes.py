"""Lanes: how the projections of this process get at the journal.

A lane is a consumer of its own. The first of a projection waits for what is recorded; others help while whole batches
wait, so that one lane reads and acknowledges in Redis while another's batch is being applied.

Not promised: order between the lanes of a projection. It is the same as between workers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from chat_system.ports import Backlog, Entry, Projection
from chat_system.stack.consuming import Consumer

GATHER_S = 0.2
"""How long a projection that has not read a whole batch lets entries gather: large ones cost each message much less.

Nobody notices: reads find on the tail what is not in MySQL yet, and Elasticsearch shows what it has once a second.
"""

LOOK_S = 1.0
"""How long it sleeps when nobody wakes it."""


class Lane:
    """A `ports.Source`. `wake` is set when something was recorded, `plenty` while whole batches are being read."""

    def __init__(
        self,
        consumer: Consumer,
        wake: asyncio.Event | None,
        plenty: asyncio.Event,
        backlog: Callable[[Projection], Awaitable[Backlog]],
    ) -> None:
        self.consumer = consumer
        self._wake = wake
        self._plenty = plenty
        self._backlog = backlog

    async def read(self, _projection: Projection, limit: int) -> Sequence[Entry]:
        """See `ports.Source.read`."""
        entries = await self.consumer.read(limit)
        if self.consumer.holds(limit):
            self._plenty.set()
        else:
            self._plenty.clear()
        if entries and self._wake is not None:
            self._wake.set()
        return entries

    async def acknowledge(self, _projection: Projection, entries: Sequence[Entry]) -> None:
        """See `ports.Source.acknowledge`."""
        await self.consumer.acknowledge(entries)

    async def set_aside(self, _projection: Projection, entry: Entry, error: str) -> None:
        """See `ports.Source.set_aside`."""
        await self.consumer.set_aside(entry, error)

    async def backlog(self, projection: Projection) -> Backlog:
        """See `ports.Source.backlog`: that of all lanes."""
        return await self._backlog(projection)

    async def wait(self, _projection: Projection) -> None:
        """See `ports.Source.wait`. What comes soon after an entry is taken with it."""
        if self._wake is None:
            # What it could not apply it still has.
            if not self.consumer.holds_any:
                await self._plenty.wait()
            return
        if not self._plenty.is_set():
            # Not `wait_for`: in Python 3.11 it takes a cancellation for the event if both come at once.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_S)
        self._wake.clear()
