"""Limit: every POST makes a server write the same bytes to all its readers' sockets, and nothing more.

The bytes are those of one event in a chunked answer, as long as the real server's, with a running id so
that the same client can read and check them. No HTTP library, no storage, no waking of streams: what it
reaches is what a thousand socket writes cost on this machine.

    python -m bench.raw_sockets PORT BYTES_OF_AN_EVENT
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CREATED = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"number": 1}'

_AFTER = re.compile(rb"[?&]after=(\d+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Broadcaster:
    """The readers' sockets, and the id of the last event."""

    def __init__(self, event_bytes: int) -> None:
        self.event_bytes = event_bytes
        self.readers: set[asyncio.Transport] = set()
        self.last_id = 0

    def write_event(self) -> None:
        """One event to all."""
        self.last_id += 1
        front = b"id: %d\nevent: message.created\ndata: " % self.last_id
        event = front.ljust(self.event_bytes - 2, b"x") + b"\n\n"
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        for reader in self.readers:
            reader.write(chunk)


class Connection(asyncio.Protocol):
    """GET with `after` makes it a reader, POST an event."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self.broadcaster = broadcaster
        self.partial = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """One reader less, if it was one."""
        if self.transport is not None:
            self.broadcaster.readers.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        """Answer a whole request."""
        assert self.transport is not None
        data = self.partial + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data)
        if end < 0 or len(data) < end + 4 + (int(length[1]) if length else 0):
            self.partial = data
            return
        self.partial = b""
        if data.startswith(b"POST"):
            self.broadcaster.write_event()
            self.transport.write(CREATED)
            return
        after = _AFTER.search(data, 0, end)
        if after is None:
            self.transport.write(READY)
            return
        self.broadcaster.last_id = int(after[1])
        self.broadcaster.readers.add(self.transport)
        self.transport.write(STREAM_HEAD)


async def serve(port: int, event_bytes: int) -> None:
    """Serve until the process is ended."""
    broadcaster = Broadcaster(event_bytes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(broadcaster), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
