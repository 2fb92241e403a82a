"""Applies what the journal recorded: read, apply, acknowledge, and again.

A projector never loses an entry and never stops at one: what a backend that is away can't take is waited
for, what is itself at fault is tried alone, and after a few attempts set aside for an operator. Applying
must tolerate repetition: a crash between apply and acknowledge applies again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from chat_system.errors import Unavailable
from chat_system.ports import Backlog, Entry, Projection, Source
from chat_system.telemetry import SET_ASIDE_TOTAL, log

ATTEMPTS = 3
"""How often an entry is tried alone before it is set aside."""

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


class Projector:
    """Brings one projection up to the journal, `batch` entries at a time."""

    def __init__(
        self,
        projection: Projection,
        source: Source,
        apply: Callable[[Sequence[Entry]], Awaitable[None]],
        *,
        batch: int,
    ) -> None:
        self.projection = projection
        self._source = source
        self._apply = apply
        self._batch = batch
        self._stepping = asyncio.Lock()

    async def run(self) -> None:
        """Work until cancelled. Cancelling loses nothing: what was not acknowledged is read again."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._source.wait(self.projection)
                await self.step()
                delay_s = RETRY_FIRST_S
            except Unavailable as error:
                log.warning("projection waits", projection=self.projection, reason=error.detail, retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def drain(self) -> None:
        """Work until there is nothing left to read. Raises Unavailable when the backend is away."""
        while await self.step():
            pass

    async def step(self, batch: int | None = None) -> int:
        """Apply one batch; return how many entries were read. Raises Unavailable, having lost nothing."""
        async with self._stepping:
            entries = await self._source.read(self.projection, batch or self._batch)
            if entries:
                await self._take(entries)
        return len(entries)

    async def finish(self) -> None:
        """Let the step under way end, and begin no other."""
        await self._stepping.acquire()

    async def backlog(self) -> Backlog:
        """How far this projection is behind."""
        return await self._source.backlog(self.projection)

    async def _take(self, entries: Sequence[Entry]) -> None:
        try:
            await self._apply(entries)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must pass
            if len(entries) == 1:
                await self._insist(entries[0], error)
                return
            # One of them is at fault: halving finds it and lets the others pass.
            middle = len(entries) // 2
            await self._take(entries[:middle])
            await self._take(entries[middle:])
        else:
            await self._source.acknowledge(self.projection, entries)

    async def _insist(self, entry: Entry, error: Exception) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                await self._apply([entry])
            except Unavailable:
                raise
            except Exception as another:  # noqa: BLE001 - as above
                error = another
            else:
                await self._source.acknowledge(self.projection, [entry])
                return
        log.error("entry set aside", projection=self.projection, position=entry.position, error=repr(error))
        await self._source.set_aside(self.projection, entry, repr(error))
        SET_ASIDE_TOTAL.labels(self.projection).inc()
