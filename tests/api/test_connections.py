"""Connections: order, ends and refusals on one connection, as no good client would provoke them (RFC 9112)."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.problems import expect_problem
from tests.client import ChatAt, Client
from tests.houses import House
from tests.raw_http import chunk, connection, head


async def test_rubbish_after_a_request_does_not_take_its_answer(house: House, chat: ChatAt) -> None:
    """What was asked before is answered first, then the rubbish is refused and the connection closed."""
    async with connection(house) as raw:
        body = json.dumps({"body": "before"}).encode()
        request = head("POST", f"{chat.path}/messages", Content_Length=len(body)) + body
        await raw.send(request * 3 + b"\x16\x03\x01 what is this\r\n\r\n")
        assert [(await raw.answer()).json()["number"] for _ in range(3)] == [1, 2, 3]
        refusal = await raw.answer()
        assert (refusal.status_code, refusal.headers["connection"]) == (400, "close")
        assert await raw.reader.read() == b""


async def test_a_malformed_request_is_not_refused_in_the_name_of_the_one_before_it(house: House) -> None:
    """Sent together: an unknown method is 405, and the bytes that follow it are 400."""
    async with connection(house) as raw:
        await raw.send(head("PROPFIND", "/applications") + b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        expect_problem(await raw.answer(), 405, "method_not_allowed")
        expect_problem(await raw.answer(), 400, "invalid")


async def test_a_broken_body_is_refused_and_posts_nothing(house: House, chat: ChatAt) -> None:
    """A chunk whose size is no number ends the request before it was complete."""
    async with connection(house) as raw:
        await raw.send(head("POST", f"{chat.path}/messages", Transfer_Encoding="chunked") + chunk(b'{"body": '))
        await raw.send(b'XYZ\r\n"x"}\r\n0\r\n\r\n')
        refusal = await raw.answer()
        assert (refusal.status_code, refusal.headers["connection"]) == (400, "close")
        assert await raw.reader.read() == b""
    assert await chat.messages() == []


async def test_a_client_that_says_no_more_is_still_answered(house: House, chat: ChatAt) -> None:
    """Closing one's own half of the connection after the request is allowed: the answers come, then the end."""
    async with connection(house) as raw:
        body = b'{"body": "the last words"}'
        await raw.send((head("POST", f"{chat.path}/messages", Content_Length=len(body)) + body) * 2)
        raw.writer.write_eof()
        assert [(await raw.answer()).json()["number"] for _ in range(2)] == [1, 2]
        assert await raw.reader.read() == b""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_who_asks_for_the_end_gets_it_after_the_answer(house: House, chat: ChatAt, version: str) -> None:
    """`Connection: close`, and HTTP/1.0, end with the answer; what comes after is not looked at."""
    async with connection(house) as raw:
        request = f"GET {chat.path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        await raw.send(request * 2)
        answer = await raw.answer("GET")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert await raw.reader.read() == b""


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_an_upgrade_that_is_not_spoken_is_not_taken(house: House, chat: ChatAt, protocol: str) -> None:
    """The request is answered as if it had not asked."""
    async with connection(house) as raw:
        await raw.send(head("GET", chat.path, Connection="Upgrade", Upgrade=protocol))
        answer = await raw.answer("GET")
        assert answer.status_code == 200
        assert answer.json()["number"] == chat.number


async def test_a_target_may_name_the_host(house: House, chat: ChatAt) -> None:
    """The absolute form, as a proxy is sent it."""
    async with connection(house) as raw:
        await raw.send(head("GET", f"http://chat.example{chat.path}/messages?limit=1"))
        answer = await raw.answer("GET")
        assert (answer.status_code, answer.json()) == (200, [])


async def test_trailers_are_no_headers(house: House, chat: ChatAt) -> None:
    """What follows a chunked body can't take part in the request."""
    async with connection(house) as raw:
        for number in (1, 2):
            await raw.send(head("POST", f"{chat.path}/messages", Transfer_Encoding="chunked"))
            await raw.send(chunk(b'{"body": "x"}') + b"0\r\nIdempotency-Key: k\r\n\r\n")
            answer = await raw.answer()
            assert (answer.status_code, answer.json()["number"]) == (201, number)
            assert "idempotency-replayed" not in answer.headers


async def test_a_body_that_nobody_wants_does_not_disturb_the_next_request(house: House, chat: ChatAt) -> None:
    """Much of it may still be on its way when the answer is sent."""
    async with connection(house) as raw:
        await raw.send(head("GET", chat.path, Content_Length=3_000_000))
        assert (await raw.answer("GET")).status_code == 200
        for _ in range(30):
            await raw.send(b"x" * 100_000)
        await raw.send(head("GET", chat.path))
        assert (await raw.answer("GET")).json()["number"] == chat.number


async def test_answers_wait_for_who_does_not_take_them(house: House, chat: ChatAt, client: Client) -> None:
    """Many pages are asked for at once and taken late: all come, in order, and others are served meanwhile."""
    await chat.post_batch(*(f"{number} " + "x" * 10_000 for number in range(1, 101)))
    async with connection(house, receive_buffer_bytes=4096) as raw:
        await raw.send(b"".join(head("GET", f"{chat.path}/messages?limit=100&after={after}") for after in range(40)))
        await asyncio.sleep(0.5)
        assert (await client.get(chat.path)).status_code == 200
        for after in range(40):
            assert (await raw.answer("GET")).json()[0]["number"] == after + 1
