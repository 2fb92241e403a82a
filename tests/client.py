"""A small typed client of the HTTP API, for tests only.

`Client` wraps one httpx.AsyncClient. `client.request` is the plain door: any method and path, any status.
The methods named after an operation insist on its success status and return the decoded resource, so that a
test states only what it is about. `ChatAt` is one chat with the same two kinds of method.

    application = await client.create_application()
    chat = await client.create_chat(application["token"], title="Orders")     # a ChatAt
    message = await chat.post("hello", sender="ada")                          # a Message
    refused = await chat.request("POST", "/messages", json={"body": ""})      # an httpx.Response

Not promised: retries, pooling limits, anything a real client library would add.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self, TypedDict, cast

import httpx

from tests.live_stream import LiveStream, open_stream

Fields = dict[str, Any]

REQUEST_TIMEOUT_S = 30.0

if find_spec("sniffio") is None:
    # httpcore tries to import it several times a request, and each failure searches the whole path. That took
    # a tenth of this suite's time; a None here makes the import fail at once.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

# httpx would make one for each client, though no test speaks TLS.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Application(TypedDict):
    """An application as the API returns it."""

    token: str
    name: str
    chats_count: int
    created_at: str
    updated_at: str


class Chat(TypedDict):
    """A chat as the API returns it."""

    number: int
    title: str | None
    metadata: Fields | None
    messages_count: int
    revision: int
    created_at: str
    updated_at: str


class Message(TypedDict):
    """A message as the API returns it."""

    number: int
    sender: str | None
    body: str | None
    metadata: Fields | None
    revision: int
    created_at: str
    updated_at: str
    deleted_at: str | None


def expect(response: httpx.Response, status: int) -> httpx.Response:
    """The response itself, once its status is the wanted one; else a failure that shows what came instead."""
    request = response.request
    assert response.status_code == status, (
        f"{request.method} {request.url}: wanted {status}, got {response.status_code}: {response.text[:2000]}"
    )
    return response


class Client:
    """Requests to one running house. Close it, or use it as an async context manager."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.http = httpx.AsyncClient(
            base_url=url,
            headers=dict(headers or {}),
            timeout=REQUEST_TIMEOUT_S,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=64),
            trust_env=False,
            verify=_NO_TLS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request; `options` are httpx's (json, content, params, headers). No status is insisted on."""
        return await self.http.request(method, path, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """GET, any status."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        """POST, any status."""
        return await self.request("POST", path, **options)

    async def get_json(self, path: str, **params: Any) -> Any:
        """GET that must be 200; the decoded body."""
        return expect(await self.get(path, params=params or None), 200).json()

    async def create_application(self, name: str = "An application") -> Application:
        """Create an application; must be 201."""
        response = expect(await self.post("/applications", json={"name": name}), 201)
        return cast(Application, response.json())

    async def read_application(self, token: str) -> Application:
        """Read an application; must be 200."""
        return cast(Application, await self.get_json(f"/applications/{token}"))

    async def erase_application(self, token: str) -> None:
        """Erase an application; must be 204."""
        expect(await self.request("DELETE", f"/applications/{token}"), 204)

    async def create_chat(self, token: str, **fields: Any) -> ChatAt:
        """Create a chat; must be 201."""
        response = expect(await self.post(f"/applications/{token}/chats", json=fields), 201)
        return ChatAt(self, token, response.json()["number"])

    async def list_chats(self, token: str, **params: Any) -> list[Chat]:
        """One page of chats; must be 200."""
        return cast(list[Chat], await self.get_json(f"/applications/{token}/chats", **params))

    async def search(self, token: str, q: str, **params: Any) -> list[Fields]:
        """One page of a search over the whole application; must be 200. Items carry `chat_number`."""
        path = f"/applications/{token}/messages/search"
        return cast(list[Fields], await self.get_json(path, q=q, **params))


@dataclass(frozen=True)
class ChatAt:
    """One chat of one application, seen through one client."""

    client: Client
    token: str
    number: int

    @property
    def path(self) -> str:
        """The chat's own path."""
        return f"/applications/{self.token}/chats/{self.number}"

    async def request(self, method: str, below: str = "", **options: Any) -> httpx.Response:
        """Any request at or below the chat's path (`below` starts with a slash), any status."""
        return await self.client.request(method, self.path + below, **options)

    async def read(self) -> Chat:
        """The chat; must be 200."""
        return cast(Chat, await self.client.get_json(self.path))

    async def post(self, body: str = "hello", **fields: Any) -> Message:
        """Post a message; must be 201."""
        response = await self.request("POST", "/messages", json={"body": body, **fields})
        return cast(Message, expect(response, 201).json())

    async def post_batch(self, *bodies: str) -> list[Message]:
        """Post several messages in one batch; must be 201."""
        batch = {"messages": [{"body": body} for body in bodies]}
        return cast(list[Message], expect(await self.request("POST", "/messages/batch", json=batch), 201).json())

    async def message(self, number: int) -> Message:
        """Read one message; must be 200."""
        return cast(Message, await self.client.get_json(f"{self.path}/messages/{number}"))

    async def edit(self, number: int, **fields: Any) -> Message:
        """Edit one message; must be 200."""
        return cast(Message, expect(await self.request("PATCH", f"/messages/{number}", json=fields), 200).json())

    async def delete(self, number: int) -> None:
        """Delete one message; must be 204."""
        expect(await self.request("DELETE", f"/messages/{number}"), 204)

    async def messages(self, **params: Any) -> list[Message]:
        """One page of messages; must be 200."""
        return cast(list[Message], await self.client.get_json(f"{self.path}/messages", **params))

    async def search(self, q: str, **params: Any) -> list[Message]:
        """One page of a search in this chat; must be 200."""
        return cast(list[Message], await self.client.get_json(f"{self.path}/messages/search", q=q, **params))

    @asynccontextmanager
    async def follow(self, *, after: int | None = None, last_event_id: int | None = None) -> AsyncIterator[LiveStream]:
        """The chat's live stream; open (200 received) when the block is entered."""
        params = {} if after is None else {"after": str(after)}
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        async with open_stream(self.client.http, f"{self.path}/events", params, headers) as stream:
            yield stream
