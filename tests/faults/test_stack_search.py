"""Elasticsearch away: searches say so, nothing else notices, and it catches up."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Connect, only
from tests.faults.conftest import Expose, UnderLoad
from tests.faults.exposed import SEARCH, STORE
from tests.faults.unavailable import assert_unavailable, failures

pytestmark = only("stack", because="only the stack house has an Elasticsearch")


@pytest.mark.parametrize("way", ["refusing", "silent"])
async def test_without_elasticsearch_only_searches_are_refused(
    expose: Expose, connect: Connect, under_load: UnderLoad, way: str
) -> None:
    """Its address refuses connections, or takes them and answers nothing; writes, reads and MySQL go on."""
    exposed = expose()
    await exposed.start()
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("found before")
    await exposed.until_applied()
    load = await under_load(exposed.house, clients=3)
    async with load.running():
        await asyncio.sleep(0.5)
        if way == "refusing":
            exposed.to_search.cut()
        else:
            exposed.to_search.hold()
        await chat.post("found later")
        assert_unavailable(await chat.request("GET", "/messages/search?q=found"))
        assert_unavailable(await client.get(f"/applications/{chat.token}/messages/search?q=found"))
        ready = await client.get("/health/ready")
        assert ready.status_code == 200, ready.text
        assert "Elasticsearch" in ready.text
    await exposed.until_applied(STORE)
    assert exposed.behind(SEARCH) > 0
    assert [message["body"] for message in await chat.messages()] == ["found before", "found later"]
    exposed.to_search.mend()
    assert failures(load) == set()
    await exposed.whole(load)
    assert [message["number"] for message in await chat.search("found")] == [2, 1]
    assert "Elasticsearch" not in (await client.get("/health/ready")).text


async def test_a_house_that_starts_without_elasticsearch_serves_and_catches_up(
    expose: Expose, connect: Connect
) -> None:
    """Neither the API nor the worker waits for it; the index is made when it is there."""
    exposed = expose()
    exposed.to_search.cut()
    await exposed.start()
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("to be found")
    assert_unavailable(await chat.request("GET", "/messages/search?q=found"))
    await exposed.until_applied(STORE)
    exposed.to_search.mend()
    await exposed.whole()
    assert [message["number"] for message in await chat.search("found")] == [1]
