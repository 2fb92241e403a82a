"""Limit: a script that counts and appends to a stream, called once for each batch, and nothing else.

What Redis and its client can do with the same bytes: a call carries as many bytes as a batch's messages, the script
adds to one counter and one stream entry. Durable as the server is told to be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop
from redis.asyncio import Redis

APPEND = """
redis.call('INCRBY', KEYS[1] .. ':count', ARGV[1])
return redis.call('XADD', KEYS[1] .. ':stream', '*', 'n', ARGV[2])
"""
KEY = "{bench-raw}"


@dataclass(frozen=True)
class Calls:
    """Batches to append in turn, by so many callers at once, for so long."""

    url: str
    batches: Sequence[bytes]
    messages: int
    callers: int
    seconds: float


def run_calls(calls: Calls) -> dict[str, float]:
    """Messages a second."""
    return uvloop.run(_run(calls))


async def _run(calls: Calls) -> dict[str, float]:
    client = Redis.from_url(calls.url, max_connections=calls.callers)
    digest = await client.script_load(APPEND)
    deadline = time.perf_counter() + calls.seconds
    done = 0

    async def call(caller: int) -> None:
        nonlocal done
        turn = caller
        while time.perf_counter() < deadline:
            batch = calls.batches[turn % len(calls.batches)]
            await client.evalsha(digest, 1, KEY, calls.messages, batch)
            turn += calls.callers
            done += 1

    started_at = time.perf_counter()
    try:
        await asyncio.gather(*(call(caller) for caller in range(calls.callers)))
        seconds = time.perf_counter() - started_at
    finally:
        await client.delete(f"{KEY}:count", f"{KEY}:stream")
        await client.aclose()
    return {"answers_per_s": done / seconds, "messages_per_s": done * calls.messages / seconds}
