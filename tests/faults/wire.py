"""A wire between the processes under test and one of their servers, that can be cut, slow down, or fall silent.

    with Wire("127.0.0.1", 6379) as wire:      # listens on 127.0.0.1:wire.port
        wire.hold()                            # nothing passes in either direction, and nothing is lost
        wire.holds(b"mark")                    # whether a request with these bytes is held
        wire.hold_answers(after=b"mark")       # from the request on that holds these bytes, no answer passes
        wire.cut()                             # connections are reset, with what they held; new ones are refused
        wire.halve()                           # of the next piece on each connection one half passes; then it is reset
        wire.delay(0.05)                       # every piece passes so many seconds late
        wire.mend()                            # everything passes again, first of all what was held

It stands for a server that is away where the test must know to which request it still answered, or where the
server is shared with other tests. Nothing is stood in for: what passes goes to the real server. `also` puts several
servers behind one wire: each connection goes to the next one that takes it.

It runs in a thread of its own, so that the test may wait for a process that talks through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests.servers.process import free_port

T = TypeVar("T")

PIECE_BYTES = 65_536
CALL_TIMEOUT_S = 30.0


class Wire:
    """One listening port, and one server behind it."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = [(host, port)]
        self._turn = 0
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"wire to {port}", daemon=True)
        self._listening: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self._mark: bytes | None = None
        self._held: list[bytes] = []
        self._late_s = 0.0
        self._halving = False

    def __enter__(self) -> Self:
        self._thread.start()
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    @classmethod
    def to(cls, url: str, default_port: int) -> Wire:
        """A wire to the server that an URL names."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or default_port)

    def through(self, url: str) -> str:
        """The same URL, but through this wire."""
        parts = urlsplit(url)
        account, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{self.port}"))

    def also(self, host: str, port: int) -> None:
        """Another server behind this wire; before any connection is made."""
        self._behind.append((host, port))

    def hold(self) -> None:
        """From now on nothing passes. Connections stay open, and new ones are taken."""
        self._run(self._hold())

    def holds(self, mark: bytes) -> bool:
        """Whether these bytes are in the first piece of something that is held on its way to the server."""
        return any(mark in piece for piece in tuple(self._held))

    def hold_answers(self, after: bytes) -> None:
        """Let requests pass; from the one on that holds these bytes, keep back all that the server says."""
        self._run(self._await_mark(after))

    def cut(self) -> None:
        """Reset all connections and refuse new ones. What was held is lost."""
        self._run(self._cut())

    def halve(self) -> None:
        """On each connection, pass half of the next piece, in whichever direction, and reset the connection."""
        self._halving = True

    def delay(self, late_s: float) -> None:
        """Let every piece wait before it passes."""
        self._late_s = late_s

    def mend(self) -> None:
        """Let everything pass, whole and at once, and take connections."""
        self._halving, self._late_s = False, 0.0
        self._run(self._mend())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _hold(self) -> None:
        self._requests.clear()
        self._answers.clear()

    async def _await_mark(self, mark: bytes) -> None:
        self._mark = mark

    async def _mend(self) -> None:
        self._mark = None
        self._held.clear()
        self._requests.set()
        self._answers.set()
        if self._listening is None:
            self._listening = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for end in self._ends:
            end.transport.abort()
        for pump in self._pumps:
            pump.cancel()

    async def _close(self) -> None:
        await self._cut()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached = await self._reach()
        if reached is None:
            writer.transport.abort()
            return
        server_reader, server_writer = reached
        self._ends |= {writer, server_writer}
        for source, target, gate in ((reader, server_writer, self._requests), (server_reader, writer, self._answers)):
            pump = asyncio.create_task(self._pump(source, target, gate))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the next server that takes one."""
        for _ in self._behind:
            self._turn += 1
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(*self._behind[self._turn % len(self._behind)])
        return None

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        try:
            with contextlib.suppress(OSError):
                while piece := await source.read(PIECE_BYTES):
                    if gate is self._requests:
                        if self._mark is not None and self._mark in piece:
                            self._answers.clear()
                        if not gate.is_set():
                            self._held.append(piece)
                    await gate.wait()
                    if self._late_s:
                        await asyncio.sleep(self._late_s)
                    if self._halving:
                        target.write(piece[: len(piece) // 2])
                        await target.drain()
                        break
                    target.write(piece)
                    await target.drain()
        finally:
            self._ends.discard(target)
            # Whoever sent nothing more has left: in these protocols nobody waits for an answer then.
            target.close()
