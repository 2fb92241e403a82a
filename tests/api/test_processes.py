"""Several processes on one port: `CHAT_PROCESSES`. To a client they are one server; one file has one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.processes import (
    ENOUGH_CONNECTIONS,
    PROCESSES,
    all_serve,
    answered_by,
    fresh_connections,
    processes_of,
)
from tests.client import ChatAt
from tests.conftest import BuildHouse, Connect, only
from tests.eventually import eventually
from tests.faults.refusals import refusal
from tests.houses import House

stack = only("stack", because="one SQLite file has one process")


@pytest.fixture
def several(serve: BuildHouse) -> House:
    """A house that answers with several processes."""
    return serve(processes=PROCESSES)


@pytest.fixture
async def fresh(several: House) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a connection of its own for each request."""
    async with fresh_connections(several) as client:
        yield client


@pytest.fixture
async def crowded(several: House, connect: Connect) -> ChatAt:
    """A chat in that house."""
    client = connect(several)
    return await client.create_chat((await client.create_application())["token"])


def alive(process: int) -> bool:
    """Whether it is there. Ours are not our children, so none stays as a zombie for us to reap."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def counted(client: httpx.AsyncClient, series: str) -> float:
    """One series of /metrics, as whoever answers shows it."""
    text = (await client.get("/metrics")).raise_for_status().text
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@only("embedded", because="the stack house may have several")
def test_one_file_is_not_given_to_several_processes(build_house: BuildHouse) -> None:
    """Embedded mode refuses, in one line that names the setting and the way out."""
    line = refusal(build_house(processes=2))
    assert "CHAT_PROCESSES" in line
    assert "CHAT_MODE=stack" in line


@stack
async def test_what_one_process_acknowledged_all_others_show(
    several: House, crowded: ChatAt, fresh: httpx.AsyncClient
) -> None:
    """Numbers have no gaps though many processes give them, and each read sees the post that came before it."""
    await all_serve(several)
    answering = set()
    for number in range(1, ENOUGH_CONNECTIONS + 1):
        posted = await fresh.post(f"{crowded.path}/messages", json={"body": f"number {number}"})
        assert posted.status_code == 201
        assert posted.json()["number"] == number
        assert (await fresh.get(f"{crowded.path}/messages/{number}")).json() == posted.json()
        answering.add(answered_by(posted))
    assert len(answering) == PROCESSES


@stack
async def test_one_key_through_many_processes_at_once_posts_once(
    several: House, crowded: ChatAt, fresh: httpx.AsyncClient
) -> None:
    """The same request over many connections at the same time is carried out by one of the processes."""
    await all_serve(several)
    asked = [
        fresh.post(f"{crowded.path}/messages", json={"body": "once"}, headers={"Idempotency-Key": "k"})
        for _ in range(ENOUGH_CONNECTIONS)
    ]
    answers = await asyncio.gather(*asked)
    assert {one.status_code for one in answers} == {201}
    assert {one.json()["number"] for one in answers} == {1}
    assert len(await crowded.messages()) == 1


@stack
async def test_events_reach_the_readers_of_every_process(several: House, crowded: ChatAt) -> None:
    """A message posted through one process appears in streams that others hold open."""
    await all_serve(several)
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(crowded.follow(after=0)) for _ in range(4 * PROCESSES)]
        message = await crowded.post("to everyone")
        for stream in streams:
            assert (await stream.next_event()).message == message


@stack
async def test_metrics_are_those_of_all_processes_whoever_answers(
    several: House, crowded: ChatAt, fresh: httpx.AsyncClient
) -> None:
    """Each process comes to show the same total, and the streams that are open in all of them."""
    await all_serve(several)
    for _ in range(ENOUGH_CONNECTIONS):
        assert (await fresh.post(f"{crowded.path}/messages", json={"body": "counted"})).status_code == 201

    async def totals() -> set[float]:
        return {await counted(fresh, "chat_messages_accepted_total") for _ in range(4 * PROCESSES)}

    async def readers() -> set[float]:
        return {await counted(fresh, "chat_live_readers") for _ in range(4 * PROCESSES)}

    await eventually(totals, {float(ENOUGH_CONNECTIONS)})
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(crowded.follow())
        await eventually(readers, {5.0})
    await eventually(readers, {0.0})


@stack
async def test_a_process_that_dies_is_replaced_and_its_streams_are_no_longer_counted(
    several: House, crowded: ChatAt, fresh: httpx.AsyncClient
) -> None:
    """The others go on, another takes its place, totals do not fall, and what the dead one had open is gone."""
    await all_serve(several)
    for _ in range(ENOUGH_CONNECTIONS):
        await crowded.post("before")

    async def accepted() -> float:
        return await counted(fresh, "chat_messages_accepted_total")

    async def readers() -> float:
        return await counted(fresh, "chat_live_readers")

    await eventually(accepted, float(ENOUGH_CONNECTIONS))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(ENOUGH_CONNECTIONS):
            await stack.enter_async_context(crowded.follow())
        await eventually(readers, float(ENOUGH_CONNECTIONS))
        killed = processes_of(several)[0]
        os.kill(killed, signal.SIGKILL)
        await all_serve(several, more=1)
        assert several.running
        assert not alive(killed)
        left = await readers()
        assert 0 < left < ENOUGH_CONNECTIONS
    assert await accepted() == ENOUGH_CONNECTIONS
    assert (await fresh.post(f"{crowded.path}/messages", json={"body": "after"})).status_code == 201
    assert several.stop() == 0


@stack
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_parent_ends_all_of_them_in_order(several: House, number: signal.Signals) -> None:
    """The exit code is 0, no process stays behind, and none was killed or left a traceback."""
    await all_serve(several)
    os.kill(several.pid, number)
    assert await asyncio.to_thread(several.wait_for_exit) == 0
    assert [process for process in processes_of(several) if alive(process)] == []
    assert several.log_text().count("stopped") == PROCESSES
    assert "Traceback" not in several.log_text()


@stack
async def test_a_parent_that_is_killed_takes_its_processes_along(
    several: House, crowded: ChatAt, fresh: httpx.AsyncClient
) -> None:
    """They end by themselves, and the next start finds the port free and every acknowledged message."""
    await all_serve(several)
    message = await crowded.post("kept")
    former = processes_of(several)
    await asyncio.to_thread(several.restart)
    # Until here one of the former may have answered.
    await all_serve(several, more=PROCESSES)
    assert (await fresh.get(f"{crowded.path}/messages")).json() == [message]

    async def left() -> int:
        return sum(alive(process) for process in former)

    await eventually(left, 0)


@stack
async def test_a_port_in_use_is_refused_though_it_could_be_shared(several: House, build_house: BuildHouse) -> None:
    """A second server does not slip in beside the first: it would take some of its connections."""
    assert str(several.port) in refusal(build_house(processes=PROCESSES, port=several.port))
