"""Every limit, at n and at n + 1 (API.md, "Resources").

The limits of pages, queries and idempotency keys stand with what they limit: test_lists.py, test_search.py,
test_idempotency.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.problems import expect_invalid, expect_problem
from tests.client import Application, ChatAt, Client, expect
from tests.houses import House
from tests.raw_http import chunk, connection, exchange, head

NAME_CHARACTERS = 255
BODY_BYTES = 64 * 1024
METADATA_BYTES = 4 * 1024
BATCH_MESSAGES = 500
REQUEST_BYTES = 1024 * 1024
BATCH_REQUEST_BYTES = 8 * 1024 * 1024

GOOD_NAMES = {
    "1 character": "x",
    "255 ascii": "x" * NAME_CHARACTERS,
    "255 of two bytes": "é" * NAME_CHARACTERS,
    "255 beyond 16 bits": "😀" * NAME_CHARACTERS,
    "blank but for one": " " * 254 + "x",
}
BAD_NAMES = {
    "empty": "",
    "256 ascii": "x" * (NAME_CHARACTERS + 1),
    "256 beyond 16 bits": "😀" * (NAME_CHARACTERS + 1),
    "256 with spaces around": "x".center(NAME_CHARACTERS + 1),
    "a space": " ",
    "tabs and line ends": "\t\r\n",
    "unicode white space": "\u00a0\u2003\u3000\u2028\u0085",
}


@pytest.mark.parametrize("name", GOOD_NAMES.values(), ids=GOOD_NAMES)
async def test_names_titles_and_senders_of_1_to_255_characters(client: Client, name: str) -> None:
    """Characters are counted, not bytes; accepted wherever such a text is taken."""
    application = await client.create_application(name)
    path = f"/applications/{application['token']}"
    for method in ("PUT", "PATCH"):
        expect(await client.request(method, path, json={"name": name}), 200)
    chat = await client.create_chat(application["token"], title=name)
    assert expect(await chat.request("PATCH", json={"title": name}), 200).json()["title"] == name
    assert (await chat.post(sender=name))["sender"] == name
    batch = {"messages": [{"body": "x", "sender": name}]}
    expect(await chat.request("POST", "/messages/batch", json=batch), 201)


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
async def test_names_titles_and_senders_out_of_limits(client: Client, chat: ChatAt, name: str) -> None:
    """Empty, blank or one character too long: refused wherever such a text is taken."""
    path = f"/applications/{chat.token}"
    before = await client.read_application(chat.token)
    expect_invalid(await client.post("/applications", json={"name": name}), "/name")
    for method in ("PUT", "PATCH"):
        expect_invalid(await client.request(method, path, json={"name": name}), "/name")
    for create in (f"{path}/chats", f"/chats/{chat.token}"):
        expect_invalid(await client.post(create, json={"title": name}), "/title")
    expect_invalid(await chat.request("PATCH", json={"title": name}), "/title")
    expect_invalid(await chat.request("POST", "/messages", json={"body": "x", "sender": name}), "/sender")
    batch = {"messages": [{"body": "x", "sender": name}]}
    expect_invalid(await chat.request("POST", "/messages/batch", json=batch), "/messages/0/sender")
    assert (await client.read_application(chat.token))["name"] == before["name"]


GOOD_BODIES = {
    "1 character": "x",
    "64 KiB of ascii": "x" * BODY_BYTES,
    "64 KiB of three bytes each": "京" * (BODY_BYTES // 3) + "x",
    "64 KiB of four bytes each": "😀" * (BODY_BYTES // 4),
    "64 KiB that need escapes": '"\n' * (BODY_BYTES // 2),
}
BAD_BODIES = {
    "empty": "",
    "1 byte more of ascii": "x" * (BODY_BYTES + 1),
    "1 byte more of three bytes each": "京" * (BODY_BYTES // 3) + "xx",
    "1 byte more of four bytes each": "😀" * (BODY_BYTES // 4) + "x",
}


@pytest.mark.parametrize("body", GOOD_BODIES.values(), ids=GOOD_BODIES)
async def test_a_body_of_1_character_to_64_kib(chat: ChatAt, body: str) -> None:
    """Bytes of UTF-8 are counted, and the largest body is posted, edited and read unharmed."""
    assert (await chat.post(body))["body"] == body
    await chat.post()
    assert (await chat.edit(2, body=body))["body"] == body
    assert [message["body"] for message in await chat.messages()] == [body, body]
    (batched,) = await chat.post_batch(body)
    assert batched["body"] == body


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_body_out_of_limits(chat: ChatAt, body: str) -> None:
    """Empty, or one byte too long: refused when posted, edited or batched."""
    await chat.post()
    expect_invalid(await chat.request("POST", "/messages", json={"body": body}), "/body")
    expect_invalid(await chat.request("PATCH", "/messages/1", json={"body": body}), "/body")
    batch = {"messages": [{"body": body}]}
    expect_invalid(await chat.request("POST", "/messages/batch", json=batch), "/messages/0/body")
    assert len(await chat.messages()) == 1


def metadata_of(size: int, filler: str) -> dict[str, Any]:
    """Metadata whose compact UTF-8 JSON has exactly `size` bytes."""
    frame = len(json.dumps({"k": ""}, separators=(",", ":")))
    encoded = len(json.dumps(filler, ensure_ascii=False).encode()) - 2
    count, rest = divmod(size - frame, encoded)
    metadata = {"k": filler * count + "x" * rest}
    assert len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) == size
    return metadata


@pytest.mark.parametrize("filler", ["v", "é", "😀", '"', "\n"])
async def test_metadata_of_4_kib_and_not_a_byte_more(client: Client, chat: ChatAt, filler: str) -> None:
    """Measured as compact UTF-8 JSON, wherever metadata is taken."""
    largest, too_large = metadata_of(METADATA_BYTES, filler), metadata_of(METADATA_BYTES + 1, filler)
    chats = f"/applications/{chat.token}/chats"
    requests: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", chats, {}, 201),
        ("PATCH", chat.path, {}, 200),
        ("POST", f"{chat.path}/messages", {"body": "x"}, 201),
        ("PATCH", f"{chat.path}/messages/1", {}, 200),
    ]
    for method, path, fields, status in requests:
        accepted = expect(await client.request(method, path, json={**fields, "metadata": largest}), status)
        assert accepted.json()["metadata"] == largest
        refused = await client.request(method, path, json={**fields, "metadata": too_large})
        expect_invalid(refused, "/metadata")
    for metadata, status in ((largest, 201), (too_large, 400)):
        batch = {"messages": [{"body": "x", "metadata": metadata}]}
        assert (await chat.request("POST", "/messages/batch", json=batch)).status_code == status


async def test_white_space_and_escapes_around_metadata_do_not_count(chat: ChatAt) -> None:
    """What is measured is its compact form, not the form in which it was sent."""
    largest = metadata_of(METADATA_BYTES, "é")
    content = json.dumps({"body": "x", "metadata": largest}, indent=400, ensure_ascii=True).encode()
    assert len(content) > 2 * METADATA_BYTES
    assert expect(await chat.request("POST", "/messages", content=content), 201).json()["metadata"] == largest


async def test_a_batch_of_1_to_500_messages(chat: ChatAt) -> None:
    """The smallest and the largest batch are accepted."""
    assert len(await chat.post_batch("x")) == 1
    posted = await chat.post_batch(*(f"message {index}" for index in range(BATCH_MESSAGES)))
    assert [message["number"] for message in posted] == list(range(2, BATCH_MESSAGES + 2))


@pytest.mark.parametrize("count", [0, BATCH_MESSAGES + 1])
async def test_a_batch_out_of_limits(chat: ChatAt, count: int) -> None:
    """Empty, or one message too many: nothing of it is stored."""
    batch = {"messages": [{"body": "x"}] * count}
    expect_invalid(await chat.request("POST", "/messages/batch", json=batch), "/messages")
    assert await chat.messages() == []


def padded(payload: object, size: int) -> bytes:
    """JSON that white space makes exactly `size` bytes long."""
    return json.dumps(payload).encode().ljust(size)


def capped_requests(application: Application) -> dict[str, tuple[str, str, object, int]]:
    """Every request with a body but the batch: method, path, payload, status."""
    path = f"/applications/{application['token']}"
    return {
        "create application": ("POST", "/applications", {"name": "x"}, 201),
        "put application": ("PUT", path, {"name": "x"}, 200),
        "patch application": ("PATCH", path, {"name": "x"}, 200),
        "create chat": ("POST", f"{path}/chats", {}, 201),
        "create chat by alias": ("POST", f"/chats/{application['token']}", {}, 201),
        "patch chat": ("PATCH", f"{path}/chats/1", {}, 200),
        "post": ("POST", f"{path}/chats/1/messages", {"body": "x"}, 201),
        "post by alias": ("POST", f"/chats/1/messages?token={application['token']}", {"body": "x"}, 201),
        "patch message": ("PATCH", f"{path}/chats/1/messages/1", {"body": "y"}, 200),
    }


async def test_a_request_of_1_mib_and_not_a_byte_more(client: Client, application: Application) -> None:
    """The cap of every request but the batch counts the body as sent."""
    for method, path, payload, status in capped_requests(application).values():
        expect(await client.request(method, path, content=padded(payload, REQUEST_BYTES)), status)
        too_large = await client.request(method, path, content=padded(payload, REQUEST_BYTES + 1))
        expect_problem(too_large, 413, "too_large")


async def test_a_batch_request_of_8_mib_and_not_a_byte_more(chat: ChatAt) -> None:
    """The batch has a cap of its own."""
    payload = {"messages": [{"body": "x" * BODY_BYTES}] * 100}
    accepted = await chat.request("POST", "/messages/batch", content=padded(payload, BATCH_REQUEST_BYTES))
    assert len(expect(accepted, 201).json()) == 100
    refused = await chat.request("POST", "/messages/batch", content=padded(payload, BATCH_REQUEST_BYTES + 1))
    expect_problem(refused, 413, "too_large")
    assert (await chat.post())["number"] == 101


@pytest.mark.parametrize(("below", "cap"), [("/messages", REQUEST_BYTES), ("/messages/batch", BATCH_REQUEST_BYTES)])
async def test_a_length_over_the_cap_is_413_before_any_of_it_is_read(
    house: House, chat: ChatAt, below: str, cap: int
) -> None:
    """The announced length is enough: the answer comes though not one byte of the body was sent."""
    async with connection(house) as raw:
        announced = head("POST", chat.path + below, Content_Type="application/json", Content_Length=cap + 1)
        await raw.send(announced)
        expect_problem(await raw.answer(), 413, "too_large")


@pytest.mark.parametrize(("below", "cap"), [("/messages", REQUEST_BYTES), ("/messages/batch", BATCH_REQUEST_BYTES)])
async def test_a_chunked_body_over_the_cap_is_413_before_it_ends(
    house: House, chat: ChatAt, below: str, cap: int
) -> None:
    """Without a length the answer comes once the cap is passed, not at the end that never comes."""
    async with connection(house) as raw:
        start = head("POST", chat.path + below, Content_Type="application/json", Transfer_Encoding="chunked")
        await raw.send(start + chunk(b'{"body": "x"'))
        for _ in range(cap // 65536 + 1):
            await raw.send(chunk(b" " * 65536))
        expect_problem(await raw.answer(), 413, "too_large")
    assert (await chat.post())["number"] == 1


async def test_a_chunked_body_within_the_cap_is_accepted(house: House, chat: ChatAt) -> None:
    """Bodies without an announced length work, up to the same cap exactly."""
    async with connection(house) as raw:
        content = padded({"body": "x"}, REQUEST_BYTES)
        await raw.send(head("POST", f"{chat.path}/messages", Transfer_Encoding="chunked"))
        for start in range(0, REQUEST_BYTES, 100_000):
            await raw.send(chunk(content[start : start + 100_000]))
        await raw.send(chunk(b""))
        assert (await raw.answer()).json()["body"] == "x"


async def test_a_client_that_sends_on_after_413_still_gets_the_answer(house: House, chat: ChatAt) -> None:
    """A whole body of 3 MiB pushed at once: the refusal is not lost to a reset."""
    response = await exchange(house, "POST", f"{chat.path}/messages", padded({"body": "x"}, 3 * REQUEST_BYTES))
    expect_problem(response, 413, "too_large")
