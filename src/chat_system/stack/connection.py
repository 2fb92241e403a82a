"""A connection to Redis that many share: what they ask goes out as it comes, answers come in the same order (ADR 20).

redis-py opens it, with all that a URL may say of TLS, passwords and databases; hiredis packs and reads what is on it,
as it does for redis-py. What is left out is redis-py's own work for each call: a pool, a pipeline, a stream, two tasks.

Nothing is sent twice. Who asked on a connection that was lost is told so, whether or not Redis has heard it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

TICK_S = 1.0
"""How often it is looked for whether an answer takes too long."""

_PARTIAL = object()

Answered = Callable[[Any], None]
"""Takes an answer, or the exception that stands in its place. Quick, and never raising."""

Open = Callable[[], Awaitable[Any]]
"""A connection of redis-py's that is ready for commands. Raises what redis-py raises."""


class Connection(asyncio.Protocol):
    """Gives each thing that Redis says to `hear`, until the connection is lost, which `lost` is told."""

    def __init__(self, opened: Any, hear: Answered, lost: Callable[[], None]) -> None:
        self._reader = hiredis.Reader(replyError=error, notEnoughData=_PARTIAL)
        self._hear = hear
        self._lost = lost
        # It becomes ours: redis-py's object has none any more. The writer is kept, for its end would be the socket's.
        self._writer = opened._writer  # noqa: SLF001 - there is no other way in
        opened._reader = opened._writer = None  # noqa: SLF001
        self._transport = cast(asyncio.Transport, self._writer.transport)
        self._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Hand on what has come as a whole."""
        reader, hear = self._reader, self._hear
        try:
            reader.feed(data)
            while (said := reader.gets()) is not _PARTIAL:
                hear(said)
        except hiredis.ProtocolError:
            self.cut()

    def connection_lost(self, _reason: Exception | None) -> None:
        """Nothing more will come."""
        self._lost()

    def send(self, packed: bytes) -> None:
        """Send commands."""
        self._transport.write(packed)

    def say(self, *words: Any) -> None:
        """Send one command."""
        self.send(hiredis.pack_command(words))

    def cut(self) -> None:
        """Drop it; `lost` is called soon."""
        self._transport.abort()


class Line:
    """Calls over one connection, which is opened when there is something to ask, and again when it was lost."""

    def __init__(self, open_connection: Open, patience_s: float) -> None:
        self._open = open_connection
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unsent: list[bytes] = []
        # Who waits for an answer, in the order in which they come, and since when.
        self._waiting: deque[tuple[float, Answered]] = deque()
        self._ticking: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def ask(self, command: Sequence[Any], answered: Answered) -> None:
        """Send a command with the next `flush`, and have it answered."""
        self._unsent.append(hiredis.pack_command(tuple(command)))
        self._waiting.append((self._loop.time(), answered))

    def flush(self) -> None:
        """Send what was asked, in one piece."""
        if not self._unsent:
            return
        if self._ticking is None:
            self._ticking = self._loop.call_later(TICK_S, self._tick)
        if self._connection is not None:
            packed, self._unsent = self._unsent, []
            self._connection.send(packed[0] if len(packed) == 1 else b"".join(packed))
        elif self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    def close(self) -> None:
        """Who still waits is told that nobody will answer."""
        if self._connecting is not None:
            self._connecting.cancel()
        self._fail(Lost("closed"))

    async def _connect(self) -> None:
        try:
            opened = await self._open()
            self._connection = connection = Connection(opened, self._hear, lambda: self._lost(connection))
        except Exception as failure:  # noqa: BLE001 - a connection that is reset meanwhile ends it in many ways
            self._connecting = None
            self._fail(failure)
        else:
            self._connecting = None
            self.flush()

    def _hear(self, said: Any) -> None:
        if self._waiting:
            self._waiting.popleft()[1](said)

    def _lost(self, connection: Connection) -> None:
        if self._connection is connection:
            self._fail(Lost("the connection was lost"))

    def _tick(self) -> None:
        self._ticking = None
        if not self._waiting:
            return
        if self._loop.time() - self._waiting[0][0] > self._patience_s:
            self._fail(NoAnswer("no answer in time"))
        else:
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _fail(self, failure: Exception) -> None:
        """Nobody knows what Redis has heard of what was asked: begin anew."""
        connection, self._connection = self._connection, None
        waiting, self._waiting = self._waiting, deque()
        self._unsent = []
        if connection is not None:
            connection.cut()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        for _, answered in waiting:
            answered(failure)


def error(text: str) -> ResponseError:
    """What Redis says instead of an answer, as redis-py would name it."""
    kind = (
        NoScriptError if text.startswith("NOSCRIPT") else OutOfMemoryError if text.startswith("OOM") else ResponseError
    )
    return kind(text)
