"""States of Redis and MySQL that are neither 'away' nor a fact's fault: everything is waited for, and nothing lost.

The rooms of the stack house over servers of their own, which can be emptied, locked and made a replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncmy
import pytest

from chat_system.errors import Unavailable
from chat_system.model import (
    ApplicationId,
    ChatCounted,
    DeleteMessage,
    NewChat,
    NewMessage,
    OpenChat,
    PostMessages,
    Window,
)
from chat_system.projector import Projector
from chat_system.settings import Settings
from chat_system.stack.redis import Redis
from chat_system.stack.rooms import Rooms, open_rooms
from chat_system.stack.schema import migrate
from tests.eventually import eventually
from tests.servers.mariadb import PASSWORD, MariaDBServer
from tests.servers.redis import RedisServer

TOKEN = "t" * 43
EVERYTHING = Window(100)


@pytest.fixture
def mariadb(tmp_path: Path) -> Iterator[MariaDBServer]:
    """A server of the test's own."""
    tmp_path.chmod(0o755)
    with MariaDBServer(tmp_path / "mariadb") as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """The same."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def sql(server: MariaDBServer, statement: str) -> None:
    """As the administrator."""
    connection = await asyncmy.connect(host="127.0.0.1", port=server.port, user="chat", password=PASSWORD)
    async with connection.cursor() as cursor:
        await cursor.execute(statement)
    await connection.ensure_closed()


@asynccontextmanager
async def opened(mariadb: MariaDBServer, redis: RedisServer) -> AsyncIterator[tuple[Rooms, ApplicationId]]:
    """The rooms, with an application that has one chat."""
    await sql(mariadb, "CREATE DATABASE states")
    settings = Settings(
        mode="stack",
        mysql_url=f"{mariadb.url}/states",
        redis_url=redis.url,
        redis_prefix="states",
        partitions=1,
        elasticsearch_url="http://127.0.0.1:9",
        elasticsearch_index="states",
    )
    await migrate(settings.mysql_url)
    async with open_rooms(settings, working=True) as rooms:
        await rooms.store.create_application(TOKEN, "name")
        application = await rooms.store.resolve(TOKEN)
        assert application is not None
        await rooms.journal.append(application, OpenChat(NewChat()))
        await projector(rooms).drain()
        yield rooms, application


def projector(rooms: Rooms) -> Projector:
    """What applies to MySQL."""
    return Projector("store", rooms.journal, rooms.store.apply, batch=1_000)


async def post(rooms: Rooms, application: ApplicationId, *bodies: str) -> int:
    """Post them together; the first one's number."""
    messages = [NewMessage(body) for body in bodies]
    return (await rooms.journal.append(application, PostMessages(1, messages))).number


async def accepts(rooms: Rooms, application: ApplicationId) -> bool:
    """Whether a message can be posted."""
    try:
        await post(rooms, application, "after")
    except Unavailable:
        return False
    return True


async def listed(rooms: Rooms, application: ApplicationId) -> list[Any]:
    """The bodies of the chat."""
    return [message.body for message in await rooms.store.messages(application, 1, EVERYTHING)]


async def test_what_was_read_of_a_lost_journal_hides_nothing_of_the_next(
    mariadb: MariaDBServer, redis: RedisServer
) -> None:
    """A worker holds facts when Redis comes back empty, and their revisions are given again before it goes on."""
    async with opened(mariadb, redis) as (rooms, application):
        await post(rooms, application, "old 1", "old 2", "old 3")
        held = await rooms.journal.read("store", 1_000)
        redis.empty()
        new = ["new 1", "new 2", "new 3"]
        assert [await post(rooms, application, body) for body in new] == [1, 2, 3]
        await rooms.store.apply(held)
        await rooms.journal.acknowledge("store", held)
        assert await listed(rooms, application) == new
        await rooms.journal.append(application, DeleteMessage(1, 2))
        await projector(rooms).drain()
        assert await listed(rooms, application) == ["new 1", None, "new 3"]


async def test_a_count_that_came_further_than_its_messages_is_counted_anew(
    mariadb: MariaDBServer, redis: RedisServer
) -> None:
    """Of what a worker had read it had applied the count of all, and no message, when Redis lost the rest."""
    async with opened(mariadb, redis) as (rooms, application):
        for turn in range(3):
            await post(rooms, application, *(f"{turn}.{index}" for index in range(5)))
        read = await rooms.journal.read("store", 1_000)
        await rooms.store.apply([entry for entry in read if isinstance(entry.fact, ChatCounted)])
        redis.empty()
        await post(rooms, application, "after")
        await projector(rooms).drain()
        assert (await rooms.store.chat(application, 1)).messages_count == 1


async def test_a_primary_that_became_a_replica_is_waited_for(mariadb: MariaDBServer, redis: RedisServer) -> None:
    """By those who write, those who read for a projection, and the rates; afterwards all goes on."""
    async with opened(mariadb, redis) as (rooms, application):
        await post(rooms, application, "before")
        redis.ask("REPLICAOF", "127.0.0.1", "1")
        applying = asyncio.create_task(projector(rooms).run())
        for asked in (
            post(rooms, application, "meanwhile"),
            rooms.rates.take("bucket", 1.0, 1_000_000.0, 1),
            rooms.journal.read("store", 10),
        ):
            with pytest.raises(Unavailable):
                await asked
        await asyncio.sleep(0.5)
        assert not applying.done()
        redis.ask("REPLICAOF", "NO", "ONE")
        await eventually(partial(accepts, rooms, application), True)
        applying.cancel()
        assert (await listed(rooms, application))[-1] == "after"


async def test_a_locked_account_is_waited_for(mariadb: MariaDBServer, redis: RedisServer) -> None:
    """It is no fact's fault, and none is set aside; nor is any other state that MySQL has a number for."""
    async with opened(mariadb, redis) as (rooms, application):
        await post(rooms, application, *map(str, range(20)))
        database = rooms.store._database  # noqa: SLF001 - as after a restart of either: no connection is open
        await sql(mariadb, "ALTER USER chat@'%' ACCOUNT LOCK")
        while database._idle:  # noqa: SLF001
            database._idle.pop().close()  # noqa: SLF001
        applying = asyncio.create_task(projector(rooms).run())
        await asyncio.sleep(1)
        assert not applying.done()
        applying.cancel()
        backlog = await rooms.journal.backlog("store")
        assert backlog.set_aside == 0
        assert backlog.entries > 0


async def test_a_name_may_differ_in_blanks_at_its_end(mariadb: MariaDBServer, redis: RedisServer) -> None:
    """It is kept byte for byte, whatever the database thinks of blanks when it compares."""
    async with opened(mariadb, redis) as (rooms, application):
        for name in ("name ", "name", "name  ", "Name  "):
            assert (await rooms.store.rename_application(application, name)).name == name
            assert (await rooms.store.application(application)).name == name


async def test_a_line_whose_connection_failed_strangely_is_made_again(
    mariadb: MariaDBServer, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is reset while it is made can end in an error of nobody's kind; the next round has another."""
    real, to_fail = Redis.open, [0]

    async def open_or_fail(of: Redis, node: str) -> Any:
        if to_fail[0]:
            to_fail[0] -= 1
            raise RuntimeError("unable to perform operation on a closed transport")
        return await real(of, node)

    monkeypatch.setattr(Redis, "open", open_or_fail)
    async with opened(mariadb, redis) as (rooms, application):
        redis.restart()
        to_fail[0] = 6
        await eventually(partial(accepts, rooms, application), True)
        assert to_fail[0] < 6
