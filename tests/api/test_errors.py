"""Refusals: one shape, stable codes, request ids (API.md, "Errors")."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.problems import expect_invalid, expect_not_found, expect_problem
from tests.api.shapes import UNKNOWN_TOKEN
from tests.client import ChatAt, Client, expect
from tests.conftest import Connect, running_house
from tests.eventually import eventually
from tests.houses import House
from tests.raw_http import connection, head

UNKNOWN_PATHS = [
    "/nothing",
    "/applications/{token}/nothing",
    "/applications/{token}/chats/1/nothing",
    "/applications/{token}/chats/1/messages/1/nothing",
    "/applications/{token}/messages",
    "/applications/{token}/messages/1",
    "/chats",
    "/health",
    "/swagger/..%2f..%2fpyproject.toml",
    "//applications",
    "/Applications",
    "/api/v1/applications",
]
PUBLIC_PATHS = {
    "/health/live": 200,
    "/health/ready": 200,
    "/metrics": 200,
    "/openapi.json": 200,
    "/swagger/doc.json": 200,
    "/swagger/index.html": 200,
    "/console": 308,
    "/console/": 200,
    "/console/folding.json": 200,
    "/": 200,
}


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
async def test_an_unknown_path_is_a_404_problem(client: Client, chat: ChatAt, path: str) -> None:
    """Whatever the method, what is not in the contract is not found."""
    for method in ("GET", "POST", "DELETE"):
        expect_not_found(await client.http.request(method, client.url + path.format(token=chat.token)))


METHODS: dict[str, tuple[str, set[str]]] = {
    "applications": ("/applications", {"GET", "HEAD", "POST"}),
    "application": ("/applications/{token}", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
    "chats": ("/applications/{token}/chats", {"GET", "HEAD", "POST"}),
    "chat": ("/applications/{token}/chats/1", {"GET", "HEAD", "PATCH"}),
    "messages": ("/applications/{token}/chats/1/messages", {"GET", "HEAD", "POST"}),
    "batch": ("/applications/{token}/chats/1/messages/batch", {"POST"}),
    "message": ("/applications/{token}/chats/1/messages/1", {"GET", "HEAD", "PATCH", "DELETE"}),
    "search a chat": ("/applications/{token}/chats/1/messages/search", {"GET", "HEAD"}),
    "search an application": ("/applications/{token}/messages/search", {"GET", "HEAD"}),
    "events": ("/applications/{token}/chats/1/events", {"GET", "HEAD"}),
    "live": ("/health/live", {"GET", "HEAD"}),
    "ready": ("/health/ready", {"GET", "HEAD"}),
    "metrics": ("/metrics", {"GET", "HEAD"}),
    "openapi": ("/openapi.json", {"GET", "HEAD"}),
    "swagger document": ("/swagger/doc.json", {"GET", "HEAD"}),
    "swagger": ("/swagger/index.html", {"GET", "HEAD"}),
    "alias to create a chat": ("/chats/{token}", {"POST"}),
    "alias to post": ("/chats/1/messages", {"POST"}),
    "alias to search": ("/chats/1/messages/search", {"GET", "HEAD"}),
}


@pytest.mark.parametrize(("path", "allowed"), METHODS.values(), ids=METHODS)
async def test_a_method_that_a_path_does_not_have_is_405_with_allow(
    client: Client, chat: ChatAt, path: str, allowed: set[str]
) -> None:
    """`Allow` lists exactly the methods that work, HEAD where GET does."""
    target = path.format(token=chat.token)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
        response = await client.request(method, target)
        expect_problem(response, 405, "method_not_allowed")
        named = {each.strip() for each in response.headers["allow"].split(",")}
        assert named - {"OPTIONS"} == allowed


async def test_a_file_that_swagger_ui_does_not_have_is_404(client: Client) -> None:
    """Nothing but the page's own files is served there."""
    for name in ("nothing.js", "index.htm", "package.json", "..%2f..%2fpyproject.toml", "%2e%2e"):
        expect_not_found(await client.get(f"/swagger/{name}"))


NOT_HTTP: dict[str, tuple[bytes, int, str]] = {
    "a method that HTTP does not know": (head("BREW", "/applications"), 405, "method_not_allowed"),
    "no request line": (b"hello\r\n\r\n", 400, "invalid"),
    "a length that is no number": (head("POST", "/applications", Content_Length="many"), 400, "invalid"),
    "a control character in a header": (head("GET", "/applications", X_Odd="a\x7fb\x01"), 400, "invalid"),
    "two framings": (
        head("POST", "/applications", Content_Length=1, Transfer_Encoding="chunked"),
        400,
        "invalid",
    ),
}


