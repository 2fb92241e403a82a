"""Redis: the connection, our scripts, and what its failures mean.

Whatever must be atomic is a Lua script (`scripts/`) that touches one partition; the keys of a partition share a
hash tag, so the same calls work on one server and on a Redis Cluster.

Nothing is ever sent twice by itself: a call whose answer was lost may have been carried out, and only the caller
knows whether repeating it is harmless.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, RedisCluster
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from chat_system.errors import Unavailable
from chat_system.telemetry import log

TIMEOUT_S = 5.0
"""How long Redis may take to answer. It flushes its file before it does."""

CONNECTIONS = 64

ROUND_MAX_REQUESTS = 2_000
ROUND_MAX_BYTES = 4 * 1024 * 1024
"""Of one round of a `Gathering`, unless a single request is larger: Redis answers nobody else meanwhile."""

SCRIPTS = Path(__file__).parent / "scripts"

_WAITING = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "NOREPLICAS",
    "MISCONF",
    "UNBLOCKED",
)
"""Answers that say: not now."""


class Script:
    """One of ours: its text, and the digest by which Redis knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Redis:
    """One Redis, or one cluster, under one prefix."""

    def __init__(self, url: str, prefix: str, partitions: int) -> None:
        parts = urlsplit(url)
        scheme, _, cluster = parts.scheme.partition("+")
        self.is_cluster = bool(cluster)
        self._url = urlunsplit(parts._replace(scheme=scheme))
        self.where = f"{parts.hostname}:{parts.port or 6379} ({prefix})"
        self.partitions = partitions
        self._metas = [f"{prefix}:{{p{partition}}}:meta".encode() for partition in range(partitions)]
        self._prefixes = [f"{prefix}:{{p{partition}}}:".encode() for partition in range(partitions)]
        self.client: Any = self.connect()
        self._meeting = asyncio.Lock()
        self._has_met = not self.is_cluster

    def connect(self) -> Any:
        """Another client. It connects when it is first used."""
        options: dict[str, Any] = {
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
        }
        if self.is_cluster:
            return RedisCluster.from_url(self._url, **options)
        # Who finds all connections in use waits for one.
        return Client.from_pool(
            BlockingConnectionPool.from_url(self._url, max_connections=CONNECTIONS, timeout=TIMEOUT_S, **options)
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    def partition(self, application: int) -> int:
        """Where all of an application's keys are."""
        return application % self.partitions

    def key(self, partition: int, name: str) -> bytes:
        """A key of a partition."""
        return self._prefixes[partition] + name.encode()

    async def call(self, script: Script, calls: Sequence[tuple[int, Sequence[Any]]]) -> list[Any]:
        """Run a script once for each (partition, arguments); all answers, or the first failure.

        Raises:
            Unavailable: Redis is away or refuses; some of the calls may have been carried out.
        """
        answers = await self._send(
            [("EVALSHA", script.digest, 1, self._metas[partition], *arguments) for partition, arguments in calls]
        )
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # After a restart. What Redis does not know it has not carried out.
            again = await self._send(
                [("EVAL", script.text, 1, self._metas[calls[index][0]], *calls[index][1]) for index in unknown]
            )
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        return [_checked(answer) for answer in answers]

    async def commands(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands, each with its keys in one partition; all answers, or the first failure."""
        return [_checked(answer) for answer in await self._send(commands)]

    async def command(self, *command: Any) -> Any:
        """Send one command."""
        return (await self.commands([command]))[0]

    async def keys(self, partition: int, pattern: str, count: int) -> AsyncIterator[bytes]:
        """The keys of a partition; some may come twice."""
        options = {"count": count}
        if self.is_cluster:
            options["target_nodes"] = self.client.get_node_from_key(self._metas[partition].decode())
        # In a pattern, brackets would be a choice of characters; our prefix has braces only.
        async for key in self.client.scan_iter(self.key(partition, pattern), **options):
            yield key

    async def ping(self) -> None:
        """Raises Unavailable."""
        await self.command("EXISTS", self._metas[0])

    async def memory(self) -> tuple[int, int]:
        """Bytes in use and `maxmemory` (0: unlimited); of a cluster, those of the node that uses most."""
        try:
            if self.is_cluster:
                found = await self.client.execute_command("INFO", "memory", target_nodes=RedisCluster.PRIMARIES)
                infos = list(found.values()) if "used_memory" not in found else [found]
            else:
                infos = [await self.client.info("memory")]
        except (TimeoutError, RedisError, OSError) as error:
            raise _unavailable(error) from error
        return max((int(info["used_memory"]), int(info.get("maxmemory", 0))) for info in infos)

    async def _meet(self) -> None:
        """Let a cluster's client get to know the nodes, once: several at once close each other's connections."""
        async with self._meeting:
            if not self._has_met:
                await self.client.initialize()
                self._has_met = True

    async def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers; errors that Redis itself answered stand among them."""
        try:
            if not self._has_met:
                await self._meet()
            if self.is_cluster or len(commands) == 1:
                return list(await asyncio.gather(*(_answer(self.client, command) for command in commands)))
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))
        except (TimeoutError, RedisError, OSError) as error:
            raise _unavailable(error) from error


