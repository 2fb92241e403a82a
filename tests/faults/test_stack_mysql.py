"""MySQL away, under load: warm chats are written to, reads are served or refused, and all is applied afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import ChatAt
from tests.conftest import Connect, only
from tests.eventually import eventually
from tests.faults.conftest import Expose, UnderLoad
from tests.faults.exposed import STORE, Exposed
from tests.faults.load import Load
from tests.faults.unavailable import assert_unavailable, failures
from tests.servers.mariadb import MariaDBServer

AWAY_S = 4.0
"""Longer than a time-out or a pause on the way."""

MINUTE_S = 60.0
LOOK_EVERY_S = 2.0

READS = ("", "/messages", "/messages/1", "/messages?changed_after=0", "/messages/search?q=before")

pytestmark = only("stack", because="only the stack house has a MySQL")


async def a_warm_chat(exposed: Exposed, connect: Connect) -> ChatAt:
    """A chat whose counters are in Redis and whose only message is applied."""
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("before")
    await exposed.until_applied()
    # A process that never looked into this part of Redis asks MySQL about the application first.
    assert len(await chat.messages()) == 1
    # Elasticsearch shows once a second what it has.

    async def found() -> list[int]:
        return [message["number"] for message in await chat.search("before")]

    await eventually(found, [1])
    return chat


async def assert_goes_on_without_mysql(chat: ChatAt) -> dict[str, Any]:
    """Posting works; reads answer from the tail, or say 503; readiness names MySQL. What those that did answer said."""
    posted = [(await chat.post(f"without MySQL {number}"))["number"] for number in range(2, 5)]
    assert posted == [2, 3, 4]
    [newest] = await chat.messages(order="desc", limit=1)
    assert newest["body"] == "without MySQL 4"
    assert (await chat.edit(4, body="edited without MySQL"))["revision"] == 5
    assert (await chat.message(4))["body"] == "edited without MySQL"
    # All at once: a silent server is given some seconds to answer each.
    *reads, ready = await asyncio.gather(
        *(chat.request("GET", below) for below in READS), chat.client.get("/health/ready")
    )
    for answer in reads:
        if answer.status_code != 200:
            assert_unavailable(answer)
    assert_unavailable(ready)
    assert "MySQL" in ready.json()["detail"]
    return {below: answer.json() for below, answer in zip(READS, reads, strict=True) if answer.status_code == 200}


async def assert_caught_up(exposed: Exposed, chat: ChatAt, load: Load, told: dict[str, Any]) -> None:
    """Nothing failed but with a 503, nothing is missing, and the chat is as it was written and as readers were told."""
    assert failures(load) <= {503}
    await exposed.until_ready()
    await exposed.whole(load)
    bodies = [message["body"] for message in await chat.messages()]
    assert bodies == ["before", "without MySQL 2", "without MySQL 3", "edited without MySQL"]
    assert told == {below: (await chat.request("GET", below)).json() for below in told}


async def assert_stays_so(chat: ChatAt, for_s: float) -> None:
    """Over and over: what was written is read from the tail, and readiness says what is missing."""
    clock = asyncio.get_running_loop().time
    until = clock() + for_s
    while clock() < until:
        [newest] = await chat.messages(order="desc", limit=1)
        assert newest["body"] == "edited without MySQL"
        assert_unavailable(await chat.client.get("/health/ready"))
        await asyncio.sleep(LOOK_EVERY_S)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("way", "away_s"), [("refusing", MINUTE_S), ("silent", AWAY_S)])
async def test_without_mysql_warm_chats_are_written_and_all_is_applied_afterwards(
    expose: Expose, connect: Connect, under_load: UnderLoad, way: str, away_s: float
) -> None:
    """Its address refuses connections for a minute, or takes them and answers nothing; then it is there again."""
    exposed = expose()
    await exposed.start()
    chat = await a_warm_chat(exposed, connect)
    load = await under_load(exposed.house, clients=3)
    async with load.running():
        await asyncio.sleep(0.5)
        if way == "refusing":
            exposed.to_mysql.cut()
            assert_unavailable(await chat.client.post("/applications", json={"name": "not now"}))
        else:
            exposed.to_mysql.hold()
        told = await assert_goes_on_without_mysql(chat)
        await assert_stays_so(chat, away_s)
        assert exposed.behind(STORE) > 0
        exposed.to_mysql.mend()
    await assert_caught_up(exposed, chat, load, told)


async def test_a_mysql_that_crashes_under_load_loses_nothing(
    expose: Expose, connect: Connect, under_load: UnderLoad, own_mysql: MariaDBServer
) -> None:
    """SIGKILL in the middle of transactions, and a start over what it left on disk."""
    exposed = expose(mysql=own_mysql)
    await exposed.start()
    chat = await a_warm_chat(exposed, connect)
    load = await under_load(exposed.house, clients=3)
    async with load.running():
        await asyncio.sleep(0.5)
        own_mysql.kill()
        told = await assert_goes_on_without_mysql(chat)
        await asyncio.to_thread(own_mysql.start)
        await exposed.until_ready()
    await assert_caught_up(exposed, chat, load, told)


async def test_rows_that_others_hold_only_delay(expose: Expose, connect: Connect, under_load: UnderLoad) -> None:
    """A forgotten transaction of an operator blocks the projection; nobody is refused, and it is caught up with."""
    exposed = expose()
    await exposed.start()
    load = await under_load(exposed.house, clients=3)
    async with load.running():
        await asyncio.sleep(0.5)
        async with exposed.applying_blocked():
            await asyncio.sleep(AWAY_S)
            assert exposed.behind(STORE) > 0
    assert failures(load) == set()
    await exposed.whole(load)
