"""Rounds: what a process asks of Redis while it waits for an answer goes together, and never without a bound."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from chat_system.stack import gathering as module
from chat_system.stack.gathering import Gathering
from chat_system.stack.redis import Redis, Script
from chat_system.stack.tail import APPLICATION
from tests.servers.redis import RedisCluster
from tests.servers.shared import run_servers

PARTITIONS = 2


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """A Redis that knows nothing under this prefix."""
    redis = Redis(run_servers().addresses().redis_url, f"rounds-{secrets.token_hex(5)}", PARTITIONS)
    yield redis
    await redis.close()


def encode(applications: Sequence[int]) -> list[bytes]:
    """Ask the tail whether these applications are erased."""
    return [msgspec.msgpack.encode([[APPLICATION, application] for application in applications])]


def decode(packed: bytes, asked: Sequence[int]) -> Sequence[int]:
    """How many questions were answered together, for each of them."""
    answers = msgspec.msgpack.decode(packed)[2]
    assert len(answers) == len(asked)
    return [len(asked)] * len(asked)


@pytest.mark.parametrize(
    ("most_bytes", "most_requests", "weights", "rounds"),
    [
        (100, 10, [40, 40, 40, 10, 90], [2, 2, 1]),
        (100, 10, [500, 500, 1, 99], [1, 1, 2]),
        (100, 3, [1] * 8, [3, 3, 2]),
        (100, 10, [1] * 8, [8]),
    ],
)
async def test_a_round_is_bounded_in_bytes_and_in_requests(
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    most_bytes: int,
    most_requests: int,
    weights: list[int],
    rounds: list[int],
) -> None:
    """What is too much goes into the next one, in its order; what is too large by itself goes alone."""
    monkeypatch.setattr(module, "ROUND_MAX_BYTES", most_bytes)
    monkeypatch.setattr(module, "ROUND_MAX_REQUESTS", most_requests)
    seen: list[int] = []
    gathering = Gathering(
        redis, Script("tail"), encode, decode, weigh=weights.__getitem__, observe=lambda count, _: seen.append(count)
    )
    answers = await asyncio.gather(*(gathering.ask(0, index) for index in range(len(weights))))
    assert seen == rounds
    assert answers == [count for count in rounds for _ in range(count)]
    await gathering.close()


async def test_a_round_asks_all_partitions_at_once(redis: Redis) -> None:
    """Each gets its own questions, and who asks is given the answer to the own one."""
    seen: list[int] = []
    gathering = Gathering(redis, Script("tail"), encode, decode, observe=lambda count, _: seen.append(count))
    answers = await asyncio.gather(*(gathering.ask(partition, 0) for partition in (0, 1, 1, 0, 1)))
    assert (seen, answers) == ([5], [2, 3, 3, 2, 3])
    await gathering.close()


async def test_of_a_cluster_a_silent_redis_holds_up_no_other(redis_cluster: RedisCluster) -> None:
    """Who asks another is answered meanwhile, again and again; who asked it is answered when it goes on."""
    redis = Redis(redis_cluster.url, f"rounds-{secrets.token_hex(5)}", 8)
    gathering = Gathering(redis, Script("tail"), encode, decode)
    # The first find out where everything is.
    for _ in range(2):
        await asyncio.gather(*(gathering.ask(partition, 0) for partition in range(8)))
    nodes = {partition: redis.node(partition) for partition in range(8)}
    silent = redis_cluster.nodes[0]
    on_it = [partition for partition in nodes if nodes[partition].endswith(f":{silent.port}")]
    elsewhere = [partition for partition in nodes if partition not in on_it]
    assert on_it
    assert elsewhere
    silent.freeze()
    try:
        waiting = [gathering.ask(partition, 0) for partition in nodes]
        for _ in range(3):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*(gathering.ask(partition, 0) for partition in elsewhere))
        assert [partition for partition in nodes if not waiting[partition].done()] == on_it
    finally:
        silent.thaw()
    await asyncio.gather(*waiting)
    await gathering.close()
    await redis.close()
