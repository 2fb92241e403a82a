"""Connection: how long it is waited for what is slow, by a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from chat_system.web.app import App
from chat_system.web.connection import HEAD_MAX_BYTES, HEAD_S, KEEP_ALIVE_S, REQUEST_S, Connection, Connections
from chat_system.web.request import ClientGone, Request

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
ANSWER = b"content-length: 0\r\n"


class Echo:
    """An application that reads the body and answers with it."""

    def __init__(self) -> None:
        self.gone = 0
        self.body_max_bytes = 100

    def refuse_malformed(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        """The answer to what is no HTTP."""
        return 400, ANSWER, b""

    async def answer(self, request: Request) -> None:
        """Read, answer."""
        try:
            await request.body.until_complete(self.body_max_bytes)
        except ClientGone:
            self.gone += 1
            return
        request.connection.answer(request, 200, ANSWER, b"")


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and may leave some of it unsent."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent_bytes = 0
        self.end: str | None = None
        self.reads = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1)

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.end is not None

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_reading(self) -> bool:
        return self.reads

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = self.end or "cut"


class Line:
    """A connection, its wire, and its application."""

    def __init__(self) -> None:
        self.app = Echo()
        self.connections = Connections(cast(App, self.app))
        self.wire = Wire()
        self.connection: Connection = self.connections.accept()
        self.connection.connection_made(self.wire)

    async def receive(self, data: bytes) -> None:
        """Bytes come in."""
        self.connection.data_received(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def end_after(self, seconds: float) -> str | None:
        """How it has ended when so much time has passed since the last thing it said."""
        self.connection.check_pace(self.connections.loop.time() + seconds)
        return self.wire.end


def keep(requests: list[Request]) -> Any:
    """An application that keeps what it is asked, and leaves the rest to others."""

    async def answer(request: Request) -> None:
        requests.append(request)
        await request.connection.until_closed()

    return answer


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    """A connection that is lost at the end."""
    made = Line()
    try:
        yield made
    finally:
        made.connection.connection_lost(None)
        await asyncio.sleep(0)


@pytest.mark.parametrize("before", [b"", HEAD + b"\r\nabcd"])
async def test_a_head_that_is_too_long_is_refused_though_it_came_at_once(before: bytes) -> None:
    """Alone and behind another request, which is answered; at the limit it is a head like any other."""
    answers = 1 if before else 0
    for length, status in ((HEAD_MAX_BYTES - 1000, b"200"), (HEAD_MAX_BYTES, b"400")):
        async with line() as long:
            await long.receive(before + HEAD + b"X: " + b"a" * length + b"\r\n\r\nabcd")
            await asyncio.sleep(0.01)
            assert [said[:3] for said in long.wire.written.split(b"HTTP/1.1 ")[1:]] == [*[b"200"] * answers, status]


async def test_a_long_body_that_came_at_once_is_no_long_head() -> None:
    """Bodies have a bound of their own."""
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * HEAD_MAX_BYTES)
    async with line() as long:
        long.app.body_max_bytes = 2 * HEAD_MAX_BYTES
        await long.receive(head + b"a" * (2 * HEAD_MAX_BYTES))
        assert long.wire.written.startswith(b"HTTP/1.1 200 ")


async def test_a_stream_says_that_its_connection_ends_with_it() -> None:
    """A client that took it for one to be used again might ask on it at the moment in which it is closed."""
    async with line() as followed:
        requests: list[Request] = []
        followed.app.answer = keep(requests)  # type: ignore[method-assign]
        await followed.receive(HEAD + b"\r\nabcd")
        followed.connection.begin_stream(requests[0], b"")
        assert b"connection: close\r\n" in followed.wire.written
        assert b"transfer-encoding: chunked\r\n" in followed.wire.written


async def test_a_head_that_does_not_end_is_cut() -> None:
    """A byte now and then does not hold a connection for ever."""
    async with line() as slow:
        await slow.receive(HEAD[:10])
        assert slow.end_after(HEAD_S - 1) is None
        await slow.receive(HEAD[10:])
        assert slow.end_after(HEAD_S + 1) == "cut"
    assert slow.wire.written == b""


async def test_a_body_that_does_not_end_is_cut_and_its_reader_told() -> None:
    """The operation that waits for it ends, too."""
    async with line() as slow:
        await slow.receive(HEAD + b"\r\nab")
        assert slow.end_after(REQUEST_S - 1) is None
        assert slow.end_after(REQUEST_S + 1) == "cut"
    assert slow.app.gone == 1


async def test_a_silent_connection_is_closed_between_requests_only() -> None:
    """After the keep-alive time, and never while something is being answered."""
    async with line() as idle:
        await idle.receive(HEAD + b"\r\nabcd")
        assert idle.wire.written.startswith(b"HTTP/1.1 200 OK\r\n")
        assert idle.end_after(KEEP_ALIVE_S - 1) is None
        assert idle.end_after(KEEP_ALIVE_S + 1) == "closed"


@pytest.mark.parametrize("takes", [True, False])
async def test_an_answer_may_be_taken_slowly_but_must_be_taken(takes: bool) -> None:
    """Whoever goes on taking is left alone; whoever stops is cut."""
    async with line() as reader:
        await reader.receive(HEAD + b"\r\nabcd")
        reader.wire.unsent_bytes = 1_000_000
        for turn in range(1, 6):
            now = turn * (REQUEST_S * 0.6)
            if takes:
                reader.wire.unsent_bytes -= 1_000
            reader.end_after(now)
        assert reader.wire.end == (None if takes else "cut")


async def test_a_held_connection_is_not_read_until_its_time_is_over() -> None:
    """Neither an answer nor a body that is waited for ends that early; being told twice makes it no longer."""
    async with line() as refused:
        refused.connection.hold(0.05)
        refused.connection.hold(10)
        await refused.receive(HEAD + b"\r\nab")
        await refused.receive(b"cd")
        assert refused.wire.written.startswith(b"HTTP/1.1 200 ")
        assert not refused.wire.is_reading()
        await asyncio.sleep(0.1)
        assert refused.wire.is_reading()


async def test_a_held_connection_that_was_lost_is_left_alone() -> None:
    """Its time is over when it is gone."""
    async with line() as refused:
        refused.connection.hold(0.01)
        refused.wire.abort()
        await asyncio.sleep(0.02)
        assert not refused.wire.is_reading()
