"""Redis restarted, silent, full or emptied: what was acknowledged is there, and no number is given twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.client import ChatAt, Client, expect
from tests.conftest import Connect, only
from tests.faults.conftest import Expose, UnderLoad
from tests.faults.exposed import SEARCH, STORE, Exposed, until
from tests.faults.load import Load
from tests.faults.unavailable import accepted, assert_unavailable, failures

RESTARTS = 3
LIFE_S = (0.1, 1.0)
SILENT_S = 7.0
"""Longer than anyone waits for an answer of Redis."""

FULL_MB = 12
BODY = "x" * 20_000
BATCH = [{"body": BODY}] * 20

pytestmark = only("stack", because="only the stack house has a Redis")


async def a_chat(client: Client, body: str = "before") -> ChatAt:
    """A new chat of a new application, with one message."""
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post(body)
    return chat


async def test_a_redis_killed_and_restarted_under_load_loses_nothing(
    expose: Expose, under_load: UnderLoad, seed: int
) -> None:
    """Every answer was on its disk: after each restart over the same data all goes on."""
    chance = random.Random(seed)
    exposed = expose()
    await exposed.start()
    load = await under_load(exposed.house, clients=4)
    async with load.running():
        for _ in range(RESTARTS):
            await asyncio.sleep(chance.uniform(*LIFE_S))
            exposed.redis.kill()
            await asyncio.sleep(chance.uniform(*LIFE_S))
            await asyncio.to_thread(exposed.redis.start)
            await accepted(load)
    assert failures(load) <= {503}
    await exposed.whole(load)


async def test_a_silent_redis_refuses_and_goes_on_when_it_wakes(
    expose: Expose, connect: Connect, under_load: UnderLoad
) -> None:
    """Frozen, with its connections open: 503 instead of waiting for ever; what it carries out late is there once."""
    exposed = expose()
    await exposed.start()
    chat = await a_chat(connect(exposed.house))
    load = await under_load(exposed.house, clients=4)
    async with load.running():
        await asyncio.sleep(0.5)
        exposed.redis.freeze()
        assert_unavailable(await chat.request("POST", "/messages", json={"body": "nobody knows"}))
        await asyncio.sleep(SILENT_S)
        exposed.redis.thaw()
        await accepted(load)
    assert failures(load) <= {503}
    await exposed.whole(load)


# Emptied


async def empty(exposed: Exposed, load: Load) -> None:
    """Forget all that Redis holds, at a moment at which nothing is unapplied; writers pause for it."""
    load.pause()
    await load.quiet()
    await exposed.until_applied()
    exposed.redis.empty()


async def test_after_redis_was_emptied_numbers_go_on_and_keys_still_replay(
    expose: Expose, connect: Connect, under_load: UnderLoad
) -> None:
    """Everything that an answer promised is in MySQL: numbers, counts, keys, and what was erased."""
    exposed = expose()
    await exposed.start()
    client = connect(exposed.house)
    chat, erased = await a_chat(client), await a_chat(client)
    key = {"headers": {"Idempotency-Key": "once"}, "json": {"body": "with a key"}}
    first = expect(await chat.request("POST", "/messages", **key), 201).json()
    opening = {"headers": {"Idempotency-Key": "once"}, "json": {"title": "with a key"}}
    chats = f"/applications/{chat.token}/chats"
    opened = expect(await client.post(chats, **opening), 201).json()
    await client.erase_application(erased.token)
    load = await under_load(exposed.house, clients=4)
    async with load.running():
        await asyncio.sleep(1.0)
        await empty(exposed, load)
        load.resume()
        await accepted(load)
        again = expect(await chat.request("POST", "/messages", **key), 201)
        assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")
        other = expect(await chat.request("POST", "/messages", **(key | {"json": {"body": "another"}})), 422)
        assert other.json()["code"] == "idempotency_mismatch"
        assert expect(await client.post(chats, **opening), 201).json()["number"] == opened["number"]
        assert (await chat.post("third"))["number"] == 3
        assert (await client.create_chat(chat.token)).number == 3
        for below in ("", "/messages", "/messages/1"):
            expect(await erased.request("GET", below), 404)
        expect(await erased.request("POST", "/messages", json={"body": "after the end"}), 404)
        assert (await client.get(f"/applications/{erased.token}")).status_code == 404
    await exposed.whole(load)
    assert (await chat.read())["messages_count"] == 3


async def test_live_streams_go_on_after_redis_was_emptied(expose: Expose, connect: Connect) -> None:
    """A stream that was open all the time tells of the next message, and one that comes back of all it missed."""
    exposed = expose()
    await exposed.start()
    chat = await a_chat(connect(exposed.house))
    await exposed.until_applied()
    async with chat.follow(after=1) as stream:
        exposed.redis.empty()
        await chat.post("after")
        [event] = await stream.events(1, timeout_s=30)
        assert (event.id, event.message["number"], event.message["body"]) == ("2", 2, "after")
    async with chat.follow(after=0) as stream:
        assert [event.message["number"] for event in await stream.events(2, timeout_s=30)] == [1, 2]
    await exposed.whole()


async def erase(chat: ChatAt) -> None:
    """Erase the chat's application."""
    await chat.client.erase_application(chat.token)


