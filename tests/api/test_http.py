"""HTTP itself: HEAD, paths, content types, and bodies that are no acceptable JSON (API.md, "Fine print")."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.problems import expect_invalid, expect_not_found, expect_problem
from tests.api.shapes import UNKNOWN_TOKEN
from tests.client import Application, ChatAt, Client, expect
from tests.eventually import eventually
from tests.houses import House
from tests.raw_http import chunk, connection, exchange, head

GET_PATHS = [
    "/applications",
    "/applications?limit=1",
    "/applications/{token}",
    "/applications/{token}/chats",
    "/applications/{token}/chats/1",
    "/applications/{token}/chats/1/messages",
    "/applications/{token}/chats/1/messages?limit=1",
    "/applications/{token}/chats/1/messages/1",
    "/applications/{token}/chats/1/messages/search?q=hello",
    "/applications/{token}/messages/search?q=hello",
    "/chats/1/messages/search?q=hello&token={token}",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/openapi.json",
    "/swagger/doc.json",
    "/swagger/index.html",
]


@pytest.mark.parametrize("path", GET_PATHS)
async def test_head_is_get_without_the_body(client: Client, chat: ChatAt, path: str) -> None:
    """Same status, type and links, and no body, on every path that can be read."""
    posted = await chat.post_batch("hello", "hello")
    await eventually(lambda: chat.search("hello"), posted[::-1])
    target = path.format(token=chat.token)
    got, headed = await client.get(target), await client.request("HEAD", target)
    assert headed.status_code == expect(got, 200).status_code
    assert headed.content == b""
    for name in ("content-type", "link"):
        assert headed.headers.get(name) == got.headers.get(name)


async def test_head_of_what_is_not_there_is_404_without_a_body(client: Client, chat: ChatAt) -> None:
    """A refusal of HEAD says all it can without a body."""
    for path in ("/nothing", f"{chat.path}/messages/9", f"/applications/{UNKNOWN_TOKEN}"):
        response = await client.request("HEAD", path)
        assert response.status_code == 404
        assert response.content == b""
        assert response.headers["x-request-id"]


async def test_a_connection_survives_a_head(house: House, chat: ChatAt) -> None:
    """A HEAD whose answer carried a body by mistake would spoil what comes next on the connection."""
    async with connection(house) as raw:
        for _ in range(3):
            await raw.send(head("HEAD", f"/applications/{chat.token}"))
            assert (await raw.answer("HEAD")).status_code == 200
            await raw.send(head("GET", f"/applications/{chat.token}"))
            assert (await raw.answer("GET")).json()["token"] == chat.token


async def test_answers_announce_their_json(client: Client, chat: ChatAt) -> None:
    """Successful answers are application/json, and deletions carry no body."""
    await chat.post()
    for path in ("/applications", f"/applications/{chat.token}", chat.path, f"{chat.path}/messages"):
        response = await client.get(path)
        assert response.headers["content-type"].split(";")[0] == "application/json"
    deleted = await chat.request("DELETE", "/messages/1")
    assert deleted.status_code == 204
    assert deleted.content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/applications/",
        "/applications/{token}/",
        "/applications/{token}/chats/",
        "/applications/{token}/chats/1/",
        "/applications/{token}/chats/1/messages/",
        "/applications/{token}/chats/1/messages/1/",
        "/applications/{token}/chats/1/messages/search/?q=x",
        "/applications/{token}/messages/search/?q=x",
        "/applications/{token}/chats/1/events/",
        "/chats/{token}/",
        "/chats/1/messages/?token={token}",
        "/health/live/",
        "/metrics/",
        "/openapi.json/",
    ],
)
async def test_a_trailing_slash_is_404(client: Client, chat: ChatAt, path: str) -> None:
    """No redirect, no guess, for reading and for writing."""
    await chat.post()
    for method in ("GET", "POST"):
        expect_not_found(await client.request(method, path.format(token=chat.token), json={"name": "x", "body": "x"}))
    assert len(await chat.messages()) == 1


NO_NUMBERS = [
    "0",
    "-1",
    "+1",
    "1.0",
    "1e0",
    "abc",
    "0x1",
    "%201",
    "1%20",
    "%EF%BC%91",
    "%00",
    "1_0",
    "",
    "null",
]
NO_NUMBERS += ["9" * 30, str(2**31), str(2**63), "%D9%A1"]


@pytest.mark.parametrize("number", NO_NUMBERS)
async def test_a_path_number_that_is_no_known_positive_integer_is_404(house: House, chat: ChatAt, number: str) -> None:
    """Only decimal digits count, and no size of number is a defect."""
    await chat.post()
    application = f"/applications/{chat.token}"
    for method, target in [
        ("GET", f"{application}/chats/{number}"),
        ("PATCH", f"{application}/chats/{number}"),
        ("GET", f"{application}/chats/{number}/messages"),
        ("POST", f"{application}/chats/{number}/messages"),
        ("GET", f"{application}/chats/{number}/events"),
        ("GET", f"{chat.path}/messages/{number}"),
        ("PATCH", f"{chat.path}/messages/{number}"),
        ("DELETE", f"{chat.path}/messages/{number}"),
        ("POST", f"/chats/{number}/messages?token={chat.token}"),
    ]:
        body = b'{"body": "x"}' if method == "POST" else b"{}" if method == "PATCH" else b""
        expect_not_found(await exchange(house, method, target, body))


ACCEPTED_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "APPLICATION/JSON",
    " application/json ",
]
REFUSED_TYPES = [
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "application/xml",
    "application/octet-stream",
    "json",
    "*/*",
]


def writing_requests(token: str) -> list[tuple[str, str, bytes]]:
    """Every kind of request that carries a body."""
    chat = f"/applications/{token}/chats/1"
    return [
        ("POST", "/applications", b'{"name": "x"}'),
        ("PUT", f"/applications/{token}", b'{"name": "x"}'),
        ("PATCH", f"/applications/{token}", b'{"name": "x"}'),
        ("POST", f"/applications/{token}/chats", b'{"title": "x"}'),
        ("POST", f"/chats/{token}", b'{"title": "x"}'),
        ("PATCH", chat, b'{"title": "x"}'),
        ("POST", f"{chat}/messages", b'{"body": "x"}'),
        ("POST", f"/chats/1/messages?token={token}", b'{"body": "x"}'),
        ("POST", f"{chat}/messages/batch", b'{"messages": [{"body": "x"}]}'),
        ("PATCH", f"{chat}/messages/1", b'{"body": "y"}'),
    ]


@pytest.mark.parametrize("content_type", [None, *ACCEPTED_TYPES])
async def test_json_and_a_missing_content_type_are_accepted(
    house: House, chat: ChatAt, content_type: str | None
) -> None:
    """A missing Content-Type is taken as JSON; its parameters and its case do not matter."""
    await chat.post()
    headers = {} if content_type is None else {"Content_Type": content_type}
    for method, target, body in writing_requests(chat.token):
        assert (await exchange(house, method, target, body, **headers)).status_code in (200, 201)


@pytest.mark.parametrize("content_type", REFUSED_TYPES)
async def test_any_other_content_type_is_415(house: House, chat: ChatAt, content_type: str) -> None:
    """Even when the body would be JSON."""
    await chat.post()
    for method, target, body in writing_requests(chat.token):
        response = await exchange(house, method, target, body, Content_Type=content_type)
        expect_problem(response, 415, "unsupported_media_type")
    assert len(await chat.messages()) == 1


MALFORMED: dict[str, bytes] = {
    "cut off": b'{"body": "x"',
    "no value": b'{"body": }',
    "trailing comma": b'{"body": "x",}',
    "something behind": b'{"body": "x"} x',
    "two documents": b'{"body": "x"}{"body": "y"}',
    "single quotes": b"{'body': 'x'}",
    "comment": b'{"body": "x" /* c */}',
    "bare word": b"{body: 1}",
    "python constants": b'{"body": None}',
    "nul behind": b'{"body": "x"}\x00',
    "raw control character": b'{"body": "a\nb"}',
    "raw nul": b'{"body": "a\x00b"}',
    "bad escape": rb'{"body": "\x41"}',
    "cut escape": rb'{"body": "\u12"}',
    "leading zero": b'{"body": "x", "metadata": {"n": 01}}',
    "plus sign": b'{"body": "x", "metadata": {"n": +1}}',
    "bare point": b'{"body": "x", "metadata": {"n": .5}}',
    "point without digits": b'{"body": "x", "metadata": {"n": 1.}}',
    "NaN": b'{"body": "x", "metadata": {"n": NaN}}',
    "Infinity": b'{"body": "x", "metadata": {"n": Infinity}}',
    "minus Infinity": b'{"body": "x", "metadata": {"n": -Infinity}}',
    "float out of range": b'{"body": "x", "metadata": {"n": 1e999}}',
    "negative float out of range": b'{"body": "x", "metadata": {"n": [-1e999]}}',
    "integer out of range": b'{"body": "x", "metadata": {"n": ' + b"9" * 400 + b"}}",
    "duplicate key": b'{"body": "x", "body": "y"}',
    "duplicate key, same value": b'{"body": "x", "body": "x"}',
    "duplicate key by escape": rb'{"body": "x", "b\u006fdy": "y"}',
    "duplicate key in metadata": b'{"body": "x", "metadata": {"a": 1, "a": 2}}',
    "duplicate key deep in metadata": b'{"body": "x", "metadata": {"l": [1, {"b": {"c": 1, "c": 2}}]}}',
    "byte-order mark": b'\xef\xbb\xbf{"body": "x"}',
    "UTF-16": '{"body": "x"}'.encode("utf-16"),
    "UTF-16 without mark": '{"body": "x"}'.encode("utf-16-le"),
    "latin-1": '{"body": "é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"body": "\xc0\xaf"}',
    "UTF-8 of a surrogate": b'{"body": "\xed\xa0\x80"}',
    "UTF-8 beyond Unicode": b'{"body": "\xf4\x90\x80\x80"}',
    "cut UTF-8": b'{"body": "\xe4\xba"}',
    "invalid UTF-8 in a key": b'{"body": "x", "metadata": {"\xff": 1}}',
    "deep brackets": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep metadata": b'{"body": "x", "metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "empty": b"",
    "white space": b" \n ",
    "null": b"null",
    "array": b'[{"body": "x"}]',
    "text": b'"body"',
    "number": b"1",
    "true": b"true",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_acceptable_json_is_400(chat: ChatAt, content: bytes) -> None:
    """Nothing is guessed, mended or stored, and nothing brings the server down."""
    headers = {"Content-Type": "application/json"}
    expect_invalid(await chat.request("POST", "/messages", content=content, headers=headers))
    item = b'{"messages": [{"body": "good"}, ' + content + b"]}"
    if content.strip():
        expect_invalid(await chat.request("POST", "/messages/batch", content=item, headers=headers))
    assert await chat.messages() == []
    assert (await chat.post())["number"] == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"title": "a", "title": "b"}', b"\xef\xbb\xbf{}", b"null", b"nope"])
async def test_the_optional_body_of_a_chat_is_judged_when_it_is_there(
    client: Client, application: Application, content: bytes
) -> None:
    """An empty body is fine; a wrong one is not taken for an empty one."""
    for path in (f"/applications/{application['token']}/chats", f"/chats/{application['token']}"):
        expect_invalid(await client.post(path, content=content))
    assert await client.list_chats(application["token"]) == []


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "a", "name": "b"}', b"null"])
async def test_a_rename_judges_its_body(client: Client, application: Application, method: str, content: bytes) -> None:
    """The same rules hold for every body."""
    path = f"/applications/{application['token']}"
    expect_invalid(await client.request(method, path, content=content))
    assert await client.read_application(application["token"]) == application


REFUSED_CHARACTERS = {
    "NUL": rb"\u0000",
    "NUL inside": rb"a\u0000b",
    "high surrogate": rb"\ud83d",
    "low surrogate": rb"\ude00",
    "surrogates the wrong way round": rb"\ude00\ud83d",
    "high surrogate before text": rb"\ud83dx",
    "high surrogate before another escape": rb"\ud83d\u0041",
    "two high surrogates": rb"\ud83d\ud83d",
}


@pytest.mark.parametrize("text", REFUSED_CHARACTERS.values(), ids=REFUSED_CHARACTERS)
async def test_nul_and_lone_surrogates_are_400_in_every_text(client: Client, chat: ChatAt, text: bytes) -> None:
    """Names, titles, senders, bodies, and keys and values of metadata at any depth."""
    await chat.post()
    before = await chat.message(1)
    application, quoted = f"/applications/{chat.token}", b'"' + text + b'"'
    metadata = [b'{"k": %b}' % quoted, b"{%b: 1}" % quoted, b'{"k": [{"k": [%b]}]}' % quoted]
    bodies = [b'{"body": %b}' % quoted, b'{"body": "x", "sender": %b}' % quoted]
    bodies += [b'{"body": "x", "metadata": %b}' % each for each in metadata]
    requests = [("POST", "/applications", b'{"name": %b}' % quoted)]
    requests += [(method, application, b'{"name": %b}' % quoted) for method in ("PUT", "PATCH")]
    for fields in [b'{"title": %b}' % quoted, *(b'{"metadata": %b}' % each for each in metadata)]:
        requests += [("POST", f"{application}/chats", fields), ("POST", f"/chats/{chat.token}", fields)]
        requests += [("PATCH", chat.path, fields)]
    requests += [("POST", f"{chat.path}/messages", body) for body in bodies]
    requests += [("POST", f"{chat.path}/messages/batch", b'{"messages": [%b]}' % body) for body in bodies]
    requests += [("PATCH", f"{chat.path}/messages/1", b'{"body": %b}' % quoted)]
    requests += [("PATCH", f"{chat.path}/messages/1", b'{"metadata": %b}' % each) for each in metadata]
    for method, path, content in requests:
        expect_invalid(await client.request(method, path, content=content))
    assert await chat.messages() == [before]
    assert len(await client.list_chats(chat.token)) == 1


async def test_a_pair_of_surrogates_is_its_character(chat: ChatAt) -> None:
    """An escaped pair means one character beyond 16 bits, in texts and in metadata."""
    content = rb'{"body": "\ud83d\ude00", "sender": "\uD83D\uDE00", "metadata": {"\ud83d\ude00": "\ud83d\ude00"}}'
    message = expect(await chat.request("POST", "/messages", content=content), 201).json()
    assert (message["body"], message["sender"], message["metadata"]) == ("😀", "😀", {"😀": "😀"})


async def test_an_escaped_backslash_before_u0000_is_text(chat: ChatAt) -> None:
    r"""The six characters \u0000, written with an escaped backslash, contain no NUL and stay."""
    content = rb'{"body": "\\u0000 \\ud800", "metadata": {"\\u0000": "\\udfff"}}'
    message = expect(await chat.request("POST", "/messages", content=content), 201).json()
    assert (message["body"], message["metadata"]) == ("\\u0000 \\ud800", {"\\u0000": "\\udfff"})
    assert await chat.message(1) == message


@pytest.mark.parametrize("depth", [2, 50, 500, 680])
async def test_nested_metadata_within_its_limit_is_kept_or_refused_but_no_defect(chat: ChatAt, depth: int) -> None:
    """4 KiB allow a deep nesting: what is accepted comes back whole."""
    content = b'{"body": "x", "metadata": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    response = await chat.request("POST", "/messages", content=content)
    if depth <= 50:
        expect(response, 201)
    if response.status_code == 201:
        assert response.json()["metadata"] == json.loads(content)["metadata"]
        assert await chat.message(1) == response.json()
    else:
        expect_invalid(response)


async def test_numbers_in_metadata_keep_their_value(chat: ChatAt) -> None:
    """Integers to the last digit, fractions as the nearest double."""
    content = b'{"body":"x","metadata":{"i":9007199254740993,"f":0.1,"e":1e300,"m":-0.5,"z":0}}'
    message = expect(await chat.request("POST", "/messages", content=content), 201).json()
    assert message["metadata"] == {"i": 9007199254740993, "f": 0.1, "e": 1e300, "m": -0.5, "z": 0}
    assert await chat.message(1) == message


async def test_a_body_sent_in_pieces_is_one_body(house: House, chat: ChatAt) -> None:
    """Wherever the network cuts, in the middle of a character too."""
    content = json.dumps({"body": "京😀"}, ensure_ascii=False).encode()
    async with connection(house) as raw:
        target = f"{chat.path}/messages"
        await raw.send(head("POST", target, Content_Length=len(content)))
        for index in range(len(content)):
            await raw.send(content[index : index + 1])
        assert (await raw.answer()).json()["body"] == "京😀"
        await raw.send(head("POST", target, Transfer_Encoding="chunked"))
        for index in range(len(content)):
            await raw.send(chunk(content[index : index + 1]))
        await raw.send(chunk(b""))
        assert (await raw.answer()).json()["body"] == "京😀"


async def test_a_client_that_waits_to_be_told_to_continue_is_told(house: House, chat: ChatAt) -> None:
    """`Expect: 100-continue`: the body is asked for or refused before it was sent."""
    body, target = b'{"body": "x"}', f"{chat.path}/messages"
    async with connection(house) as raw:
        await raw.send(head("POST", target, Content_Length=len(body), Expect="100-continue"))
        assert (await raw.answer()).status_code == 100
        await raw.send(body)
        assert (await raw.answer()).status_code == 201
    async with connection(house) as raw:
        await raw.send(head("POST", target, Content_Length=2 * 1024 * 1024, Expect="100-continue"))
        expect_problem(await raw.answer(), 413, "too_large")


async def test_requests_in_a_pipeline_are_answered_in_order(house: House, chat: ChatAt) -> None:
    """Several requests sent at once on one connection: as many answers, in the same order."""
    body = b'{"body": "x"}'
    request = head("POST", f"{chat.path}/messages", Content_Length=len(body)) + body
    async with connection(house) as raw:
        await raw.send(request * 5 + head("GET", f"{chat.path}/messages"))
        assert [(await raw.answer()).json()["number"] for _ in range(5)] == [1, 2, 3, 4, 5]
        assert len((await raw.answer("GET")).json()) == 5


async def test_http_1_0_is_answered(house: House, chat: ChatAt) -> None:
    """Old clients and simple probes get their answer, and the end of the connection."""
    posted = await chat.post()
    async with connection(house) as raw:
        await raw.send(f"GET {chat.path}/messages/1 HTTP/1.0\r\n\r\n".encode())
        assert (await raw.answer("GET")).json() == posted
        assert await raw.reader.read() == b""


async def test_a_connection_goes_on_after_a_refusal(house: House, chat: ChatAt) -> None:
    """A refused body is read to its end, so that the next request on the connection is understood."""
    async with connection(house) as raw:
        for body, status in [(b"{", 400), (b'{"body": "x"}', 201), (b"[]", 400), (b'{"body": "y"}', 201)]:
            await raw.send(head("POST", f"{chat.path}/messages", Content_Length=len(body)) + body)
            assert (await raw.answer()).status_code == status
        missing = f"/applications/{UNKNOWN_TOKEN}/chats/1/messages"
        await raw.send(head("POST", missing, Content_Length=50_000) + b"x" * 50_000)
        expect_not_found(await raw.answer())
        await raw.send(head("GET", f"{chat.path}/messages"))
        assert len((await raw.answer("GET")).json()) == 2


async def test_a_body_where_none_is_expected_does_no_harm(house: House, chat: ChatAt) -> None:
    """GET and DELETE ignore a body, and the connection goes on."""
    await chat.post()
    async with connection(house) as raw:
        for method, status in [("GET", 200), ("DELETE", 204), ("GET", 200)]:
            await raw.send(head(method, f"{chat.path}/messages/1", Content_Length=5) + b"hello")
            assert (await raw.answer(method)).status_code == status


async def test_an_idempotency_key_where_nothing_is_created_is_ignored(client: Client, chat: ChatAt) -> None:
    """The header belongs to POSTs that create; elsewhere it has no meaning and no effect."""
    await chat.post()
    headers = {"Idempotency-Key": "k"}
    options: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", "/messages/1", {"json": {"body": "one"}}),
        ("PATCH", "/messages/1", {"json": {"body": "two"}}),
        ("GET", "/messages", {}),
        ("DELETE", "/messages/1", {}),
        ("DELETE", "/messages/1", {}),
    ]
    for method, below, more in options:
        response = await chat.request(method, below, headers=headers, **more)
        assert response.status_code in (200, 204)
        assert "idempotency-replayed" not in response.headers


async def test_a_flood_of_headers_is_refused_before_its_end(house: House, client: Client) -> None:
    """Headers are kept until they are complete, so they have a cap; others are served meanwhile."""
    async with connection(house) as raw:
        # Just over the cap, and not a byte more: what is sent after the answer would reset the connection.
        flood = b"".join(b"X-Flood-%d: %s\r\n" % (number, b"x" * 1000) for number in range(66))
        await raw.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + flood)
        response = await raw.answer("GET")
        assert response.status_code == 400
        assert response.headers["connection"] == "close"
    assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize("length", [257, 8_000, 50_000])
async def test_a_path_that_is_longer_than_any_is_not_found(client: Client, length: int) -> None:
    """It is not even remembered as unknown."""
    expect_not_found(await client.get("/applications/" + "x" * (length - len("/applications/"))))
