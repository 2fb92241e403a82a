"""Waiting for what the contract promises "normally within 2 s": counts, the search index.

The deadline is far above the promise, because a test must not fail on a busy machine. How long it really
takes is the benchmarks' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 15.0
POLL_INTERVAL_S = 0.05


async def eventually(read: Callable[[], Awaitable[T]], wanted: T) -> None:
    """Read again and again until the wanted value comes; fail with the last one after DEADLINE_S."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while (last := await read()) != wanted:
        assert loop.time() < deadline, f"wanted {wanted!r}, last read {last!r}"
        await asyncio.sleep(POLL_INTERVAL_S)
