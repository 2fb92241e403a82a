"""Rate limits are counted over all processes: who spreads requests over them gets no more than who does not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest

from tests.api.problems import expect_problem
from tests.api.processes import PROCESSES, all_serve, answered_by, fresh_connections
from tests.client import expect
from tests.conftest import BuildHouse, only
from tests.houses import House

REQUESTS = 120
AT_ONCE = 8
RATE_PER_S, BURST = 2, 20
UNKNOWN_RATE_PER_S = 5

pytestmark = only("stack", because="one SQLite file has one process")


@pytest.fixture
async def several(serve: BuildHouse) -> House:
    """A house of several processes with low limits."""
    limits = {"rate_per_s": RATE_PER_S, "rate_burst": BURST, "unknown_rate_per_s": UNKNOWN_RATE_PER_S}
    house = serve(processes=PROCESSES, **limits)
    await all_serve(house)
    return house


@pytest.fixture
async def fresh(several: House) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a connection of its own for each request."""
    async with fresh_connections(several) as client:
        yield client


async def spread(fresh: httpx.AsyncClient, paths: Iterable[str]) -> list[httpx.Response]:
    """Read all of these over many connections; every process was asked."""
    waiting = asyncio.Semaphore(AT_ONCE)

    async def read(path: str) -> httpx.Response:
        async with waiting:
            return await fresh.get(path)

    answers = await asyncio.gather(*map(read, paths))
    assert len({answered_by(answer) for answer in answers}) == PROCESSES
    return answers


async def test_an_application_has_one_bucket_for_all_processes(fresh: httpx.AsyncClient) -> None:
    """Through three of them at once: the burst and the rate of one, not of three."""
    token = expect(await fresh.post("/applications", json={"name": "busy"}), 201).json()["token"]
    began = time.monotonic()
    answers = await spread(fresh, [f"/applications/{token}/chats"] * REQUESTS)
    took_s = time.monotonic() - began
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    assert BURST <= statuses[200] <= BURST + took_s * RATE_PER_S + 1
    for answer in answers:
        if answer.status_code == 200:
            assert not {"retry-after", "ratelimit", "ratelimit-policy"} & set(answer.headers)
        else:
            expect_problem(answer, 429, "too_many")
            assert answer.headers["ratelimit-policy"] == f'"application";q={BURST};w={BURST // RATE_PER_S}'
            wait_s = int(answer.headers["retry-after"])
            assert wait_s >= 1
            assert answer.headers["ratelimit"] == f'"application";r=0;t={wait_s}'


async def test_guesses_of_an_address_have_one_bucket_for_all_processes(fresh: httpx.AsyncClient) -> None:
    """Unknown tokens, tried through three of them: twice the rate at once, then the rate, not three times that."""
    began = time.monotonic()
    answers = await spread(fresh, [f"/applications/{number:A>43}/chats" for number in range(REQUESTS)])
    took_s = time.monotonic() - began
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {404, 429}
    burst = 2 * UNKNOWN_RATE_PER_S
    assert burst <= statuses[404] <= burst + took_s * UNKNOWN_RATE_PER_S + 1
    policies = {answer.headers.get("ratelimit-policy") for answer in answers if answer.status_code == 429}
    assert policies == {f'"unknown-token";q={burst};w=2'}
