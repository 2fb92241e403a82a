"""A server killed again and again keeps every promise: what was acknowledged is there, once, nothing else.

CHAT_TEST_KILLS says how many times the server is killed (25 if absent; hundreds for a campaign),
CHAT_TEST_SEED repeats the choices of a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import httpx
import pytest

from tests.conftest import BuildHouse
from tests.faults.conftest import UnderLoad
from tests.faults.load import Load
from tests.faults.logs import tracebacks
from tests.faults.reading import read_everything
from tests.faults.unavailable import accepted
from tests.faults.whole import assert_whole
from tests.houses import House
from tests.properties.live_reader import LiveReader, Return

KILLS = int(os.environ.get("CHAT_TEST_KILLS", "25"))
KILLS_PER_ROUND = 50
LIFE_UNDER_LOAD_S = (0.01, 0.5)
LIFE_WHILE_STARTING_S = (0.0, 1.0)
KILLED_WHILE_STARTING = 0.2
READER_PATIENCE_S = 2.0
READER_PAUSE_S = 0.05
ACKNOWLEDGED_AFTERWARDS = 10
TIMEOUT_S = 60 + 5 * KILLS


async def live_and_be_killed(house: House, load: Load, chance: random.Random) -> None:
    """One life of the server: start, work for a moment, die. Some lives end before the server is ready."""
    if chance.random() < KILLED_WHILE_STARTING:
        house.spawn()
        await asyncio.sleep(chance.uniform(*LIFE_WHILE_STARTING_S))
    else:
        await asyncio.to_thread(house.start)
        load.resume()
        await asyncio.sleep(chance.uniform(*LIFE_UNDER_LOAD_S))
    house.kill()
    load.pause()
    await load.quiet()


async def follow(reader: LiveReader) -> None:
    """Read a chat's events, and come back with the last id whenever the server has died; for ever."""
    while True:
        try:
            await reader.read(Return.BY_HEADER, events=KILLS * 1000, patience_s=READER_PATIENCE_S)
        except httpx.TransportError:
            await asyncio.sleep(READER_PAUSE_S)


async def assert_up_to_date(reader: LiveReader, load: Load) -> None:
    """What the reader holds, once it has caught up, is the chat as it is; and no event came twice."""
    chat = (await read_everything(load.client, load.tokens[:1]))[load.tokens[0]].chats[0]
    await reader.catch_up(chat.chat["revision"])
    assert [reader.copy[number] for number in sorted(reader.copy)] == chat.messages
    ids = [event.id for event in reader.events]
    assert ids == sorted(set(ids))


def assert_killed_at_work(load: Load, kills: int) -> None:
    """There was something to lose, and something was cut off: kills of a server that did nothing would prove nothing.

    Some lives are too short for an answer, others long enough for hundreds.
    """
    assert sum(one.acknowledged for one in load.history) > kills
    assert any(one.status is None for one in load.history)


@pytest.mark.timeout(TIMEOUT_S)
async def test_a_server_killed_at_random_moments_under_load_keeps_every_promise(
    build_house: BuildHouse, under_load: UnderLoad, seed: int
) -> None:
    """After the last restart, with every unanswered key settled, the checker finds no broken promise.

    And a live reader who was cut off by every crash holds the chat as it is.
    """
    house, chance = build_house(), random.Random(seed)
    rounds: list[Load] = []
    for done in range(0, KILLS, KILLS_PER_ROUND):
        house.start()
        load = await under_load(house)
        rounds.append(load)
        house.kill()
        reader = LiveReader(load.client.http, f"/applications/{load.tokens[0]}/chats/1")
        following = asyncio.create_task(follow(reader))
        async with load.running():
            load.pause()
            kills = min(KILLS_PER_ROUND, KILLS - done)
            for _ in range(kills):
                await live_and_be_killed(house, load, chance)
            assert_killed_at_work(load, kills)
            await asyncio.to_thread(house.start)
            load.resume()
            await accepted(load, ACKNOWLEDGED_AFTERWARDS)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        assert await load.broken_promises() == []
        await assert_up_to_date(reader, load)
        house.kill()
    # What was right must stay right through the later crashes.
    house.start()
    await assert_whole(house, *rounds)
    assert tracebacks(house.log_text()) == []


async def test_a_server_killed_while_it_makes_its_database_starts_the_next_time(
    build_house: BuildHouse, under_load: UnderLoad, seed: int
) -> None:
    """Whatever a first start leaves behind when it is killed, the next start completes it."""
    chance = random.Random(seed)
    for _ in range(2):
        house = build_house()
        house.spawn()
        await asyncio.sleep(chance.uniform(*LIFE_WHILE_STARTING_S))
        house.kill()
        house.start()
        load = await under_load(house, clients=2, applications=1)
        async with load.running():
            await accepted(load, ACKNOWLEDGED_AFTERWARDS)
        await assert_whole(house, load)
        assert house.stop() == 0
        assert tracebacks(house.log_text()) == []
