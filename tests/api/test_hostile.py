"""Requests that are made to hurt: each is answered, costs no one else anything, and loses nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.api.problems import expect_problem
from tests.client import ChatAt, Client, expect
from tests.houses import House
from tests.raw_http import RawConnection, chunk, connection, exchange, head

TITLE = b'{"title":"Important","metadata":{"a":1}}'
MEBIBYTE = 1024 * 1024


async def said(raw: RawConnection, status: int, method: str = "POST") -> Any:
    """The next answer, which has this status."""
    answer = await raw.answer(method)
    assert answer.status_code == status, answer.text
    return answer.json()


def cursor(text: str) -> str:
    """As cursors are written."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def test_a_hundred_thousand_keys_are_looked_through_once(house: House, chat: ChatAt) -> None:
    """One of which stands twice, at the end; whoever asks meanwhile is answered soon after."""
    keys = ",".join(f'"{key}":0' for key in [*range(80_000), 79_999])
    body = b'{"body":"x","metadata":{%s}}' % keys.encode()
    async with asyncio.timeout(30):
        refused = await exchange(house, "POST", f"{chat.path}/messages", body)
    problem = expect_problem(refused, 400, "invalid")
    assert "'79999' stands twice" in problem["detail"]


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("how", ["at once", "in two pieces", "in chunks"])
async def test_a_body_behind_an_upgrade_is_not_lost(house: House, chat: ChatAt, protocol: str, how: str) -> None:
    """As clients ask who try HTTP/2 first: the request is carried out whole, and so is the next."""
    asking = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": protocol,
        "HTTP2_Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    }
    chats = f"/applications/{chat.token}/chats"
    async with connection(house) as raw:
        if how == "in chunks":
            await raw.send(head("POST", chats, Transfer_Encoding="chunked", **asking) + chunk(TITLE) + chunk(b""))
        elif how == "at once":
            await raw.send(head("POST", chats, Content_Length=len(TITLE), **asking) + TITLE)
        else:
            await raw.send(head("POST", chats, Content_Length=len(TITLE), **asking) + TITLE[:9])
            await asyncio.sleep(0.2)
            await raw.send(TITLE[9:])
        opened = await said(raw, 201)
        assert (opened["title"], opened["metadata"]) == ("Important", {"a": 1})
        await raw.send(head("GET", chat.path))
        assert (await said(raw, 200, "GET"))["number"] == chat.number


async def test_requests_around_an_upgrade_keep_their_order(house: House, chat: ChatAt) -> None:
    """One before it and one behind it, sent together."""
    body = b'{"body":"x"}'
    post = head("POST", f"{chat.path}/messages", Content_Length=len(body))
    asking = head("POST", f"{chat.path}/messages", Content_Length=len(body), Connection="Upgrade", Upgrade="h2c")
    async with connection(house) as raw:
        await raw.send(post + body + asking + body + post + body)
        assert [(await said(raw, 201))["number"] for _ in range(3)] == [1, 2, 3]


async def test_an_empty_key_behind_an_upgrade_is_still_refused(house: House, chat: ChatAt) -> None:
    """What is told again of a head is all of it but the question."""
    body = b'{"body":"x"}'
    asking = {"Connection": "Upgrade", "Upgrade": "h2c", "Idempotency_Key": ""}
    async with connection(house) as raw:
        await raw.send(head("POST", f"{chat.path}/messages", Content_Length=len(body), **asking) + body)
        expect_problem(await raw.answer(), 400, "invalid")
    assert await chat.messages() == []


async def _refused_early(raw: RawConnection, begin: bytes, more: bytes) -> None:
    """Refused, and cut off, before much of it was taken."""
    await raw.send(begin)
    sent = 0
    while sent < 16 * MEBIBYTE and not raw.reader.at_eof() and not raw.writer.is_closing():
        await raw.send(more)
        sent += len(more)
        await asyncio.sleep(0)
    assert sent < 16 * MEBIBYTE


@pytest.mark.parametrize("begin", [b"0\r\nX-Trailer: ", b"0\r\n", b"5;extension="])
async def test_what_stands_around_chunks_has_a_bound(house: House, chat: ChatAt, begin: bytes) -> None:
    """A trailer, many of them, or an extension of a chunk that never ends."""
    more = b"y: z\r\n" * 10_000 if begin == b"0\r\n" else b"x" * 65_536
    async with connection(house) as raw:
        chunked = head("POST", f"{chat.path}/messages", Transfer_Encoding="chunked") + chunk(b'{"body":')
        await _refused_early(raw, chunked + begin, more)


async def test_a_key_that_is_no_text_is_named_as_well_as_can_be(chat: ChatAt) -> None:
    """Half of a surrogate pair: what says so can be written."""
    body = b'{"x":1,"\\ud800":"\\u0000"}'
    for below in ("/messages", "/messages/batch"):
        refused = await chat.request("POST", below, content=body, headers={"Content-Type": "application/json"})
        expect_problem(refused, 400, "invalid")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "deep"}])
