"""Limit: an ASGI app that reads the body and answers fixed bytes, on the server software that we use.

What it reaches is what HTTP costs on this machine, before a server does anything. The same process serves
as the limit of every HTTP scenario: PUT replaces the fixed answer, so a page of messages can be compared
with an app that already has the page's bytes.

    python -m bench.bare PORT
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


SERVER_OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "http": "httptools",
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "backlog": 2048,
    "timeout_keep_alive": 75,
}
"""As our server sets them: a limit with other options would be the limit of something else."""


class FixedAnswer(msgspec.Struct, frozen=True):
    """A status, headers and body to answer with; Content-Length is added."""

    status: int = 201
    headers: list[tuple[str, str]] = []
    body: bytes = b'{"number": 1}'


NOTHING = FixedAnswer(headers=[("content-type", "application/json")])


class Bare:
    """The app. Its answer is built once, when it is set."""

    def __init__(self) -> None:
        self.start: MutableMapping[str, Any] = {}
        self.end: MutableMapping[str, Any] = {}
        self.set(NOTHING)

    def set(self, answer: FixedAnswer) -> None:
        """Answer every request but PUT with this from now on."""
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode("ascii")))
        self.start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        self.end = {"type": "http.response.body", "body": answer.body}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        if scope["method"] == "PUT":
            self.set(msgspec.json.decode(body, type=FixedAnswer))
        await send(self.start)
        await send(self.end)


if __name__ == "__main__":
    uvicorn.run(Bare(), host="127.0.0.1", port=int(sys.argv[1]), **SERVER_OPTIONS)
