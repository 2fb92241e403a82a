"""Redis: the connection, our scripts, and what its failures mean.

Whatever must be atomic is a Lua script (`scripts/`) that touches one partition; the keys of a partition share a
hash tag, so the same calls work on one server and on a Redis Cluster.

Nothing is ever sent twice by itself: a call whose answer was lost may have been carried out, and only the caller
knows whether repeating it is harmless.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, RedisCluster
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from chat_system.errors import ConfigurationError, Unavailable

TIMEOUT_S = 5.0
"""How long Redis may take to answer. It flushes its file before it does."""

CONNECTIONS = 64

SCRIPTS = Path(__file__).parent / "scripts"

_FAILURES = (RedisError, OSError, RuntimeError, AttributeError)
"""What its client raises: the last two of a connection that was closed while it was used."""

_STATES = (ReadOnlyError, ClusterDownError, TryAgainError, NoPermissionError)
"""Errors of the state that Redis is in, which the client has taken their names from."""

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


_DATABASE = re.compile(r"/?[0-9]*")


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
        if not _DATABASE.fullmatch(parts.path):
            raise ConfigurationError("CHAT_REDIS_URL must end with the number of a database, if it names one.")
        scheme, _, cluster = parts.scheme.partition("+")
        self.is_cluster = bool(cluster)
        self._url = urlunsplit(parts._replace(scheme=scheme))
        self.where = f"{parts.hostname}:{parts.port or 6379} ({prefix})"
        self.partitions = partitions
        self._metas = [f"{prefix}:{{p{partition}}}:meta".encode() for partition in range(partitions)]
        self._prefixes = [f"{prefix}:{{p{partition}}}:".encode() for partition in range(partitions)]
        self.client: Any = self.connect()
        self._others: list[Callable[[], None]] = []
        self._meeting = asyncio.Lock()
        self._has_met = not self.is_cluster

    def connect(self) -> Any:
        """Another client. It connects when it is first used.

        Raises:
            ConfigurationError: the address has options that there are not.
        """
        options: dict[str, Any] = {
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
        }
        try:
            if self.is_cluster:
                return RedisCluster.from_url(self._url, **options)
            # Who finds all connections in use waits for one.
            pool = BlockingConnectionPool.from_url(self._url, max_connections=CONNECTIONS, timeout=TIMEOUT_S, **options)
            # It finds fault with the options.
            pool.make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"CHAT_REDIS_URL can't be used: {error}.") from error
        return Client.from_pool(pool)

    def node(self, partition: int) -> str:
        """The name of the Redis that has a partition: of a cluster, where it was seen last."""
        return str(self.client.get_node_from_key(self._metas[partition].decode()).name) if self.is_cluster else ""

    async def open(self, node: str) -> Any:
        """A connection to a Redis by its name, for a use of its own: neither pooled nor closed here."""
        if self.is_cluster:
            await self._meet_once()
            found = self.client.get_node(node_name=node) if node else self.client.get_default_node()
            connection = found.connection_class(**found.connection_kwargs)
        else:
            connection = self.client.connection_pool.make_connection()
        await connection.connect()
        return connection

    def on_close(self, close: Callable[[], None]) -> None:
        """Have something closed with it that was opened for a use of its own."""
        self._others.append(close)

    async def close(self) -> None:
        """Close all connections."""
        for close in self._others:
            close()
        await self.client.aclose()

    def partition(self, application: int) -> int:
        """Where all of an application's keys are."""
        return application % self.partitions

    def meta(self, partition: int) -> bytes:
        """The key that all scripts are given."""
        return self._metas[partition]

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
        """The keys of a partition; some may come twice. Raises Unavailable."""
        options = {"count": count}
        if self.is_cluster:
            options["target_nodes"] = self.client.get_node_from_key(self._metas[partition].decode())
        # In a pattern, brackets would be a choice of characters; our prefix has braces only.
        try:
            async for key in self.client.scan_iter(self.key(partition, pattern), **options):
                yield key
        except _FAILURES as error:
            raise unavailable(error) from error

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
        except _FAILURES as error:
            raise unavailable(error) from error
        return max((int(info["used_memory"]), int(info.get("maxmemory", 0))) for info in infos)

    async def _meet_once(self) -> None:
        """Let a cluster's client get to know the nodes: several at once would close each other's connections."""
        if self._has_met:
            return
        async with self._meeting:
            if not self._has_met:
                await self.client.initialize()
                self._has_met = True

    async def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers; errors that Redis itself answered stand among them."""
        try:
            await self._meet_once()
            if self.is_cluster or len(commands) == 1:
                return list(await asyncio.gather(*(_answer(self.client, command) for command in commands)))
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))
        except _FAILURES as error:
            raise unavailable(error) from error


async def _answer(client: Any, command: tuple[Any, ...]) -> Any:
    try:
        return await client.execute_command(*command)
    except ResponseError as error:
        return error


def _checked(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise unavailable(answer) from answer
    return answer


def unavailable(error: Exception) -> Unavailable:
    """What an error means for a caller. A defect of ours is none of it, and is raised as it is."""
    if not isinstance(error, _FAILURES):
        raise error
    if isinstance(error, OutOfMemoryError):
        return Unavailable("Redis has no memory left for writes.")
    if isinstance(error, ResponseError) and str(error).startswith("DB index"):
        return Unavailable("Redis does not have the database that CHAT_REDIS_URL names.")
    if isinstance(error, ResponseError) and not isinstance(error, _STATES) and not str(error).startswith(_WAITING):
        raise error
    if isinstance(error, RedisClusterException):
        return Unavailable("The Redis Cluster is away.")
    return Unavailable("Redis is away.")