@pytest.mark.parametrize(("depth", "status"), [(100, 201), (101, 400), (500, 400), (970, 400)])
async def test_metadata_may_be_a_hundred_deep(chat: ChatAt, depth: int, status: int, headers: dict[str, str]) -> None:
    """With a key and without, of messages and of chats."""
    metadata = '{"a":' + "[" * (depth - 1) + "1" + "]" * (depth - 1) + "}"
    posted = await chat.request("POST", "/messages", content=f'{{"body":"x","metadata":{metadata}}}', headers=headers)
    assert posted.status_code == status
    path = f"/applications/{chat.token}/chats"
    opened = await chat.client.request("POST", path, content=f'{{"metadata":{metadata}}}', headers=headers)
    assert opened.status_code == status


async def test_long_heads_and_bodies_may_be_sent_together(house: House, chat: ChatAt) -> None:
    """Pipelined: each head is within its bound, however much is read at once."""
    body = json.dumps({"body": "x" * 60_000}).encode()
    request = head("POST", f"{chat.path}/messages", Content_Length=len(body), X_Long="y" * 3_000) + body
    async with connection(house) as raw:
        sending = asyncio.create_task(raw.send(request * 40))
        assert [(await said(raw, 201))["number"] for _ in range(40)] == list(range(1, 41))
        await sending


async def test_thousands_of_requests_may_be_sent_together(house: House, chat: ChatAt) -> None:
    """Each is answered, in order."""
    async with connection(house) as raw:
        sending = asyncio.create_task(raw.send(head("GET", chat.path, X_Filler="z" * 80) * 3_000))
        for _ in range(3_000):
            await said(raw, 200, "GET")
        await sending


@pytest.mark.parametrize(
    "text", ["1." + "9" * 5_000 + ".1", "1.1." + "9" * 5_000, "1_0.1.1", " 1.1.1", "1.1", "1.1.1.1", "1.999.1", "x.1.1"]
)
async def test_a_cursor_that_no_link_carried_is_refused(chat: ChatAt, text: str) -> None:
    """Whatever it is made of."""
    await chat.post("hello")
    path = f"/applications/{chat.token}/messages/search"
    expect_problem(await chat.client.request("GET", path, params={"q": "h", "after": cursor(text)}), 400, "invalid")


@pytest.mark.parametrize("text", ["9" * 5_000 + ".abc", "1_0.abc", "1.", "1", "1.a.b"])
async def test_a_cursor_of_applications_that_no_link_carried_is_refused(client: Client, text: str) -> None:
    """The same."""
    expect_problem(await client.request("GET", "/applications", params={"after": cursor(text)}), 400, "invalid")


async def test_a_body_in_pieces_of_one_byte_is_one_body(house: House, chat: ChatAt) -> None:
    """However many there are."""
    body = json.dumps({"body": "é" * 3_000}, ensure_ascii=False).encode()
    async with connection(house) as raw:
        pieces = b"".join(chunk(body[index : index + 1]) for index in range(len(body)))
        await raw.send(head("POST", f"{chat.path}/messages", Transfer_Encoding="chunked") + pieces + chunk(b""))
        assert (await said(raw, 201))["body"] == "é" * 3_000


async def test_metadata_that_say_the_same_change_nothing(chat: ChatAt) -> None:
    """Another order of keys, and 1.0 for 1: no revision, and no time of a change."""
    await chat.post("x", metadata={"a": 1, "b": [2]})
    before = await chat.edit(1, metadata={"b": [2.0], "a": 1.0})
    assert (before["revision"], before["updated_at"]) == (1, before["created_at"])
    for metadata, changes in (({"a": 1, "b": 2}, True), ({"b": 2.0, "a": 1}, False), ({"a": True, "b": 2}, True)):
        was = await chat.read()
        await asyncio.sleep(0.01)
        now = expect(await chat.request("PATCH", json={"metadata": metadata}), 200).json()
        assert (now["updated_at"] != was["updated_at"]) is changes


async def test_large_events_come_whole_to_who_catches_up(house: House, chat: ChatAt) -> None:
    """Each is larger than a connection holds: what was not taken at once is read again, in order."""
    for _ in range(12):
        await chat.post("\x01" * 65_536)
    async with connection(house, receive_buffer_bytes=8_192) as raw:
        await raw.send(head("GET", f"{chat.path}/events?after=0"))
        seen = b""
        async with asyncio.timeout(60):
            while seen.count(b"\nid: ") < 12 or not seen.endswith(b"\n\n\r\n"):
                seen += await raw.reader.read(65_536)
    assert [int(piece.split(b"\n")[0]) for piece in seen.split(b"\nid: ")[1:]] == list(range(1, 13))


async def test_the_link_behind_the_last_bound_can_be_followed(chat: ChatAt) -> None:
    """Nothing lies beyond the largest bound, and the way back is no larger than that."""
    await chat.post("only")
    answer = await chat.request("GET", "/messages", params={"after": 2**53 - 1})
    back = answer.links["prev"]["url"]
    assert [message["number"] for message in (await chat.client.request("GET", back)).json()] == [1]
