"""SIGTERM ends the server in an orderly way, SIGSTOP and SIGCONT only delay it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial

import pytest

from tests.conftest import BuildHouse, Connect
from tests.eventually import eventually
from tests.faults.conftest import UnderLoad
from tests.faults.unavailable import accepted
from tests.faults.whole import assert_whole
from tests.houses import House
from tests.raw_http import RawConnection, connection, head

HALF_SENT = 5
ACKNOWLEDGED = 10


async def test_sigterm_under_load_ends_with_zero_and_keeps_every_promise(
    serve: BuildHouse, under_load: UnderLoad
) -> None:
    """The server ends with code 0, answers nothing with a 5xx but 503, and what it acknowledged is there."""
    house = serve()
    load = await under_load(house)
    async with load.running():
        for _ in range(2):
            await accepted(load, ACKNOWLEDGED)
            assert await asyncio.to_thread(house.stop) == 0
            load.pause()
            await load.quiet()
            await asyncio.to_thread(house.start)
            load.resume()
        await accepted(load, ACKNOWLEDGED)
    assert {one.status for one in load.history if one.status is not None and one.status >= 500} <= {503}
    await assert_whole(house, load)


TOLD_AS_IT_SERVES = """
import os, sys
from chat_system import cli
from chat_system.web import server

number = int(sys.argv.pop())

class Log:
    def info(self, event, **details):
        print(event, flush=True)
        if event == "serving":
            os.kill(os.getpid(), number)

server.log = Log()
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_in_order_as_soon_as_it_says_that_it_serves(
    build_house: BuildHouse, number: signal.Signals
) -> None:
    """It comes at that very moment: the house is closed, and the exit code is 0."""
    house = build_house()
    house.prepare()
    told = subprocess.run(
        [sys.executable, "-c", TOLD_AS_IT_SERVES, "serve", str(int(number))],
        env=house.environment(),
        cwd=house.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-2:] == ["serving", "stopped"]


async def test_an_interrupt_ends_a_server_like_sigterm(serve: BuildHouse, connect: Connect) -> None:
    """Ctrl-C ends a serving server without a traceback, and what it acknowledged is there afterwards."""
    house = serve()
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    kept = await chat.post("before Ctrl-C")
    os.kill(house.pid, signal.SIGINT)
    assert await asyncio.to_thread(house.wait_for_exit) == 0
    assert "Traceback" not in house.log_text()
    await asyncio.to_thread(house.start)
    assert await chat.messages() == [kept]
    await assert_whole(house)


async def half_a_post(raw: RawConnection, path: str, body: bytes) -> None:
    """Send a request's head and the first half of its body."""
    await raw.send(head("POST", path, Content_Type="application/json", Content_Length=len(body)))
    await raw.send(body[: len(body) // 2])


async def refuses_connections(house: House) -> bool:
    """Whether nobody listens at the house's port: the server knows that it is to end."""
    try:
        _, writer = await asyncio.open_connection(house.host, house.port)
    except ConnectionError:
        return True
    writer.close()
    return False


async def test_requests_that_were_accepted_before_sigterm_are_answered(serve: BuildHouse, connect: Connect) -> None:
    """Requests whose bodies still arrive when SIGTERM comes get their 201, and the messages are there."""
    house = serve()
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    bodies = [json.dumps({"body": f"half sent {number}"}).encode() for number in range(HALF_SENT)]
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(connection(house)) for _ in bodies]
        for raw, body in zip(raws, bodies, strict=True):
            await half_a_post(raw, f"{chat.path}/messages", body)
        # Until the server has certainly seen the halves: a later request is answered.
        await chat.read()
        await asyncio.sleep(0.2)
        ending = group.create_task(asyncio.to_thread(house.stop))
        await eventually(partial(refuses_connections, house), True)
        for raw, body in zip(raws, bodies, strict=True):
            await raw.send(body[len(body) // 2 :])
        answers = [await raw.answer() for raw in raws]
    assert [answer.status_code for answer in answers] == [201] * HALF_SENT
    assert ending.result() == 0
    house.start()
    assert {message["body"] for message in await chat.messages()} == {json.loads(body)["body"] for body in bodies}
    await assert_whole(house)


async def test_live_readers_do_not_keep_a_server_from_ending(serve: BuildHouse, connect: Connect) -> None:
    """With streams open, SIGTERM ends the server with code 0, and the streams with it."""
    house = serve()
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    async with chat.follow(after=0) as one, chat.follow() as other:
        await chat.post("before the end")
        await one.next_event()
        await other.next_event()
        assert await asyncio.to_thread(house.stop) == 0
        assert await one.ends()
        assert await other.ends()


async def test_a_server_that_is_stopped_and_continued_loses_nothing(
    serve: BuildHouse, under_load: UnderLoad, seed: int
) -> None:
    """SIGSTOP under load delays answers; after SIGCONT every request is answered and every promise kept."""
    house, chance = serve(), random.Random(seed)
    load = await under_load(house)
    async with load.running():
        for _ in range(4):
            await accepted(load)
            await asyncio.sleep(chance.uniform(0.01, 0.2))
            os.kill(house.pid, signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            os.kill(house.pid, signal.SIGCONT)
        await accepted(load, ACKNOWLEDGED)
    assert [str(one) for one in load.history if one.status is None or one.status >= 500] == []
    await assert_whole(house, load)
