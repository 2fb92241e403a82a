"""Another process that holds the database's write lock: 503 while it does, all as before afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import BuildHouse, Connect, only
from tests.faults.conftest import UnderLoad
from tests.faults.unavailable import accepted, assert_unavailable, failures
from tests.faults.whole import assert_whole
from tests.houses import House

TOGETHER = 5
SHORT_LOCK_S = 0.3

pytestmark = only("embedded", because="only an SQLite file can be locked as a whole by whoever opens it")


@contextmanager
def write_lock(house: House) -> Iterator[None]:
    """Hold the write lock of the house's database, as an operator's forgotten sqlite3 shell would."""
    path = Path(str(house.storage_settings()["sqlite_path"]))
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_a_long_lock_refuses_writes_and_not_reads_and_breaks_no_promise(
    serve: BuildHouse, connect: Connect, under_load: UnderLoad
) -> None:
    """Each waiting write becomes a 503 of the right form and takes no number; reads are answered."""
    house = serve()
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    kept = await chat.post("before")
    load = await under_load(house, clients=6)
    async with load.running():
        await accepted(load, TOGETHER)
        with write_lock(house):
            bodies = [{"body": f"refused {one}"} for one in range(TOGETHER)]
            asked = [asyncio.create_task(chat.request("POST", "/messages", json=body)) for body in bodies]
            asked.append(asyncio.create_task(chat.request("PATCH", "/messages/1", json={"body": "refused"})))
            asked.append(asyncio.create_task(chat.request("DELETE", "/messages/1")))
            asked.append(asyncio.create_task(client.post(f"/applications/{chat.token}/chats")))
            await asyncio.sleep(0.1)
            assert await chat.messages() == [kept]
            assert [found["number"] for found in await chat.search("before")] == [1]
            for answer in await asyncio.gather(*asked):
                assert_unavailable(answer)
        await accepted(load, TOGETHER)
    assert failures(load) == {503}
    await assert_whole(house, load)
    assert (await chat.post("after"))["number"] == 2
    assert (await client.create_chat(chat.token)).number == 2
    assert await chat.message(1) == kept


async def test_a_short_lock_only_delays(serve: BuildHouse, under_load: UnderLoad) -> None:
    """A lock that comes and goes within a moment fails no request, and every promise is kept."""
    house = serve()
    load = await under_load(house, clients=6)
    async with load.running():
        for _ in range(3):
            await accepted(load, TOGETHER)
            with write_lock(house):
                await asyncio.sleep(SHORT_LOCK_S)
        await accepted(load, TOGETHER)
    assert failures(load) == set()
    # Somebody did wait for it.
    assert max(one.answered_at - one.sent_at for one in load.history) > SHORT_LOCK_S / 2
    await assert_whole(house, load)
