"""uvicorn's HTTP/1.1, of which we keep the parsing and write the answers ourselves.

uvicorn sends an answer with two system calls and looks at each header with two regular expressions; measured on small
answers, that is a third of their cost. An `Exchange` sends head and body at once. It also lets event streams write to
their connection (see `live.py`), and what is hardly HTTP is answered by a problem document like every other error.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from chat_system.web.request import EXCHANGE, Header

if TYPE_CHECKING:
    from chat_system.web.app import App

HEAD_MAX_BYTES = 64 * 1024
"""Request line and headers. A client that sends more is refused and cut off."""

REQUEST_LINE = re.compile(rb"\s*([!#-'*+.^_`|~0-9A-Za-z-]{1,64}) (/\S{0,8192}) HTTP/1\.[01]\r?\n")


class Exchange:
    """One request's end of its connection: how its answer is sent."""

    __slots__ = ("_cycle", "_protocol", "_transport")

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._transport: asyncio.Transport = protocol.transport

    async def answer(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send a complete answer, and let the connection's next request begin."""
        # A client that takes no answers gets no more of them made.
        if self._protocol.flow.write_paused:
            await self._protocol.flow.drain()
        cycle = self._cycle
        if cycle.disconnected:
            return
        if not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        self._transport.write(self._protocol.head(status, headers) + body)
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._transport.close()
        cycle.on_response()

    def begin_stream(self, headers: list[Header]) -> None:
        """Send the head of a stream of unknown length."""
        framing = (b"transfer-encoding", b"chunked") if self._is_chunked() else (b"connection", b"close")
        self._transport.write(self._protocol.head(200, [*headers, framing]))

    def write_stream(self, frames: bytes, chunk: bytes) -> None:
        """Send a piece of it, given plain and as an HTTP chunk."""
        if not self._transport.is_closing():
            self._transport.write(chunk if self._is_chunked() else frames)

    def end_stream(self) -> None:
        """Finish it: the client knows that it is complete."""
        if not self._transport.is_closing():
            if self._is_chunked():
                self._transport.write(b"0\r\n\r\n")
            self._transport.close()

    def cut_stream(self) -> None:
        """Drop the connection and what waits for it."""
        self._transport.abort()

    def waiting_bytes(self) -> int:
        """How much of the stream the client has not taken yet, beside what the kernel holds."""
        return self._transport.get_write_buffer_size()

    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._transport.is_closing()

    async def drain(self) -> None:
        """Wait until the client has taken enough for more."""
        if self._protocol.flow.write_paused and not self._transport.is_closing():
            await self._protocol.flow.drain()

    def _is_chunked(self) -> bool:
        return self._cycle.scope["http_version"] == "1.1"


class Protocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._received = b""
        self._in_head, self._head_bytes = True, 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._received = data
        super().data_received(data)
        # uvicorn keeps headers without end; the body has its own cap.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
                self.send_400_response("Too many headers.")

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        # The task that runs the application starts in the loop's next turn: it finds this.
        if self.cycle.scope is self.scope:
            self.scope[EXCHANGE] = Exchange(self, self.cycle)  # type: ignore[literal-required]

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses: a method that HTTP does not know, or no HTTP at all."""
        app: App = self.app
        line = REQUEST_LINE.match(self._received)
        method, path = (line[1].decode(), line[2].decode("latin-1")) if line else ("", "")
        status, headers, body = app.refuse_malformed(method, path)
        self.transport.write(self.head(status, [*headers, (b"connection", b"close")]) + body)
        self.transport.close()

    def head(self, status: int, headers: list[Header]) -> bytes:
        """Status line and headers, with those that every answer has."""
        lines = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        lines += [b"%s: %s\r\n" % header for header in headers]
        return b"%s%s\r\n" % (STATUS_LINE[status], b"".join(lines))
