"""Answers that are lost between Redis and the client: whoever asks again with the key is told the same."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.client import ChatAt, expect
from tests.conftest import Connect, only
from tests.faults.conftest import Expose
from tests.faults.exposed import Exposed, until
from tests.faults.unavailable import assert_unavailable

MARK = "recorded, and not answered"

pytestmark = only("stack", because="only in the stack house is recording on another machine than answering")


@dataclass(frozen=True)
class Request:
    """A creation that can be sent again, and how its numbers are read from the answer."""

    key: str
    below: str
    payload: Any

    async def send(self, chat: ChatAt) -> httpx.Response:
        """Send it, always with the same key."""
        path = f"/applications/{chat.token}/chats{self.below}"
        return await chat.client.post(path, json=self.payload, headers={"Idempotency-Key": self.key})


A_CHAT = Request("one", "", {"title": MARK})
A_MESSAGE = Request("two", "/1/messages", {"body": MARK})
A_BATCH = Request("three", "/1/messages/batch", {"messages": [{"body": f"{MARK} {number}"} for number in range(3)]})


def numbers_of(answer: httpx.Response) -> list[int]:
    """The numbers that were allotted."""
    created = expect(answer, 201).json()
    return [one["number"] for one in (created if isinstance(created, list) else [created])]


def recorded(exposed: Exposed) -> dict[bytes, int]:
    """How many facts each partition has recorded."""
    with exposed.asking_redis() as client:
        metas = client.scan_iter(match=f"{exposed.direct.name}:*:meta", count=1000)
        return {meta: int(client.hget(meta, "store") or 0) for meta in metas}


async def begun(exposed: Exposed, connect: Connect) -> ChatAt:
    """A chat with one message, all of it applied: every script is known to Redis, every counter warm."""
    await exposed.start()
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("before")
    await exposed.until_applied()
    return chat


async def lose_the_answer(exposed: Exposed, chat: ChatAt, asked: Request) -> asyncio.Task[httpx.Response]:
    """Send a request that Redis records and of which the API process hears nothing; the request, under way."""
    before = recorded(exposed)
    exposed.to_redis.hold_answers(after=MARK.encode())
    asking = asyncio.create_task(asked.send(chat))

    async def is_recorded() -> bool:
        return recorded(exposed) != before

    await until(is_recorded, "Redis has recorded the request")
    assert not asking.done()
    return asking


async def assert_told_the_same(exposed: Exposed, chat: ChatAt, asked: Request, numbers: list[int]) -> None:
    """The repeat is a replay with these numbers, before everything is applied and after it."""
    again = await asked.send(chat)
    assert (numbers_of(again), again.headers["idempotency-replayed"]) == (numbers, "true")
    await exposed.until_applied()
    assert numbers_of(await asked.send(chat)) == numbers


async def test_an_api_process_killed_before_it_heard_the_answer_leaves_one_number(
    expose: Expose, connect: Connect
) -> None:
    """SIGKILL after Redis has recorded and before anybody was answered; the retry gets the same numbers."""
    exposed = expose()
    chat = await begun(exposed, connect)
    asking = await lose_the_answer(exposed, chat, A_BATCH)
    exposed.house.kill()
    with pytest.raises(httpx.TransportError):
        await asking
    exposed.to_redis.cut()
    exposed.to_redis.mend()
    await exposed.start()
    await assert_told_the_same(exposed, chat, A_BATCH, [2, 3, 4])
    assert (await chat.post("after"))["number"] == 5
    await exposed.whole()


async def test_an_answer_that_was_cut_off_is_unavailable_and_the_retry_gets_the_same_number(
    expose: Expose, connect: Connect
) -> None:
    """The connection to Redis breaks after it has recorded: the process can't know, and says 503."""
    exposed = expose()
    chat = await begun(exposed, connect)
    for asked, numbers in ((A_CHAT, [2]), (A_MESSAGE, [2]), (A_BATCH, [3, 4, 5])):
        asking = await lose_the_answer(exposed, chat, asked)
        exposed.to_redis.cut()
        assert_unavailable(await asking)
        exposed.to_redis.mend()
        await exposed.until_ready()
        await assert_told_the_same(exposed, chat, asked, numbers)
    assert (await chat.client.create_chat(chat.token)).number == 3
    assert (await chat.post("after"))["number"] == 6
    await exposed.whole()
