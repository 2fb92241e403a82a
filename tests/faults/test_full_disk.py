"""A full disk: what can't be made durable is refused with 503, reads go on, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client import ChatAt
from tests.conftest import BuildHouse, Connect, only
from tests.faults.conftest import UnderLoad
from tests.faults.refusals import refusal
from tests.faults.scarcity import SCARCITIES, Scarcity
from tests.faults.unavailable import accepted, assert_unavailable, failures, refused
from tests.faults.whole import assert_whole
from tests.houses import House, HouseDidNotStart

BIG_BODY = "x" * 60_000
POSTS_UNTIL_FULL = 200
REFUSALS = 20

pytestmark = only("embedded", because="the stack house keeps nothing on this disk: its servers do")


@pytest.fixture
def scarcity(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scarcity]:
    """A disk that can be filled: the first of the kinds named that this user may make, or the test is left out."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with ExitStack() as stack:
        for kind in request.param.split(" or "):
            try:
                disk = stack.enter_context(SCARCITIES[kind](folder))
            except PermissionError:
                continue
            yield disk
            return
        pytest.skip(f"this user may make no {request.param}")


@pytest.fixture
def small_house(scarcity: Scarcity, build_house: BuildHouse) -> House:
    """A running house on that disk."""
    house = scarcity.build(build_house)
    house.start()
    return house


async def fill(chat: ChatAt) -> int:
    """Post until the answer is a 503 of the right form; how many posts were acknowledged before."""
    for done in range(POSTS_UNTIL_FULL):
        answer = await chat.request("POST", "/messages", json={"body": BIG_BODY})
        if answer.status_code != 201:
            assert_unavailable(answer)
            return done
    raise AssertionError(f"{POSTS_UNTIL_FULL} posts of {len(BIG_BODY)} bytes did not fill the disk")


@pytest.mark.parametrize("scarcity", ["file-size-limit", "small-filesystem"], indirect=True)
async def test_a_full_disk_under_load_is_answered_503_until_there_is_space_again(
    small_house: House, scarcity: Scarcity, under_load: UnderLoad
) -> None:
    """Twice full and twice relieved: no failure but 503, then 201s again, and every promise is kept."""
    load = await under_load(small_house, clients=6)
    async with load.running():
        for _ in range(2):
            await asyncio.sleep(0.2)
            scarcity.exhaust()
            await refused(load, REFUSALS)
            scarcity.relieve()
            await accepted(load)
    assert failures(load) == {503}
    assert await load.broken_promises() == []
    small_house.restart()
    await assert_whole(small_house, load)


@pytest.mark.parametrize("scarcity", ["file-size-limit"], indirect=True)
async def test_a_full_disk_does_not_stop_the_readers(small_house: House, scarcity: Scarcity, connect: Connect) -> None:
    """While posts are refused, lists and searches are answered, and show all that was acknowledged."""
    client = connect(small_house)
    chat = await client.create_chat((await client.create_application())["token"])
    first = await chat.post("from before")
    scarcity.exhaust()
    kept = 1 + await fill(chat)
    assert [message["number"] for message in await chat.messages(limit=200)] == list(range(1, kept + 1))
    assert await chat.message(1) == first
    assert (await chat.read())["number"] == chat.number
    assert [found["number"] for found in await chat.search("FROM BEFORE")] == [1]
    scarcity.relieve()
    assert (await chat.post("from after"))["number"] == kept + 1
    await assert_whole(small_house)


@pytest.mark.parametrize("scarcity", ["small-filesystem or file-size-limit"], indirect=True)
async def test_a_server_that_is_killed_on_a_full_disk_loses_nothing(
    small_house: House, scarcity: Scarcity, under_load: UnderLoad
) -> None:
    """Killed while full, started while full (it may refuse in one line), started with space: all is there."""
    load = await under_load(small_house, clients=6)
    async with load.running():
        scarcity.exhaust()
        await refused(load, REFUSALS)
        small_house.kill()
        load.pause()
        await load.quiet()
        await asyncio.to_thread(start_in_spite_of_it, small_house)
        small_house.kill()
        scarcity.relieve()
        await asyncio.to_thread(small_house.start)
        load.resume()
        await accepted(load)
    await assert_whole(small_house, load)


def start_in_spite_of_it(house: House) -> None:
    """Start on a full disk; a server that can't must say so in one line."""
    try:
        house.start()
    except HouseDidNotStart:
        refusal(house)
