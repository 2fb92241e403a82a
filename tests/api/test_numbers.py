"""Promise 1: gapless, unique numbers in the order of requests, whatever happens at the same time."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.client import Application, ChatAt, Client
from tests.houses import House
from tests.raw_http import chunk, connection, head

CROWD = 200


async def test_hundreds_of_simultaneous_messages_are_numbered_one_to_n(chat: ChatAt) -> None:
    """No gap and no duplicate, and each number belongs to the body that was answered with it."""
    posted = await asyncio.gather(*(chat.post(f"message {index}") for index in range(CROWD)))
    assert sorted(message["number"] for message in posted) == list(range(1, CROWD + 1))
    assert {message["body"] for message in posted} == {f"message {index}" for index in range(CROWD)}
    assert await chat.messages(limit=200) == sorted(posted, key=lambda message: message["number"])


async def test_hundreds_of_simultaneous_chats_are_numbered_one_to_n(client: Client, application: Application) -> None:
    """Chats are numbered like messages, on both paths that create them."""
    token = application["token"]
    paths = itertools.cycle([f"/applications/{token}/chats", f"/chats/{token}"])
    answers = await asyncio.gather(*(client.post(path, json={}) for path, _ in zip(paths, range(CROWD), strict=False)))
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(answer.json()["number"] for answer in answers) == list(range(1, CROWD + 1))


async def test_simultaneous_messages_in_many_chats_are_numbered_in_each(client: Client, chat: ChatAt) -> None:
    """Chats do not disturb each other, also when one flush carries messages of several."""
    chats = [chat, *[await client.create_chat(chat.token) for _ in range(9)]]
    posted = await asyncio.gather(*(each.post() for each in chats for _ in range(20)))
    by_chat = [posted[start : start + 20] for start in range(0, 200, 20)]
    for messages in by_chat:
        assert sorted(message["number"] for message in messages) == list(range(1, 21))


async def test_a_request_answered_before_another_was_sent_has_the_smaller_number(chat: ChatAt) -> None:
    """Among overlapping senders, every pair of requests that did not overlap is in order."""
    loop = asyncio.get_running_loop()
    spans: list[tuple[float, float, int]] = []

    async def send_some() -> None:
        for _ in range(15):
            sent = loop.time()
            message = await chat.post()
            spans.append((sent, loop.time(), message["number"]))

    await asyncio.gather(*(send_some() for _ in range(12)))
    for (_, answered, earlier), (sent, _, later) in itertools.permutations(spans, 2):
        assert answered >= sent or earlier < later


async def test_messages_posted_one_after_the_other_count_up_by_one(chat: ChatAt) -> None:
    """With a single sender the next number is the last plus one, every time."""
    assert [(await chat.post())["number"] for _ in range(30)] == list(range(1, 31))


REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "malformed": (400, {"content": b"{"}),
    "an unknown field": (400, {"json": {"body": "x", "colour": "red"}}),
    "an empty body": (400, {"json": {"body": ""}}),
    "a NUL": (400, {"json": {"body": "\x00"}}),
    "a body over its limit": (400, {"json": {"body": "x" * 65537}}),
    "metadata over its limit": (400, {"json": {"body": "x", "metadata": {"k": "v" * 4096}}}),
    "a bad idempotency key": (400, {"json": {"body": "x"}, "headers": {"Idempotency-Key": "a b"}}),
    "a request over its limit": (413, {"content": b" " * (1024 * 1024 + 1)}),
    "another media type": (415, {"content": b"body=x", "headers": {"Content-Type": "text/plain"}}),
    "another payload for a key": (422, {"json": {"body": "y"}, "headers": {"Idempotency-Key": "used"}}),
}


@pytest.mark.parametrize(("status", "options"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_request_consumes_no_number(chat: ChatAt, status: int, options: dict[str, Any]) -> None:
    """After any refusal the next message follows the last one."""
    await chat.request("POST", "/messages", json={"body": "x"}, headers={"Idempotency-Key": "used"})
    for _ in range(3):
        assert (await chat.request("POST", "/messages", **options)).status_code == status
    message = await chat.post()
    assert (message["number"], message["revision"]) == (2, 2)


async def test_refusals_among_a_crowd_leave_no_gap(chat: ChatAt) -> None:
    """Good and bad requests at the same time: the good ones alone are numbered."""
    good = [chat.request("POST", "/messages", json={"body": "x"}) for _ in range(60)]
    bad = [chat.request("POST", "/messages", json={"body": ""}) for _ in range(60)]
    mixed = [request for pair in zip(good, bad, strict=True) for request in pair]
    answers = await asyncio.gather(*mixed)
    numbers = [answer.json()["number"] for answer in answers if answer.status_code == 201]
    assert sorted(numbers) == list(range(1, 61))


async def test_a_refused_chat_consumes_no_number(client: Client, application: Application) -> None:
    """A chat that was not created leaves no gap among those that were."""
    path = f"/applications/{application['token']}/chats"
    refused: list[dict[str, Any]] = [{"title": ""}, {"colour": "red"}, {"metadata": []}]
    for payload in refused:
        assert (await client.post(path, json=payload)).status_code == 400
    assert (await client.create_chat(application["token"])).number == 1


async def test_a_client_that_hangs_up_halfway_consumes_no_number(house: House, chat: ChatAt) -> None:
    """A request whose body never came to its end was never accepted."""
    target = f"{chat.path}/messages"
    async with connection(house) as raw:
        await raw.send(head("POST", target, Content_Type="application/json", Content_Length=100) + b'{"body": "x"')
    async with connection(house) as raw:
        await raw.send(head("POST", target, Transfer_Encoding="chunked") + chunk(b'{"body": "x"}'))
    assert (await chat.post())["number"] == 1


async def test_the_number_of_a_deleted_message_is_never_used_again(chat: ChatAt) -> None:
    """Deleting the last message, or all of them, does not turn the counter back."""
    await chat.post_batch("one", "two")
    await chat.delete(2)
    assert (await chat.post())["number"] == 3
    for number in (1, 3):
        await chat.delete(number)
    assert (await chat.post())["number"] == 4


async def test_both_paths_that_post_share_one_sequence(client: Client, chat: ChatAt) -> None:
    """The alias counts on where the documented path stopped, also at the same time."""
    alias = [client.post("/chats/1/messages", json={"body": "alias"}, params={"token": chat.token}) for _ in range(20)]
    direct = [chat.request("POST", "/messages", json={"body": "direct"}) for _ in range(20)]
    answers = await asyncio.gather(*alias, *direct)
    assert sorted(answer.json()["number"] for answer in answers) == list(range(1, 41))