async def read(chat: ChatAt) -> None:
    """Read the chat."""
    await chat.messages()


@pytest.mark.parametrize("first", [erase, read])
async def test_what_is_asked_first_of_an_emptied_redis_is_answered_rightly(
    expose: Expose, connect: Connect, first: Callable[[ChatAt], Awaitable[None]]
) -> None:
    """Whether the first thing is an erasure or a read: the erased stays erased, the rest goes on where it was."""
    exposed = expose(partitions=1)
    await exposed.start()
    client = connect(exposed.house)
    gone, kept, used = await a_chat(client), await a_chat(client), await a_chat(client)
    await client.erase_application(gone.token)
    await exposed.until_applied()
    exposed.redis.empty()
    await first(used)
    expect(await gone.request("POST", "/messages", json={"body": "after the end"}), 404)
    expect(await gone.request("GET", "/messages"), 404)
    assert (await kept.post("second"))["number"] == 2
    if first is erase:
        expect(await used.request("GET", "/messages"), 404)
    else:
        assert (await used.post("second"))["number"] == 2
    await exposed.whole()


async def test_what_redis_lost_before_it_was_stored_gives_no_number_to_two_messages(
    expose: Expose, connect: Connect
) -> None:
    """A worker is storing entries when Redis is emptied: either they are stored, or their numbers are given again.

    The search index may then know what MySQL does not: `check` says so, and `reindex` mends it.
    """
    exposed = expose()
    await exposed.start()
    chat = await a_chat(connect(exposed.house))
    await exposed.until_applied()
    async with exposed.applying_blocked():
        await chat.post_batch("lost", "lost too")
        await exposed.until_blocked()
        await exposed.until_applied(SEARCH)
        exposed.redis.empty()
        posting = asyncio.create_task(chat.request("POST", "/messages", json={"body": "second"}))
        await asyncio.sleep(1.0)
    # It waited, as the new epoch does, for what was being applied; it may have been told to come again.
    answer = await posting
    if answer.status_code == 503:
        answer = await chat.request("POST", "/messages", json={"body": "second"})
    number = expect(answer, 201).json()["number"]
    await exposed.until_applied()
    bodies = [message["body"] for message in await chat.messages()]
    assert bodies in (["before", "second"], ["before", "lost", "lost too", "second"])
    assert number == len(bodies)
    if "lost" not in bodies:
        checked = await exposed.command("check")
        assert checked.returncode == 1
        assert "the search index holds 3 messages, MySQL 2" in checked.stdout
        mended = await exposed.command("reindex")
        assert mended.returncode == 0, mended.stdout + mended.stderr
    await exposed.whole()


# Full


async def fill(chat: ChatAt) -> int:
    """Post until it is refused; how many messages were accepted."""
    posted = 0
    for _ in range(500):
        answer = await chat.request("POST", "/messages/batch", json={"messages": BATCH})
        if answer.status_code != 201:
            assert_unavailable(answer)
            assert "memory" in answer.json()["detail"]
            return posted
        posted += len(BATCH)
    raise AssertionError(f"{posted} messages were accepted, and Redis is still not full")


@pytest.mark.parametrize("limit", ["mark", "maxmemory"])
async def test_a_full_redis_refuses_writes_until_the_workers_have_caught_up(
    expose: Expose, connect: Connect, limit: str
) -> None:
    """Beyond the mark, or at Redis' own limit: 503 with Retry-After; reads go on; then there is room again."""
    exposed = expose(**({"redis_memory_mb": FULL_MB} if limit == "mark" else {}))
    if limit == "maxmemory":
        exposed.redis.settings["maxmemory"] = f"{FULL_MB}mb"
        await asyncio.to_thread(exposed.redis.restart)
    await exposed.start()
    chat = await a_chat(connect(exposed.house))
    await exposed.until_applied()
    exposed.house.kill_worker()
    posted = await fill(chat)
    assert posted > 0
    assert (await chat.message(1))["body"] == "before"
    assert (await chat.read())["revision"] == posted + 1
    exposed.house.start_worker()
    await exposed.until_applied(STORE)

    async def has_room() -> bool:
        return (await chat.request("POST", "/messages", json={"body": "after"})).status_code == 201

    await until(has_room, "writes are accepted again")
    await exposed.whole()
    [last] = await chat.messages(order="desc", limit=1)
    assert (last["number"], last["body"]) == (posted + 2, "after")
