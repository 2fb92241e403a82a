"""uvicorn's HTTP/1.1, with three changes of ours.

An answer leaves with one system call, where uvicorn makes two: measured, that is a quarter of what a small answer
costs. Event streams write to their connection themselves (see `live.py`). And what is hardly HTTP is answered by a
problem document like every other error.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chat_system.web.request import Header

if TYPE_CHECKING:
    from chat_system.web.app import App

REQUEST_LINE = re.compile(rb"\s*([!#-'*+.^_`|~0-9A-Za-z-]{1,64}) (/\S{0,8192}) HTTP/1\.[01]\r?\n")
REASONS = {400: b"Bad Request", 404: b"Not Found", 405: b"Method Not Allowed"}


class OneWrite:
    """A transport that gathers what is written until the answer is complete, or until the loop turns.

    A stream's pieces are never held back longer than that. Everything else is the connection's own transport.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send soon, in order."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def flush(self) -> None:
        """Send now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._transport.write(b"".join(waiting))

    def close(self) -> None:
        """Send and close."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        self._waiting = []
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """One connection. Its `scope` carries the connection itself, for event streams."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._direct = transport
        self._one_write = OneWrite(transport, self.loop)
        self._received = b""
        super().connection_made(self._one_write)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._received = data
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["chat_system.connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_response_complete(self) -> None:
        self._one_write.flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses: a method that HTTP does not know, or no HTTP at all."""
        app: App = self.app
        line = REQUEST_LINE.match(self._received)
        response, request_id = app.refuse_malformed(line[1].decode() if line else "", line[2].decode("latin-1") if line else "")
        headers: list[Header] = [
            (b"x-request-id", request_id.encode()),
            *response.headers,
            (b"content-type", response.content_type),
            (b"content-length", b"%d" % len(response.body)),
            (b"connection", b"close"),
        ]
        status = b"%d %s" % (response.status, REASONS[response.status])
        self._one_write.write(self._head(status, headers) + response.body)
        self._one_write.close()

    # For event streams

    def begin_stream(self, headers: list[Header]) -> None:
        """Send the head of a stream of unknown length."""
        framing = (b"transfer-encoding", b"chunked") if self._is_chunked() else (b"connection", b"close")
        self._direct.write(self._head(b"200 OK", [*headers, framing]))

    def write_stream(self, frames: bytes, chunk: bytes) -> None:
        """Send a piece of it, given plain and as an HTTP chunk."""
        if not self._direct.is_closing():
            self._direct.write(chunk if self._is_chunked() else frames)

    def end_stream(self) -> None:
        """Finish it: the client knows that it is complete."""
        if not self._direct.is_closing():
            if self._is_chunked():
                self._direct.write(b"0\r\n\r\n")
            self._direct.close()

    def cut_stream(self) -> None:
        """Drop the connection and what waits for it."""
        self._direct.abort()

    def waiting_bytes(self) -> int:
        """How much of the stream the client has not taken yet, beside what the kernel holds."""
        return self._direct.get_write_buffer_size()

    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._direct.is_closing()

    async def drain(self) -> None:
        """Wait until the client has taken enough for more."""
        if self.flow.write_paused and not self._direct.is_closing():
            await self.flow.drain()

    def _is_chunked(self) -> bool:
        return self.scope["http_version"] == "1.1"

    def _head(self, status: bytes, headers: list[Header]) -> bytes:
        lines = [b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        return b"HTTP/1.1 %s\r\n%s\r\n" % (status, b"".join(lines))
