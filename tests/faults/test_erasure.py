"""Applications that are erased while the server is killed: gone for good, or there as a whole."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import httpx

from tests.client import Client
from tests.conftest import BuildHouse, Connect
from tests.eventually import eventually
from tests.faults.whole import assert_whole

APPLICATIONS = 8
ERASED_BEFORE_KILLS = [0, 1, 2]
"""How many erasures are acknowledged before each kill, in some order: so it always meets some, and none too many."""

LIFE_S = (0.0, 0.02)
LEFT_AT_LEAST = 4
MESSAGES = 60


async def fill(client: Client, name: str) -> str:
    """An application with two chats and some messages that carry its name; its token."""
    token = (await client.create_application(name))["token"]
    for _ in range(2):
        chat = await client.create_chat(token, title=name)
        await chat.post_batch(*(f"{name} says {one}" for one in range(MESSAGES)))
    return token


async def erase_all(client: Client, tokens: list[str], acknowledged: set[str], asked: set[str]) -> None:
    """Erase one after the other until the server is gone."""
    try:
        for token in tokens:
            asked.add(token)
            answer = await client.request("DELETE", f"/applications/{token}")
            assert answer.status_code in (204, 404), answer.text
            acknowledged.add(token)
    except httpx.TransportError:
        pass


async def holdings(client: Client, token: str, name: str) -> list[int]:
    """What an application shows of itself: its status, and how many chats, messages and hits there are."""
    base = f"/applications/{token}"
    answer = await client.get(base)
    if answer.status_code == 404:
        paths = ("/chats", "/chats/1", "/chats/1/messages", "/chats/2/messages/1", "/messages/search?q=says")
        assert {(await client.get(base + path)).status_code for path in paths} == {404}
        return [404]
    chats = await client.list_chats(token)
    messages = [await client.get_json(f"{base}/chats/{one['number']}/messages", limit=200) for one in chats]
    hits = await client.search(token, name, limit=200)
    return [answer.status_code, len(chats), *(len(one) for one in messages), len(hits)]


async def numbers_found(client: Client, token: str, q: str) -> list[int]:
    """The numbers of the messages that a search over an application finds."""
    return [found["number"] for found in await client.search(token, q)]


async def test_an_application_whose_erasure_was_acknowledged_never_comes_back(
    build_house: BuildHouse, connect: Connect, seed: int
) -> None:
    """After each crash the erased are 404 everywhere, all others whole, and new ones start empty."""
    house, chance = build_house(), random.Random(seed)
    house.start()
    client = connect(house)
    names = {await fill(client, f"name-{one}."): f"name-{one}." for one in range(APPLICATIONS)}
    whole = [200, 2, MESSAGES, MESSAGES, 2 * MESSAGES]
    acknowledged: set[str] = set()
    asked: set[str] = set()
    for erased in chance.sample(ERASED_BEFORE_KILLS, len(ERASED_BEFORE_KILLS)):
        while len(names) - len(acknowledged) < LEFT_AT_LEAST:
            name = f"name-{len(names)}."
            names[await fill(client, name)] = name
        left = [token for token in names if token not in acknowledged]
        before = len(acknowledged)
        erasing = asyncio.create_task(erase_all(client, left, acknowledged, asked))
        while len(acknowledged) < before + erased:
            assert not erasing.done(), "the server was gone before it was killed"
            await asyncio.sleep(0.001)
        await asyncio.sleep(chance.uniform(*LIFE_S))
        house.kill()
        await erasing
        await asyncio.to_thread(house.start)
        for token, name in names.items():
            held = await holdings(client, token, name)
            if token in acknowledged:
                assert held == [404]
            elif token in asked and held == [404]:
                acknowledged.add(token)
            else:
                await eventually(partial(holdings, client, token, name), whole)
        newcomer = (await client.create_application("newcomer"))["token"]
        chat = await client.create_chat(newcomer)
        assert (chat.number, await chat.messages(), await chat.search("says")) == (1, [], [])
        assert (await chat.post("first"))["number"] == 1
        await eventually(partial(numbers_found, client, newcomer, "s"), [1])
    await assert_whole(house)
