"""The machine's clock jumps, backwards and forwards: numbers, keys, edits and rates do not care."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.client import expect
from tests.conftest import Connect, only
from tests.faults.clock import JumpingClock, can_jump
from tests.faults.conftest import Expose, UnderLoad
from tests.faults.exposed import Exposed
from tests.faults.unavailable import accepted, failures
from tests.servers.shared import required

HOUR_S = 3600.0
JUMPS_TO_S = (-HOUR_S, 2 * HOUR_S, -30.0, 0.0)
"""Two of these are backwards; the way forward is longer than counters of idle chats stay in memory."""

WORK_S = 0.6
TOO_MANY = 429

pytestmark = [
    only("stack", because="its clock is that of Redis, which many processes share"),
    pytest.mark.skipif(not can_jump() and not required(), reason="this machine has no C compiler (cc)"),
]


@pytest.fixture
def clock(expose: Expose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JumpingClock:
    """The clock of every process that is started from now on. The servers that tests share run already."""
    made = JumpingClock(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


async def start(exposed: Exposed) -> None:
    """Start the house and its Redis by the jumping clock."""
    await asyncio.to_thread(exposed.redis.restart)
    await exposed.start()


async def test_a_clock_that_jumps_under_load_breaks_no_promise(
    expose: Expose, under_load: UnderLoad, clock: JumpingClock
) -> None:
    """Redis, the API and the worker are set back by an hour, ahead by three, back by two: nobody is even refused."""
    exposed = expose()
    await start(exposed)
    load = await under_load(exposed.house, clients=4)
    async with load.running():
        for to_s in JUMPS_TO_S:
            await asyncio.sleep(WORK_S)
            clock.jump(to_s)
            await accepted(load)
        await asyncio.sleep(WORK_S)
    assert failures(load) == set()
    assert [str(one) for one in load.history if one.status == TOO_MANY] == []
    await exposed.whole(load)


async def test_the_clock_of_redis_is_the_one_that_jumps(expose: Expose, clock: JumpingClock) -> None:
    """The instrument itself: the server's TIME follows, backwards too."""
    exposed = expose()
    await asyncio.to_thread(exposed.redis.restart)
    with exposed.asking_redis() as client:
        before = client.time()[0]
        clock.jump(-HOUR_S)
        assert before - client.time()[0] == pytest.approx(HOUR_S, abs=60)


async def test_after_the_clock_was_set_back_edits_and_keys_work_as_ever(
    expose: Expose, connect: Connect, clock: JumpingClock
) -> None:
    """An edit is later than its message, keys replay, and events tell an edit from a new message."""
    exposed = expose()
    await start(exposed)
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"], title="before")
    key = {"headers": {"Idempotency-Key": "once"}, "json": {"body": "with a key"}}
    first = expect(await chat.request("POST", "/messages", **key), 201).json()
    clock.jump(-HOUR_S)
    again = expect(await chat.request("POST", "/messages", **key), 201)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")
    edited = await chat.edit(1, body="edited an hour before it was written")
    assert edited["revision"] == 2
    assert edited["updated_at"] > edited["created_at"] == first["created_at"]
    async with chat.follow(after=0) as stream:
        [event] = await stream.events(1)
        assert (event.name, event.revision) == ("message.updated", 2)
    renamed = expect(await chat.request("PATCH", json={"title": "after"}), 200).json()
    assert renamed["updated_at"] >= renamed["created_at"]
    assert (await chat.post("second"))["number"] == 2
    await chat.delete(1)
    assert (await chat.message(1))["body"] is None
    await exposed.whole()