@pytest.mark.parametrize(("sent", "status", "code"), NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_hardly_http_is_answered_by_a_problem(house: House, sent: bytes, status: int, code: str) -> None:
    """Always application/problem+json: for unknown methods, and for what never becomes a request."""
    async with connection(house) as raw:
        await raw.send(sent)
        expect_problem(await raw.answer("GET"), status, code)


async def test_problems_of_every_code_have_one_shape(client: Client, chat: ChatAt) -> None:
    """The members are the same for all, and `title` and `type` depend on the code alone."""
    await chat.post()
    await chat.delete(1)
    once = {"Idempotency-Key": "k"}
    await chat.request("POST", "/messages", json={"body": "x"}, headers=once)
    messages = f"{chat.path}/messages"
    text = {"Content-Type": "text/plain"}
    requests: list[tuple[int, str, str, str, dict[str, Any]]] = [
        (400, "invalid", "POST", messages, {"json": {"body": ""}}),
        (400, "invalid", "GET", messages, {"params": {"limit": "0"}}),
        (404, "not_found", "GET", f"{messages}/9", {}),
        (404, "not_found", "GET", "/nothing", {}),
        (405, "method_not_allowed", "PUT", messages, {}),
        (409, "conflict", "PATCH", f"{messages}/1", {"json": {"body": "x"}}),
        (413, "too_large", "POST", messages, {"content": b" " * (1024 * 1024 + 1)}),
        (415, "unsupported_media_type", "POST", messages, {"content": b"x", "headers": text}),
        (422, "idempotency_mismatch", "POST", messages, {"json": {"body": "y"}, "headers": once}),
    ]
    seen: dict[str, tuple[str, str]] = {}
    for status, code, method, path, options in requests:
        problem = expect_problem(await client.request(method, path, **options), status, code)
        assert seen.setdefault(code, (problem["type"], problem["title"])) == (
            problem["type"],
            problem["title"],
        )
    assert len(set(seen.values())) == len(seen)


async def test_the_pointer_blames_the_field(client: Client, chat: ChatAt) -> None:
    """A JSON pointer (RFC 6901) for a body's field, `?name` for a query parameter."""
    payload = {"messages": [{"body": "x"}, {"body": "x", "metadata": "not an object"}]}
    expect_invalid(await chat.request("POST", "/messages/batch", json=payload), "/messages/1/metadata")
    expect_invalid(await chat.request("GET", "/messages", params={"limit": "0"}), "?limit")
    expect_invalid(await chat.request("POST", "/messages", json={"body": "x", "a/b~c": 1}), "/a~1b~0c")


async def test_malformed_json_blames_no_field(chat: ChatAt) -> None:
    """`errors` is there and may be empty."""
    assert "errors" in expect_invalid(await chat.request("POST", "/messages", content=b"{"))


async def test_an_error_never_shows_the_insides(client: Client, chat: ChatAt) -> None:
    """No traceback, no path of a source file, no SQL in what a caller gets."""
    strange = ["/applications/%00", "/applications/" + "x" * 5000, f"{chat.path}/messages?after={10**40}"]
    strange += [
        f"/applications/{UNKNOWN_TOKEN}/chats/{10**40}",
        f"{chat.path}/messages/search?q=%22)%20OR%201=1--",
    ]
    for path in strange:
        response = await client.get(path)
        assert response.status_code < 500
        assert not re.search(r"Traceback|\.py|SELECT|sqlite|site-packages", response.text)


@pytest.mark.parametrize("given", ["a", "abc-123", "x" * 128, "with space", "~!@#$%^&*()", '"quoted"'])
async def test_a_printable_request_id_is_returned(client: Client, given: str) -> None:
    """1 to 128 printable ASCII characters are taken over, on success and on refusal."""
    for path in ("/health/live", "/nothing", "/applications?limit=0"):
        response = await client.get(path, headers={"X-Request-ID": given})
        assert response.headers["x-request-id"] == given
        if response.status_code >= 400:
            assert response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "é", "a\tb"])
async def test_any_other_request_id_is_replaced(client: Client, given: str) -> None:
    """Too long, empty or not printable: a new one is made."""
    response = await client.get("/health/live", headers=[(b"X-Request-ID", given.encode())])
    made = expect(response, 200).headers["x-request-id"]
    assert made != given
    assert re.fullmatch(r"[!-~]{8,128}", made)


