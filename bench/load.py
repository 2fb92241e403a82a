"""The load client: a closed loop over keep-alive connections, in a process of its own.

Each connection sends a request, waits for the whole answer, and sends the next. Requests are built
beforehand, and of an answer only what is needed is read: its status, its length, and where asked its
number or its next page. That is still enough to count every answer and to stop at the first unexpected
one. The client must cost less than the server, or it measures itself: `client_cpu` near 1 says that it
did.

Not promised: chunked answers, redirects, anything of HTTP that a benchmarked answer does not use.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar, cast

import uvloop

from bench.measure import Sample, Wrong, percentile

PATIENCE_S = 30.0
SHOWN_OF_AN_ANSWER = 2_000

T = TypeVar("T")

_NUMBER = re.compile(rb'"number": ?(\d+)')


@dataclass(frozen=True)
class Load:
    """What to send, and what must come back. Requests are sent in turn, over all connections."""

    port: int
    requests: tuple[bytes, ...]
    status: int
    connections: int
    seconds: float
    first: int = 0
    """Which request to begin with: a load that is continued begins where the last one ended."""
    count: int | None = None
    """Send so many requests, however long that takes, instead of sending for some seconds."""
    sum_numbers: bool = False
    """Read `"number"` from each answer and add them up: with their count, a check for gaps and duplicates."""
    follow: int = 0
    """After each request follow `rel="next"` this many times before the next request in turn."""


@dataclass(frozen=True)
class Answers:
    """What came back, all of it with the expected status."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    client_cpu: float
    number_sum: int

    def sample(self, messages_per_answer: int = 1) -> Sample:
        """The figures of this load."""
        return {
            "answers_per_s": self.count / self.seconds,
            "messages_per_s": self.count * messages_per_answer / self.seconds,
            "us_per_answer": self.seconds / self.count * 1e6,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "client_cpu": self.client_cpu,
        }


