"""The live client: many readers of one chat's events, and one poster, in one process and on one clock.

The poster sends a message when its last one was answered and at most `ahead` messages are on their way to
the readers. With `ahead` 1 each message reaches everyone before the next is sent, which shows latency
undisturbed; with more it shows throughput. Each reader checks that the ids it sees have no gap and no
repetition, so a delivery that is counted was the right one.

Not promised: a full parser of server-sent events. Ids are read, data is not.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import cast

from bench.load import PATIENCE_S, SHOWN_OF_AN_ANSWER, Exchange, get_request, run_alone
from bench.measure import Sample, Wrong, percentile

CACHED_READS = 256

_ID = re.compile(rb"^id: ?(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class LiveLoad:
    """Readers of one stream, and the request that makes one event."""

    port: int
    events_path: str
    request: bytes
    revision: int
    """The chat's revision before the load: the first event carries the next one."""
    readers: int
    ahead: int
    seconds: float


@dataclass(frozen=True)
class Deliveries:
    """What the readers saw, all of it in order."""

    count: int
    messages: int
    seconds: float
    p50_ms: float
    p99_ms: float
    client_cpu: float

    def sample(self) -> Sample:
        """The figures of this load."""
        return {
            "deliveries_per_s": self.count / self.seconds,
            "posts_per_s": self.messages / self.seconds,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "client_cpu": self.client_cpu,
        }


def run_live_load(load: LiveLoad) -> Deliveries:
    """Post until the seconds are over and every reader has every event.

    Raises:
        Wrong: a stream ended, skipped or repeated an event, a post was refused, or events were late.
    """
    return run_alone(_run(load))


def event_ids(data: bytes) -> tuple[list[int], bytes]:
    """The ids in whole chunks of a chunked answer, and the rest that is not whole yet."""
    ids: list[int] = []
    at = 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end], 16)
        end = line_end + 2 + size
        if len(data) < end + 2:
            break
        ids += [int(number) for number in _ID.findall(data[line_end + 2 : end])]
        at = end + 2
    return ids, data[at:]


class _Audience:
    """What the readers and the poster of one load share."""

    def __init__(self, load: LiveLoad, loop: asyncio.AbstractEventLoop) -> None:
        self.load = load
        self.all_open: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.poster = _Poster(self)
        self.closed_heads = load.readers
        self.sent_at: list[float] = []
        self.latencies: list[float] = []
        self.awaits_answer = False
        self.deadline = 0.0
        self.ended_at = 0.0
        # Most readers read the same bytes: they are parsed once.
        self.known: dict[bytes, list[int]] = {}

    def fail(self, reason: str) -> None:
        """End the load with an error; the first one counts."""
        for future in (self.all_open, self.finished):
            if not future.done():
                future.set_exception(Wrong(reason))
                return

    def opened(self) -> None:
        """A reader's stream has begun."""
        self.closed_heads -= 1
        if self.closed_heads == 0 and not self.all_open.done():
            self.all_open.set_result(None)

    def move_on(self) -> None:
        """Post the next message if it is time to, or end when all is delivered."""
        if self.awaits_answer:
            return
        now = time.perf_counter()
        posted, delivered = len(self.sent_at), len(self.latencies)
        if now >= self.deadline:
            if delivered == posted * self.load.readers and not self.finished.done():
                self.ended_at = now
                self.finished.set_result(None)
        elif delivered >= (posted + 1 - self.load.ahead) * self.load.readers:
            self.awaits_answer = True
            self.sent_at.append(now)
            self.poster.send(self.load.request)


class _Poster(Exchange):
    def __init__(self, audience: _Audience) -> None:
        super().__init__()
        self.audience = audience

    def failed(self, reason: str) -> None:
        self.audience.fail(reason)

    def answered(self, data: bytes, _end: int) -> None:
        if data[9:12] != b"201":
            self.audience.fail(f"201 expected, but: {data[:SHOWN_OF_AN_ANSWER]!r}")
            return
        self.audience.awaits_answer = False
        self.audience.move_on()


class _Reader(asyncio.Protocol):
    def __init__(self, audience: _Audience) -> None:
        self.audience = audience
        self.partial = b""
        self.is_open = False
        self.next_id = audience.load.revision + 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        load = self.audience.load
        request = get_request(f"{load.events_path}?after={load.revision}")
        cast(asyncio.Transport, transport).write(request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.audience.fail(f"the server closed a stream: {exc or 'no error'}")

    def data_received(self, data: bytes) -> None:
        audience = self.audience
        if self.partial:
            data = self.partial + data
            self.partial = b""
        if not self.is_open and not (data := self._without_head(data)):
            return
        ids = audience.known.get(data)
        if ids is None:
            ids, self.partial = event_ids(data)
            if not self.partial:
                if len(audience.known) >= CACHED_READS:
                    audience.known.clear()
                audience.known[data] = ids
        now = time.perf_counter()
        for number in ids:
            if number != self.next_id:
                audience.fail(f"a reader waited for event {self.next_id} and got {number}")
                return
            self.next_id = number + 1
            audience.latencies.append(now - audience.sent_at[number - audience.load.revision - 1])
        if ids:
            audience.move_on()

    def _without_head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.partial = data
            return b""
        if data[9:12] != b"200" or b"chunked" not in data[:end].lower():
            self.audience.fail(f"a chunked 200 expected, but: {data[:SHOWN_OF_AN_ANSWER]!r}")
            return b""
        self.is_open = True
        self.audience.opened()
        return data[end + 4 :]


async def _run(load: LiveLoad) -> Deliveries:
    loop = asyncio.get_running_loop()
    audience = _Audience(load, loop)
    transports: list[asyncio.Transport] = []
    try:
        for _ in range(load.readers):
            reader, _ = await loop.create_connection(lambda: _Reader(audience), "127.0.0.1", load.port)
            transports.append(reader)
        await asyncio.wait_for(audience.all_open, PATIENCE_S)
        poster, _ = await loop.create_connection(lambda: audience.poster, "127.0.0.1", load.port)
        transports.append(poster)
        cpu_before = time.process_time()
        started_at = time.perf_counter()
        audience.deadline = started_at + load.seconds
        audience.move_on()
        await asyncio.wait_for(audience.finished, load.seconds + PATIENCE_S)
    except TimeoutError:
        expected = len(audience.sent_at) * load.readers
        raise Wrong(
            f"after {PATIENCE_S:.0f} s more {audience.closed_heads} streams had not begun, "
            f"and {len(audience.latencies)} of {expected} events had come"
        ) from None
    finally:
        for transport in transports:
            transport.abort()
    seconds = audience.ended_at - started_at
    latencies = sorted(audience.latencies)
    return Deliveries(
        count=len(latencies),
        messages=len(audience.sent_at),
        seconds=seconds,
        p50_ms=percentile(latencies, 0.50) * 1e3,
        p99_ms=percentile(latencies, 0.99) * 1e3,
        client_cpu=(time.process_time() - cpu_before) / seconds,
    )
