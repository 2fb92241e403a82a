"""Requests as the server hands them to the web layer, made without a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from chat_system.web.request import Request


def make_request(
    path: str = "/",
    query: str = "",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: Iterable[bytes] = (b"",),
    gone_after_body: bool = False,
) -> Request:
    """A request whose body arrives in the given pieces; the client may leave before its end."""
    pieces = list(body)
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": gone_after_body or index + 1 < len(pieces)}
        for index, piece in enumerate(pieces)
    ]
    if gone_after_body:
        messages.append({"type": "http.disconnect"})

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), text.encode("latin-1")) for name, text in (headers or {}).items()],
    }
    return Request(scope, receive)
