"""The wire itself: slow, halved, and with more than one server behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.wire import Wire
from tests.servers.process import free_port

LATE_S = 0.2
PIECE = b"x" * 1000


@asynccontextmanager
async def echo(name: bytes = b"") -> AsyncIterator[int]:
    """A server that says its name and then what it is told; its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(name)
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(4096):
                writer.write(piece)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close it, and wait until it is."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def said(port: int, length: int) -> bytes:
    """What comes back of a piece."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PIECE)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            return await reader.readexactly(length)
        return b""
    finally:
        await closed(writer)


async def test_a_slow_wire_passes_everything_late() -> None:
    """Each way takes so long as was said, and no byte is lost."""
    loop = asyncio.get_running_loop()
    async with echo() as port:
        with Wire("127.0.0.1", port) as wire:
            wire.delay(LATE_S)
            began = loop.time()
            assert await said(wire.port, len(PIECE)) == PIECE
            assert loop.time() - began >= 2 * LATE_S
            wire.mend()
            assert await said(wire.port, len(PIECE)) == PIECE


async def test_a_halving_wire_passes_half_and_hangs_up() -> None:
    """The server gets half of the piece; the client is cut off without the whole."""
    async with echo() as port:
        with Wire("127.0.0.1", port) as wire:
            wire.halve()
            assert await said(wire.port, len(PIECE)) == b""
            wire.mend()
            assert await said(wire.port, len(PIECE)) == PIECE


async def test_behind_a_wire_the_next_server_takes_over() -> None:
    """Connections go to both in turn, and all to the one that is left."""
    async with echo(b"1") as first, echo(b"2") as second:
        with Wire("127.0.0.1", first) as wire:
            wire.also("127.0.0.1", second)
            wire.also("127.0.0.1", free_port())
            names = {(await said(wire.port, 1)) for _ in range(6)}
            assert names == {b"1", b"2"}
