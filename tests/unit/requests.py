"""Requests as a connection hands them to the web layer, made without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast
from urllib.parse import quote

from chat_system.web.connection import Connection
from chat_system.web.request import Body, Request


def make_request(
    path: str = "/",
    query: str = "",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: Iterable[bytes] = (b"",),
    gone_after_body: bool = False,
) -> Request:
    """A request whose body arrives in the given pieces, the first at once, the others when they are waited for.

    The client may leave before its end.
    """
    pieces = list(body)

    def come() -> None:
        if pieces:
            incoming.feed(pieces.pop(0))
        if not pieces:
            (incoming.leave if gone_after_body else incoming.finish)()

    incoming = Body(come)
    come()
    return Request(
        cast(Connection, None),
        method,
        path,
        quote(path).encode(),
        query.encode(),
        {name.lower().encode(): text.encode("latin-1") for name, text in (headers or {}).items()},
        incoming,
    )
