"""A database, a key prefix and an index of one's own on a set of servers, made and dropped from synchronous code.

Not promised: that dropping succeeds on servers that are away. It is for tidying up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import asyncmy
import httpx
import redis
from redis.cluster import RedisCluster

from tests.servers.shared import Addresses

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30
KEYS_PER_CALL = 1000
KEPT_TABLES = {"alembic_version"}
"""What says how far the schema is."""


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end in a loop and thread of its own, whether or not a loop runs here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class Storage:
    """A place for one house on given servers. Its name is new and, read as a prefix, nobody else's."""

    def __init__(self, addresses: Addresses, kind: str = "house") -> None:
        self.addresses = addresses
        self.name = f"{kind}-{secrets.token_hex(5)}"

    @property
    def database(self) -> str:
        """The name of the MySQL database."""
        return self.name.replace("-", "_")

    @property
    def mysql_url(self) -> str:
        """The database, once `create_database` has made it."""
        return f"{self.addresses.mysql_url}/{self.database}"

    def create_database(self) -> None:
        """Make the MySQL database, empty."""
        self.execute(f"CREATE DATABASE {self.database}", database="")

    def execute(self, *statements: str, database: str | None = None) -> list[list[tuple[Any, ...]]]:
        """Run SQL on the MySQL database; the rows of each statement."""
        return apart(self._execute(statements, self.database if database is None else database))

    def empty_tables(self) -> None:
        """Delete all rows. Numbers that MySQL allots go on, so that no identity comes again."""
        query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{self.database}'"
        [tables] = self.execute(query)
        self.execute(*(f"DELETE FROM `{table}`" for (table,) in tables if table not in KEPT_TABLES))

    def drop(self, servers: Addresses | None = None) -> None:
        """Remove the database, the keys and the indices; of different servers, on those only that are named too."""
        named = servers or self.addresses
        if named.redis_url == self.addresses.redis_url:
            self.drop_keys(self.name)
        if named.elasticsearch_url == self.addresses.elasticsearch_url:
            self.drop_indices()
        if named.mysql_url == self.addresses.mysql_url:
            self.execute(f"DROP DATABASE {self.database}", database="")

    def drop_keys(self, prefix: str, redis_url: str | None = None) -> None:
        """Remove all keys of Redis that begin with the prefix."""
        client = redis_client(redis_url or self.addresses.redis_url)
        try:
            keys: list[bytes] = []
            for key in client.scan_iter(match=f"{prefix}*", count=KEYS_PER_CALL):
                keys.append(key)
                if len(keys) == KEYS_PER_CALL:
                    _unlink(client, keys)
                    keys = []
            _unlink(client, keys)
        finally:
            client.close()

    def drop_indices(self) -> None:
        """Remove all indices whose name begins with this one's, aliases included."""
        url = self.addresses.elasticsearch_url
        with httpx.Client(base_url=url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
            found = http.get(f"/_cat/indices/{self.name}*", params={"format": "json"}).raise_for_status().json()
            for index in found:
                http.delete(f"/{index['index']}").raise_for_status()

    async def _execute(self, statements: Sequence[str], database: str) -> list[list[tuple[Any, ...]]]:
        parts = urlsplit(self.addresses.mysql_url)
        connection = await asyncmy.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=database or None,
            autocommit=True,
            connect_timeout=ANSWER_TIMEOUT_S,
        )
        rows = []
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                    rows.append(list(await cursor.fetchall()))
        finally:
            await connection.ensure_closed()
        return rows


def redis_client(url: str) -> Any:
    """A synchronous client of a Redis or, with `+cluster` in its scheme, of a Redis Cluster."""
    if "+cluster" in url:
        return RedisCluster.from_url(url.replace("+cluster", ""))
    return redis.Redis.from_url(url, socket_timeout=ANSWER_TIMEOUT_S)


def _unlink(client: Any, keys: list[bytes]) -> None:
    # One by one in a cluster, where a command may name keys of one slot only.
    if isinstance(client, RedisCluster):
        for key in keys:
            client.unlink(key)
    elif keys:
        client.unlink(*keys)
