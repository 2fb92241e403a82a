"""Epochs: what happens when Redis knows nothing of a partition, because it is new or because Redis has lost its data.

The store raises the partition's epoch, after what is being applied, and from then on refuses what was read of the
epochs before: their numbers may be given again. Only then does Redis begin the new epoch, and the counters are seeded
from the store.

Not promised: what Redis had accepted and nobody had applied when it lost its data.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from chat_system.errors import NotFound, Unavailable
from chat_system.model import ApplicationId
from chat_system.stack.redis import Redis, Script
from chat_system.telemetry import EPOCHS_RAISED, log

_BEGIN = Script("begin")


class EpochKeeper(Protocol):
    """What the store does for it. All raise Unavailable when it is away."""

    async def begin_epoch(
        self, partition: int, known: Callable[[], Awaitable[int]], begin: Callable[[int, bool], Awaitable[int]]
    ) -> int:
        """Begin an epoch of a partition, one process at a time; the epoch in force.

        `known` claims the beginning, and tells the epoch that is in force by now (0: none). Then the epoch is
        raised, when nothing of an older one is being applied any more: from then on nothing of it is. `begin`
        begins it, unless somebody else has claimed, and tells the epoch in force; it is told, too, whether any
        idempotency key is kept.
        """

    async def last_chat(self, application: ApplicationId) -> int | None:
        """None for an application that is unknown or erased."""

    def forget_tokens(self) -> None:
        """Ask anew which token opens which application: Redis does not know any more which were erased."""


class Epochs:
    """Begins them, and notices when others did."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._beginning: dict[int, asyncio.Future[int]] = {}
        self._keeper: EpochKeeper

    def connect(self, keeper: EpochKeeper) -> None:
        """Give it the store, which is made later."""
        self._keeper = keeper

    async def begin(self, partition: int) -> int:
        """Begin a partition of which Redis knows nothing; the epoch in force.

        Raises:
            Unavailable: MySQL or Redis is away, or others take long over it.
        """
        beginning = self._beginning.get(partition)
        if beginning is None:
            beginning = self._beginning[partition] = asyncio.ensure_future(self._begin(partition))
            beginning.add_done_callback(functools.partial(self._end, partition))
        return await asyncio.shield(beginning)

    def _end(self, partition: int, beginning: asyncio.Future[int]) -> None:
        self._beginning.pop(partition, None)
        if not beginning.cancelled():
            # Those who waited may all have left: then a failure is nobody's, and not to be complained of.
            beginning.exception()

    async def renewed(self, partition: int, application: ApplicationId, epoch: int) -> int:
        """A partition is in another epoch (0: in none) than was known: is the application still there?

        Raises:
            NotFound: it was erased.
        """
        if not epoch:
            epoch = await self.begin(partition)
        self._keeper.forget_tokens()
        if await self._keeper.last_chat(application) is None:
            raise NotFound
        return epoch

    async def _begin(self, partition: int) -> int:
        beginner = secrets.token_hex(8)

        async def call(epoch: int, *, knows_all: bool) -> int:
            arguments = (beginner, epoch, int(knows_all))
            return int((await self._redis.call(_BEGIN, [(partition, arguments)]))[0])

        async def begin(epoch: int, has_receipts: bool) -> int:
            knows_all = not has_receipts
            if epoch == 1:
                log.info("first epoch begins", partition=partition)
            else:
                EPOCHS_RAISED.inc()
                log.warning("epoch begins", partition=partition, epoch=epoch, keys_known=knows_all)
            return await call(epoch, knows_all=knows_all)

        epoch = await self._keeper.begin_epoch(partition, lambda: call(0, knows_all=False), begin)
        self._keeper.forget_tokens()
        if not epoch:
            raise Unavailable("The journal is being set up by another process.")
        return epoch