async def _answer(client: Any, command: tuple[Any, ...]) -> Any:
    try:
        return await client.execute_command(*command)
    except ResponseError as error:
        return error


def _checked(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise _unavailable(answer) from answer
    return answer


def _unavailable(error: Exception) -> Unavailable:
    """What an error means for a caller. A defect of ours is none of it, and is raised as it is."""
    if isinstance(error, OutOfMemoryError):
        return Unavailable("Redis has no memory left for writes.")
    if isinstance(error, ResponseError) and not str(error).startswith(_WAITING):
        raise error
    if isinstance(error, RedisClusterException):
        return Unavailable("The Redis Cluster is away.")
    return Unavailable("Redis is away.")


_Round = dict[int, list[tuple[Any, asyncio.Future[Any]]]]


class Gathering:
    """Calls of one script, gathered: what comes while one round is under way goes together into the next.

    The calls of a partition become one call of the script, so a hundred clients share one round trip, and one
    fsync. What is too much for one round waits for the one after. `encode` makes the script's arguments of a
    partition's requests, `decode` their answers of its answer and their number; `weigh` says about how many bytes a
    request costs Redis.
    """

    def __init__(
        self,
        redis: Redis,
        script: Script,
        encode: Callable[[Sequence[Any]], Sequence[Any]],
        decode: Callable[[bytes, int], Sequence[Any]],
        *,
        weigh: Callable[[Any], int] = lambda _: 0,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._redis = redis
        self._script = script
        self._encode = encode
        self._decode = decode
        self._weigh = weigh
        self._observe = observe
        self._waiting: deque[tuple[int, Any, asyncio.Future[Any]]] = deque()
        self._round: asyncio.Task[None] | None = None

    def ask(self, partition: int, request: Any) -> asyncio.Future[Any]:
        """The answer to one request, in some time. If the caller leaves, the request stands all the same."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((partition, request, future))
        if self._round is None:
            self._round = asyncio.create_task(self._run())
        return future

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._round is not None:
            await asyncio.wait([self._round])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                asked = self._next_round()
                started = loop.time()
                try:
                    await self._ask_all(asked)
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must be told
                    if not isinstance(error, Unavailable):
                        log.exception("script failed", script=self._script.name)
                    for _, future in chain.from_iterable(asked.values()):
                        if not future.done():
                            future.set_exception(_own(error))
                if self._observe is not None:
                    self._observe(sum(map(len, asked.values())), loop.time() - started)
        finally:
            self._round = None

    def _next_round(self) -> _Round:
        """By partition what is asked next, in the order in which it came."""
        asked: _Round = {}
        weight = 0
        for _ in range(min(len(self._waiting), ROUND_MAX_REQUESTS)):
            partition, request, future = self._waiting[0]
            weight += self._weigh(request)
            if asked and weight > ROUND_MAX_BYTES:
                break
            self._waiting.popleft()
            asked.setdefault(partition, []).append((request, future))
        return asked

    async def _ask_all(self, asked: _Round) -> None:
        calls = [
            (partition, self._encode([request for request, _ in requests])) for partition, requests in asked.items()
        ]
        answers = await self._redis.call(self._script, calls)
        for requests, answer in zip(asked.values(), answers, strict=True):
            for (_, future), one in zip(requests, self._decode(answer, len(requests)), strict=True):
                if not future.done():
                    future.set_result(one)


def _own(error: Exception) -> Exception:
    # Each waits in a task of its own: one exception raised in many would mix up their tracebacks.
    if isinstance(error, Unavailable):
        own = Unavailable(error.detail)
        own.__cause__ = error.__cause__
        return own
    return error
