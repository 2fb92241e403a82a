"""A stack house whose servers can be taken away from it, and what must be true of it when they are back.

Its Redis is its own, to be killed, emptied and looked into. MySQL and Elasticsearch are those of the run, unless the
test brings its own; between the house and each of the three is a wire (tests/faults/wire.py).

`whole` is the end of every test: all was applied and nothing set aside, the clients' log and the final reading agree,
the search index holds what MySQL holds, `chat-system check` finds nothing, and no process has met with a defect. For
any house it is `assert_whole` (tests/faults/whole.py).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncmy
import httpx
import redis

from tests.faults.load import Load
from tests.faults.logs import tracebacks
from tests.faults.wire import Wire
from tests.houses import House, StackHouse
from tests.servers.redis import RedisServer
from tests.servers.shared import Addresses
from tests.servers.storage import Storage, redis_client

SETTLE_TIMEOUT_S = 60.0
"""How long the projections may take to catch up. Far above what they need: this machine may be busy."""

COMMAND_TIMEOUT_S = 90.0
POLL_INTERVAL_S = 0.1
DOCUMENTS_MAX = 200_000
EPOCH_STEP = 2**40
"""A document's version is its message's revision, and so much more for each epoch of the journal."""

STORE, SEARCH = "store", "search"

Rows = dict[tuple[int, int, int], tuple[int, str | None]]
"""Revision and folded body (None: deleted) by application, chat and number."""


async def until(true: Callable[[], Awaitable[bool]], what: str, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + timeout_s
    while not await true():
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not so: {what}"
        await asyncio.sleep(POLL_INTERVAL_S)


async def command(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `chat-system` beside a house, as its operator would."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "chat_system", *words],
        env={**house.environment(), "COLUMNS": "400"},
        cwd=house.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


@dataclass
class Stack:
    """A stack house, and its place on the servers."""

    house: StackHouse
    direct: Storage

    async def start(self) -> None:
        """Start the API process, and the worker unless the test stopped it."""
        await asyncio.to_thread(self.house.start)

    # What the servers hold

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """One statement on the house's database, past the wire."""
        return (await asyncio.to_thread(self.direct.execute, statement))[0]

    async def stored_messages(self) -> int:
        """How many messages MySQL holds."""
        return int((await self.sql("SELECT COUNT(*) FROM messages"))[0][0])

    async def indexed_messages(self) -> int:
        """How many documents Elasticsearch shows."""
        return len(await self._documents())

    @contextmanager
    def asking_redis(self) -> Iterator[Any]:
        """A client of the house's Redis, past the wire."""
        client = redis_client(self.direct.addresses.redis_url)
        try:
            yield client
        finally:
            client.close()

    def key(self, partition: int, name: str) -> str:
        """A key of the journal."""
        return f"{self.direct.name}:{{p{partition}}}:{name}"

    def pending(self, projection: str) -> int:
        """How many stream entries workers have read of which not all is acknowledged."""
        with self.asking_redis() as client:
            return sum(
                client.xpending(stream, projection)["pending"]
                for stream in client.scan_iter(match=f"{self.direct.name}:*:stream", count=1000)
            )

    def behind(self, projection: str) -> int:
        """How many facts the projection has not applied, nor set aside."""
        waiting = 0
        with self.asking_redis() as client:
            for meta in client.scan_iter(match=f"{self.direct.name}:*:meta", count=1000):
                recorded, done = client.hmget(meta, projection, f"{projection}_done")
                waiting += max(0, int(recorded or 0) - int(done or 0))
        return waiting

    def set_aside(self, projection: str) -> int:
        """How many facts the projection has set aside."""
        with self.asking_redis() as client:
            keys = client.scan_iter(match=f"{self.direct.name}:*:aside:{projection}", count=1000)
            return sum(client.hlen(key) for key in keys)

    async def until_applied(self, *projections: str) -> None:
        """Wait until these projections (both, if none is named) have nothing left to do."""
        for projection in projections or (STORE, SEARCH):

            async def done(projection: str = projection) -> bool:
                try:
                    return self.behind(projection) == 0
                except redis.RedisError:
                    return False

            await until(done, f"{projection} has caught up")

    async def until_blocked(self) -> None:
        """Wait until the store's projection waits for the locks of `applying_blocked`."""
        waiting = (
            "SELECT COUNT(*) FROM information_schema.processlist"
            f" WHERE db = '{self.direct.database}' AND id <> CONNECTION_ID()"
            " AND info LIKE '%journal_epochs%SHARE MODE%'"
        )

        async def blocked() -> bool:
            return int((await self.sql(waiting))[0][0]) > 0

        await until(blocked, "applying waits for a lock")

    async def until_working(self) -> None:
        """Wait until the worker that was started has begun its work."""

        async def working() -> bool:
            return f"process={self.house.worker_pid}" in self.house.worker_log_path.read_text()

        await until(working, "the worker works")

    async def until_ready(self) -> None:
        """Wait until the API process says that it can serve."""
        async with httpx.AsyncClient(base_url=self.house.url, timeout=30.0, trust_env=False) as http:

            async def ready() -> bool:
                return (await http.get("/health/ready")).status_code == 200

            await until(ready, "the API is ready")

    @asynccontextmanager
    async def applying_blocked(self) -> AsyncIterator[None]:
        """Hold locks that every transaction of the store's projection begins with."""
        parts = urlsplit(self.direct.addresses.mysql_url)
        connection = await asyncmy.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=self.direct.database,
        )
        try:
            async with connection.cursor() as cursor:
                await cursor.execute("SELECT epoch FROM journal_epochs FOR UPDATE")
                assert await cursor.fetchall(), "there is nothing to lock before the first message was accepted"
            yield
        finally:
            await connection.rollback()
            await connection.ensure_closed()

    # The operator

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `chat-system` beside the house."""
        return await command(self.house, *words)

    # The end of every test

    async def whole(self, *loads: Load, set_aside: tuple[int, int] = (0, 0)) -> None:
        """All was applied, nothing is missing or there twice, the servers agree, and no log has a traceback.

        `set_aside` is how many entries the store's projection has set aside, and the search index's.
        """
        for load in loads:
            assert await load.broken_promises() == []
        await self.until_applied()
        await until(self._is_trimmed, "nothing is pending, and the streams are trimmed to their end")
        assert (self.set_aside(STORE), self.set_aside(SEARCH)) == set_aside, await self.command("journal")
        stored, indexed = await self.stored_rows(), await self._documents()
        differing = {key: (stored.get(key), indexed.get(key)) for key, _ in stored.items() ^ indexed.items()}
        assert not differing, f"MySQL and Elasticsearch hold: {differing}"
        checked = await self.command("check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert tracebacks(self.log_text()) == []

    def log_text(self) -> str:
        """What every process that was started in the house's folder has written."""
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.house.folder.glob("*.log")))

    async def _is_trimmed(self) -> bool:
        """Whether no entry is pending or kept in any stream."""
        with self.asking_redis() as client:
            streams = client.scan_iter(match=f"{self.direct.name}:*:stream", count=1000)
            return not any(map(client.xlen, streams)) and self.pending(STORE) == self.pending(SEARCH) == 0

    async def stored_rows(self) -> Rows:
        """The messages that MySQL holds, of applications that are not erased."""
        found = await self.sql(
            "SELECT m.application_id, m.chat_number, m.number, m.revision, m.body FROM messages m"
            " JOIN applications a ON a.id = m.application_id WHERE a.erased_at IS NULL"
        )
        return {
            (application, chat, number): (revision, None if body is None else body.casefold())
            for application, chat, number, revision, body in found
        }

    async def _documents(self) -> Rows:
        """What Elasticsearch holds, of the same applications."""
        kept = {row[0] for row in await self.sql("SELECT id FROM applications WHERE erased_at IS NULL")}
        url = f"{self.direct.addresses.elasticsearch_url}/{self.direct.name}"
        async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as http:
            refreshed = await http.post("/_refresh")
            if refreshed.status_code == 404:
                return {}
            (await http.put("/_settings", json={"index.max_result_window": DOCUMENTS_MAX})).raise_for_status()
            asked = {"size": DOCUMENTS_MAX, "version": True, "query": {"match_all": {}}}
            answer = (await http.post("/_search", json=asked)).raise_for_status().json()
        rows: Rows = {}
        for hit in answer["hits"]["hits"]:
            application, chat, number = map(int, hit["_id"].split(":"))
            if application in kept:
                rows[application, chat, number] = hit["_version"] % EPOCH_STEP, hit["_source"].get("folded")
        return rows


@dataclass
class Exposed(Stack):
    """One with a Redis of its own, and wires to its servers; its place on them is seen past the wires."""

    redis: RedisServer
    to_redis: Wire
    to_mysql: Wire
    to_search: Wire


@contextmanager
def wired(servers: Addresses) -> Iterator[tuple[Wire, Wire, Wire, Addresses]]:
    """Wires to MySQL, Redis and Elasticsearch, and where these are through them."""
    with (
        Wire.to(servers.mysql_url, 3306) as mysql,
        Wire.to(servers.redis_url, 6379) as to_redis,
        Wire.to(servers.elasticsearch_url, 9200) as search,
    ):
        through = Addresses(
            mysql.through(servers.mysql_url),
            to_redis.through(servers.redis_url),
            search.through(servers.elasticsearch_url),
        )
        yield mysql, to_redis, search, through
