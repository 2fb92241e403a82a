"""Several processes on one port (`CHAT_PROCESSES`), and how a test makes sure that it meets all of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.eventually import eventually
from tests.houses import House

PROCESSES = 3
ENOUGH_CONNECTIONS = 40
"""So many that all processes answer some: a connection goes to each of three alike."""


@asynccontextmanager
async def fresh_connections(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a connection of its own for each request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=house.url, limits=limits, trust_env=False, timeout=30.0) as client:
        yield client


def processes_of(house: House) -> list[int]:
    """The processes that serve or have served, in the order in which they began."""
    return [int(found) for found in re.findall(r"\bserving\b.*\bprocess=(\d+)", house.log_text())]


async def all_serve(house: House, more: int = 0) -> None:
    """Wait until each process of the house has said that it serves, and as many more as have replaced one."""

    async def count() -> int:
        return len(processes_of(house))

    await eventually(count, PROCESSES + more)


def answered_by(response: httpx.Response) -> str:
    """Which process it was: the request ids that it makes begin alike."""
    return str(response.headers["x-request-id"]).rsplit("-", 1)[0]