async def test_every_answer_carries_a_request_id_of_its_own(client: Client, chat: ChatAt) -> None:
    """Without one in the request a new one is made, on every kind of answer."""
    made = []
    for method, path in [
        ("GET", "/applications"),
        ("POST", "/applications"),
        ("GET", chat.path),
        ("HEAD", chat.path),
        ("DELETE", f"{chat.path}/messages/9"),
        ("GET", "/nothing"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/swagger/index.html"),
    ]:
        made.append((await client.request(method, path)).headers["x-request-id"])
    message = await chat.post()
    made.append((await chat.request("DELETE", f"/messages/{message['number']}")).headers["x-request-id"])
    async with chat.follow() as stream:
        made.append(stream.response.headers["x-request-id"])
    assert len(set(made)) == len(made)


@pytest.fixture(scope="module")
def crowded(house_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that answers two requests at a time."""
    with running_house(house_name, tmp_path_factory.mktemp("crowded"), {"max_in_flight": 2}) as own:
        yield own


async def test_over_the_in_flight_limit_is_503_with_retry_after(crowded: House, connect: Connect) -> None:
    """What cannot be taken is refused at once, never lost: each 201 is stored, each 503 is not."""
    client = connect(crowded)
    chat = await client.create_chat((await client.create_application())["token"])
    answers = await asyncio.gather(
        *(chat.request("POST", "/messages", json={"body": f"message {index}"}) for index in range(120))
    )
    refused = [answer for answer in answers if answer.status_code != 201]
    assert refused, "120 requests at once stayed below a limit of 2"
    for answer in refused:
        expect_problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    accepted = [answer.json() for answer in answers if answer.status_code == 201]
    assert accepted
    listed = await chat.messages(limit=200)
    assert listed == sorted(accepted, key=lambda message: message["number"])
    assert [message["number"] for message in listed] == list(range(1, len(accepted) + 1))


async def test_a_refused_connection_is_answered_again_after_the_second_it_was_told(
    crowded: House, connect: Connect
) -> None:
    """Asking again at once gains nothing and loses nothing; others are answered meanwhile."""
    client = connect(crowded)
    chat = await client.create_chat((await client.create_application())["token"])
    host, port = str(client.http.base_url.host), client.http.base_url.port
    post = f"POST {chat.path}/messages HTTP/1.1\r\nhost: {host}\r\ncontent-length: 12\r\n\r\n".encode()
    many = post + b'{"body":"x"}'
    lines = [await asyncio.open_connection(host, port) for _ in range(60)]
    try:
        for _, writer in lines:
            writer.write(many)
        first = [(await reader.readuntil(b"}"))[9:12] for reader, _ in lines]
        again = [line for line, status in zip(lines, first, strict=True) if status == b"503"]
        assert again, "60 requests at once stayed below a limit of 2"
        for reader, writer in again[:2]:
            writer.write(many)
            assert (await chat.post())["number"]
            assert (await asyncio.wait_for(reader.readuntil(b"}"), 10)).startswith(b"HTTP/1.1 201 ")
    finally:
        for _, writer in lines:
            writer.close()


async def test_a_full_server_still_answers_operators_and_readers(crowded: House, connect: Connect) -> None:
    """While two requests are under way, all else is 503, health and documents are as ever; then the two end well."""
    client = connect(crowded)
    chat = await client.create_chat((await client.create_application())["token"])
    body = b'{"body": "slow"}'
    request = head("POST", f"{chat.path}/messages", Content_Length=len(body))
    async with connection(crowded) as one, connection(crowded) as two:
        for slow in (one, two):
            await slow.send(request + body[:5])

        async def asked() -> int:
            return (await client.get(chat.path)).status_code

        await eventually(asked, 503)
        for path in ("/applications", f"/applications/{chat.token}", f"{chat.path}/events"):
            expect_problem(await client.get(path), 503, "unavailable")
        for path, status in PUBLIC_PATHS.items():
            for method in ("GET", "HEAD"):
                expect(await client.request(method, path), status)
        expect_not_found(await client.get("/nothing"))
        for number, slow in enumerate((one, two), 1):
            await slow.send(body[5:])
            answer = await slow.answer()
            assert (answer.status_code, answer.json()["number"]) == (201, number)
    await eventually(asked, 200)


async def test_open_streams_are_not_in_flight(crowded: House, connect: Connect) -> None:
    """Readers that wait for changes do not use up the in-flight limit."""
    client = connect(crowded)
    chat = await client.create_chat((await client.create_application())["token"])
    async with chat.follow() as one, chat.follow() as two, chat.follow() as three:
        posted = await chat.post()
        for stream in (one, two, three):
            assert (await stream.next_event()).message == posted
