"""Rates over all processes: the buckets are in Redis."""

from __future__ import annotations

import zlib

from chat_system.stack.redis import Redis, Script

_RATE = Script("rate")


class StackRates:
    """See `ports.Rates`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def take(self, bucket: str, cost_us: float, depth_us: float, wanted: int) -> tuple[int, float]:
        """See `ports.Rates.take`."""
        partition = zlib.crc32(bucket.encode()) % self._redis.partitions
        arguments = (bucket, repr(cost_us), repr(depth_us), wanted)
        granted, after_ms = (await self._redis.call(_RATE, [(partition, arguments)]))[0]
        return granted, after_ms / 1000
