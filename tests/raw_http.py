r"""HTTP/1.1 by hand: bytes that no good client would send, half-sent bodies, readers that do not read.

    async with connection(house) as raw:
        await raw.send(b"POST /applications HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        response = await raw.answer()                    # an httpx.Response, parsed by hand

Not promised: pipelining, trailers, anything above what the tests need.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.houses import House

ANSWER_TIMEOUT_S = 15.0


class RawConnection:
    """One TCP connection to a house."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. A server that hung up already is no error: its answer is what counts."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self, method: str = "POST") -> httpx.Response:
        """The next response; `method` tells whether a body follows its head.

        Raises:
            TimeoutError: nothing complete came in ANSWER_TIMEOUT_S.
        """
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip("\r\n").split("\r\n")
            status = int(status_line.split(" ")[1])
            headers = httpx.Headers(
                [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            )
            body = b"" if method == "HEAD" or status in (100, 204, 304) else await self._body(headers)
        # The body is decoded already: its framing must not be applied to it a second time.
        return httpx.Response(status, headers=headers, content=body)

    async def _body(self, headers: httpx.Headers) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await self.reader.read()
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readuntil(b"\r\n")
        return body


@asynccontextmanager
async def connection(house: House, *, receive_buffer_bytes: int | None = None) -> AsyncIterator[RawConnection]:
    """A new connection, closed at the end without ceremony. A small receive buffer makes a slow reader."""
    peer = socket.socket()
    if receive_buffer_bytes is not None:
        # Before connecting: it bounds the window that is offered to the server.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, (house.host, house.port))
    reader, writer = await asyncio.open_connection(sock=peer, limit=2**16)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def head(method: str, target: str, **headers: str | int) -> bytes:
    """A request head; header names are given with underscores for hyphens."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def exchange(house: House, method: str, target: str, body: bytes = b"", **headers: str | int) -> httpx.Response:
    """One request on a connection of its own, its target and body sent exactly as given."""
    framing = {"Content_Length": len(body)} if body else {}
    async with connection(house) as raw:
        await raw.send(head(method, target, **framing, **headers) + body)
        return await raw.answer(method)