def post_request(path: str, body: bytes) -> bytes:
    """The bytes of a POST of a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def get_request(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii")


def run_load(load: Load) -> Answers:
    """Put the load on the server until its seconds are over and every request is answered.

    Raises:
        Wrong: an answer had another status, a connection was closed, or no answer came for PATIENCE_S.
    """
    return run_alone(_run(load))


def run_alone(work: Coroutine[None, None, T]) -> T:
    """Run a load on an event loop of its own, without the collector: a pause of the client would be the server's.

    It keeps to one core. The system would wake it where the server has just written to its socket, in front of the
    server: for each answer the two then take turns on one core, and another is idle. Real clients are elsewhere.
    """
    cores = os.sched_getaffinity(0)
    gc.collect()
    gc.disable()
    os.sched_setaffinity(0, {max(cores)})
    try:
        return uvloop.run(work)
    finally:
        os.sched_setaffinity(0, cores)
        gc.enable()


class Exchange(asyncio.Protocol):
    """One keep-alive connection that waits for one whole answer at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.partial = b""
        self.needed = 0
        self.sent_at = 0.0

    def answered(self, data: bytes, end: int, /) -> None:
        """A whole answer came; its head ends at `end`."""
        raise NotImplementedError

    def failed(self, reason: str) -> None:
        """This connection cannot go on."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to send on."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that is benchmarked is not to be closed by the server."""
        self.failed(f"the server closed a connection: {exc or 'no error'}")

    def send(self, request: bytes) -> None:
        """Send one request; `answered` follows."""
        assert self.transport is not None
        self.sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Gather a whole answer."""
        if self.partial:
            data = self.partial + data
        if len(data) < self.needed or (end := data.find(b"\r\n\r\n")) < 0:
            self.partial = data
            return
        head = data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self.failed(f"an answer without Content-Length: {data[:SHOWN_OF_AN_ANSWER]!r}")
            return
        stop = head.find(b"\r", at + 2)
        size = end + 4 + int(head[at + 17 : stop if stop > 0 else end])
        if len(data) < size:
            self.partial, self.needed = data, size
            return
        self.partial, self.needed = b"", 0
        self.answered(data, end)


class _Progress:
    """What the connections of one load share."""

    def __init__(self, load: Load, finished: asyncio.Future[None]) -> None:
        self.status = str(load.status).encode("ascii")
        self.follow = load.follow
        self.sum_numbers = load.sum_numbers
        self.finished = finished
        first = load.first % len(load.requests)
        end = None if load.count is None else first + load.count
        turn = itertools.islice(itertools.cycle(load.requests), first, end)
        self.next_request: Callable[[], bytes | None] = lambda: next(turn, None)
        self.latencies: list[float] = []
        self.deadline = 0.0
        self.working = load.connections
        self.number_sum = 0
        self.ended_at = 0.0

    def fail(self, reason: str) -> None:
        """End the load with an error; the first one counts."""
        if not self.finished.done():
            self.finished.set_exception(Wrong(reason))

    def one_less(self, now: float) -> None:
        """A connection has its last answer."""
        self.working -= 1
        if self.working == 0 and not self.finished.done():
            self.ended_at = now
            self.finished.set_result(None)


class _Connection(Exchange):
    """One of the load's connections: answer in, next request out, until the deadline."""

    def __init__(self, progress: _Progress) -> None:
        super().__init__()
        self.progress = progress
        self.followed = 0

    def failed(self, reason: str) -> None:
        self.progress.fail(reason)

    def answered(self, data: bytes, end: int) -> None:
        progress = self.progress
        now = time.perf_counter()
        if data[9:12] != progress.status:
            progress.fail(f"{progress.status.decode()} expected, but: {data[:SHOWN_OF_AN_ANSWER]!r}")
            return
        progress.latencies.append(now - self.sent_at)
        if progress.sum_numbers:
            progress.number_sum += number_in(data, end)
        if now >= progress.deadline:
            progress.one_less(now)
        elif self.followed < progress.follow and (link := next_link(data[:end])) is not None:
            self.followed += 1
            self.send(b"GET " + link + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        elif (request := progress.next_request()) is not None:
            self.followed = 0
            self.send(request)
        else:
            progress.one_less(now)


def number_in(data: bytes, start: int) -> int:
    """The value of the first `"number"` in an answer, after `start`; 0, which no message has, if none."""
    found = _NUMBER.search(data, start)
    return int(found[1]) if found else 0


def next_link(head: bytes) -> bytes | None:
    """The path of `rel="next"` in the Link header of an answer; None on the last page."""
    at = head.find(b'rel="next"')
    if at < 0:
        return None
    link = head[head.rfind(b"<", 0, at) + 1 : head.rfind(b">", 0, at)]
    if link.startswith(b"http://"):
        link = link[link.index(b"/", 7) :]
    return link


async def _run(load: Load) -> Answers:
    loop = asyncio.get_running_loop()
    progress = _Progress(load, loop.create_future())
    connections = []
    for _ in range(load.connections):
        transport, connection = await loop.create_connection(lambda: _Connection(progress), "127.0.0.1", load.port)
        connections.append((transport, connection))
    cpu_before = time.process_time()
    started_at = time.perf_counter()
    progress.deadline = started_at + load.seconds
    for _, connection in connections:
        request = progress.next_request()
        assert request is not None, "fewer requests than connections"
        connection.send(request)
    try:
        await asyncio.wait_for(progress.finished, load.seconds + PATIENCE_S)
    except TimeoutError:
        raise Wrong(f"{progress.working} requests had no answer after {PATIENCE_S:.0f} s") from None
    finally:
        for transport, _ in connections:
            transport.abort()
    seconds = progress.ended_at - started_at
    latencies = sorted(progress.latencies)
    return Answers(
        count=len(latencies),
        seconds=seconds,
        p50_ms=percentile(latencies, 0.50) * 1e3,
        p99_ms=percentile(latencies, 0.99) * 1e3,
        client_cpu=(time.process_time() - cpu_before) / seconds,
        number_sum=progress.number_sum,
    )
