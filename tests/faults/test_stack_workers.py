"""Workers that are killed or hang at the worst moments: everything is applied, once, whoever does it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess

import pytest

from tests.client import ChatAt
from tests.conftest import Connect, only
from tests.faults.conftest import Expose, UnderLoad
from tests.faults.exposed import SEARCH, STORE, Exposed, until
from tests.faults.load import Load
from tests.faults.unavailable import accepted

KILLS = 4
LIFE_S = (0.05, 1.2)
ACKNOWLEDGED = 10

pytestmark = only("stack", because="only the stack house has workers")


async def talk(chat: ChatAt) -> None:
    """A few changes of every kind: five messages, of which the second was edited and the third deleted."""
    await chat.post("first")
    await chat.post_batch("second", "third", "fourth", "fifth")
    await chat.edit(2, body="second, edited")
    await chat.delete(3)


async def talked(chat: ChatAt) -> list[str | None]:
    """The bodies that a chat holds."""
    return [message["body"] for message in await chat.messages()]


TALKED = ["first", "second, edited", None, "fourth", "fifth"]


async def a_chat(exposed: Exposed, connect: Connect) -> ChatAt:
    """A chat of a house that was started; its opening is applied."""
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await exposed.until_applied()
    return chat


async def until_held(exposed: Exposed, mark: bytes) -> None:
    """Wait until a request to Elasticsearch with these bytes is held up."""

    async def held() -> bool:
        return exposed.to_search.holds(mark)

    await until(held, "a request to Elasticsearch is under way")


async def test_a_worker_killed_before_it_applied_loses_nothing(expose: Expose, connect: Connect) -> None:
    """What it had read goes to the next one; until then, reads serve it from the tail."""
    exposed = expose()
    await exposed.start()
    chat = await a_chat(exposed, connect)
    async with exposed.applying_blocked():
        await talk(chat)
        await exposed.until_blocked()
        exposed.house.kill_worker()
    assert await exposed.stored_messages() == 0
    assert await talked(chat) == TALKED
    exposed.house.start_worker()
    await exposed.whole()
    assert await talked(chat) == TALKED
    assert (await chat.read())["messages_count"] == 4


async def test_a_worker_killed_after_it_stored_and_before_it_acknowledged_applies_once(
    expose: Expose, connect: Connect
) -> None:
    """MySQL has committed, Redis was never told: the next worker applies it again, and nothing is there twice."""
    exposed = expose()
    await exposed.start()
    chat = await a_chat(exposed, connect)
    async with exposed.applying_blocked():
        await talk(chat)
        await exposed.until_blocked()
        exposed.to_redis.hold()

    async def stored() -> bool:
        return await exposed.stored_messages() == len(TALKED)

    await until(stored, "the messages are in MySQL")
    exposed.house.kill_worker()
    # What it had sent last must not arrive after its death.
    exposed.to_redis.cut()
    exposed.to_redis.mend()
    await exposed.until_ready()
    assert exposed.pending(STORE) > 0
    await chat.edit(1, body="first, edited while nobody applied")
    exposed.house.start_worker()
    await exposed.whole()
    assert await talked(chat) == ["first, edited while nobody applied", *TALKED[1:]]
    assert (await chat.read())["messages_count"] == 4


async def test_a_worker_killed_after_it_indexed_and_before_it_acknowledged_applies_once(
    expose: Expose, connect: Connect
) -> None:
    """Elasticsearch has the documents, Redis was never told: the next worker indexes them again, in one copy each."""
    exposed = expose()
    await exposed.start()
    chat = await a_chat(exposed, connect)
    await chat.post("so that there is an index")
    await exposed.until_applied()
    exposed.to_search.hold()
    await chat.post_batch("to be found", "also found")
    await until_held(exposed, b"/_bulk")
    await exposed.until_applied(STORE)
    exposed.to_redis.hold()
    exposed.to_search.mend()

    async def indexed() -> bool:
        return await exposed.indexed_messages() == 3

    await until(indexed, "the messages are in Elasticsearch")
    exposed.house.kill_worker()
    exposed.to_redis.cut()
    exposed.to_redis.mend()
    await exposed.until_ready()
    assert exposed.pending(SEARCH) > 0
    exposed.house.start_worker()
    await exposed.whole()
    assert [message["number"] for message in await chat.search("found")] == [3, 2]


async def test_a_worker_that_hangs_is_relieved_and_does_no_harm_when_it_wakes(expose: Expose, connect: Connect) -> None:
    """Another takes over what it holds; its own late attempt brings no old state back."""
    exposed = expose(partitions=1)
    await exposed.start()
    chat = await a_chat(exposed, connect)
    async with exposed.applying_blocked():
        await talk(chat)
        await exposed.until_blocked()
        exposed.house.freeze_worker()
    other = exposed.house.run("work", exposed.house.folder / "other-worker.log")
    try:
        await exposed.until_applied()
        await chat.edit(4, body="fourth, edited")
        await chat.delete(5)
        await exposed.until_applied()
        exposed.house.thaw_worker()
        await chat.post("sixth")
        await exposed.whole()
        assert await talked(chat) == [*TALKED[:3], "fourth, edited", None, "sixth"]
    finally:
        other.kill()
        other.wait()


@pytest.mark.timeout(180)
async def test_two_workers_on_one_partition_killed_at_random_moments_apply_everything(
    expose: Expose, under_load: UnderLoad, seed: int
) -> None:
    """They share one stream under load; now one dies, now the other, now one hangs for a moment."""
    chance = random.Random(seed)
    exposed = expose(partitions=1)
    exposed.house.kill_worker()
    await exposed.start()
    load = await under_load(exposed.house, clients=4)
    logs = [exposed.house.folder / f"worker-{number}.log" for number in range(2)]
    workers = [exposed.house.run("work", log) for log in logs]
    try:
        async with load.running():
            await until_applying(exposed, load)
            for _ in range(KILLS):
                await accepted(load)
                await asyncio.sleep(chance.uniform(*LIFE_S))
                victim = chance.randrange(2)
                if chance.random() < 0.3:
                    await hang(workers[victim], chance.uniform(*LIFE_S))
                else:
                    workers[victim].kill()
                    workers[victim].wait()
                    workers[victim] = exposed.house.run("work", logs[victim])
            await until_applying(exposed, load)
        await exposed.whole(load)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


async def until_applying(exposed: Exposed, load: Load) -> None:
    """Wait until something was accepted from now on, and something stored: there is work, and somebody does it."""
    before = await exposed.stored_messages()
    await accepted(load, ACKNOWLEDGED)

    async def more() -> bool:
        return await exposed.stored_messages() > before

    await until(more, "a worker stores what is accepted")


async def hang(worker: subprocess.Popen[bytes], for_s: float) -> None:
    """Freeze a process for a while."""
    os.kill(worker.pid, signal.SIGSTOP)
    await asyncio.sleep(for_s)
    os.kill(worker.pid, signal.SIGCONT)


async def test_a_worker_that_is_told_to_end_leaves_nothing_behind(expose: Expose, under_load: UnderLoad) -> None:
    """SIGTERM under load: what it has begun is done, it ends with 0, and the next one goes on at once."""
    exposed = expose()
    await exposed.start()
    load = await under_load(exposed.house, clients=4)
    async with load.running():
        await exposed.until_working()
        await until_applying(exposed, load)
        assert await asyncio.to_thread(exposed.house.stop_worker) == 0
        exposed.house.start_worker()
        await until_applying(exposed, load)
    await exposed.whole(load)


@pytest.mark.parametrize("silent", ["MySQL", "Elasticsearch"])
async def test_a_worker_that_is_told_to_end_while_a_server_keeps_silent_ends_all_the_same(
    expose: Expose, connect: Connect, silent: str
) -> None:
    """It does not wait for the answer as long as the server may take for one, and the next one does what it left."""
    exposed = expose()
    await exposed.start()
    chat = await a_chat(exposed, connect)
    await chat.post("so that there is an index")
    await exposed.until_applied()
    wire, mark = (exposed.to_mysql, b"BEGIN") if silent == "MySQL" else (exposed.to_search, b"/_bulk")
    wire.hold()
    await chat.post("said into the silence")

    async def held() -> bool:
        return wire.holds(mark)

    await until(held, f"the worker waits for {silent}")
    assert await asyncio.to_thread(exposed.house.stop_worker) == 0
    wire.mend()
    exposed.house.start_worker()
    await exposed.whole()
    assert await talked(chat) == ["so that there is an index", "said into the silence"]


async def test_a_worker_that_is_told_to_end_while_it_waits_for_mysql_ends_at_once(expose: Expose) -> None:
    """It has begun nothing yet, so there is nothing to be done in order."""
    exposed = expose()
    await exposed.start()
    exposed.house.kill_worker()
    exposed.to_mysql.cut()
    exposed.house.start_worker()

    async def waits() -> bool:
        return "start waits for mysql" in exposed.house.worker_log_path.read_text()

    await until(waits, "the worker waits for MySQL")
    assert await asyncio.to_thread(exposed.house.stop_worker) == -signal.SIGTERM
    exposed.to_mysql.mend()
    exposed.house.start_worker()
    await exposed.whole()
