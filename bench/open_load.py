"""The open load client: requests are sent when they are due, whether earlier ones were answered or not.

A closed loop (`load.py`) asks less of a server that answers slowly, and so hides how long others would have waited.
Here each request has its time; its latency is counted from when it was due. One that finds all connections waiting
for answers is sent by the first that is free again.

Not promised: more than one request under way on a connection, chunked answers.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import deque
from dataclasses import dataclass

from bench.load import PATIENCE_S, SHOWN_OF_AN_ANSWER, Exchange, run_alone
from bench.measure import Sample, Wrong, percentile

TICK_S = 0.001
REFUSED = b"503"
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class OpenLoad:
    """What to send, how often, and what may come back: the expected status, or a refusal."""

    port: int
    requests: tuple[bytes, ...]
    status: int
    connections: int
    seconds: float
    rate_per_s: float
    first: int = 0
    refusals: bool = False
    patient: bool = True
    """Whether a connection that was refused waits as long as it was told; else it sends what is due at once."""


@dataclass(frozen=True)
class OpenAnswers:
    """What came back. Latencies are counted from when a request was due, of refusals from when it was sent."""

    offered: int
    accepted: int
    refused: int
    seconds: float
    accepted_p50_ms: float
    accepted_p99_ms: float
    refused_p50_ms: float
    refused_p99_ms: float
    client_cpu: float

    def sample(self) -> Sample:
        """The figures of this load."""
        return {
            "offered_per_s": self.offered / self.seconds,
            "answers_per_s": self.accepted / self.seconds,
            "refused_per_s": self.refused / self.seconds,
            "p50_ms": self.accepted_p50_ms,
            "p99_ms": self.accepted_p99_ms,
            "refused_p50_ms": self.refused_p50_ms,
            "refused_p99_ms": self.refused_p99_ms,
            "client_cpu": self.client_cpu,
        }


def run_open_load(load: OpenLoad) -> OpenAnswers:
    """Put the load on the server until its seconds are over and every request is answered.

    Raises:
        Wrong: an answer had an unexpected status, a connection was closed, or no answer came for PATIENCE_S.
    """
    return run_alone(_run(load))


class _Open:
    """What the connections of one load share."""

    def __init__(self, load: OpenLoad, finished: asyncio.Future[None]) -> None:
        self.status = str(load.status).encode("ascii")
        self.refusals = load.refusals
        self.patient = load.patient
        self.finished = finished
        turn = itertools.islice(itertools.cycle(load.requests), load.first % len(load.requests), None)
        self.requests = turn
        self.idle: list[_Connection] = []
        self.due: deque[float] = deque()
        self.under_way = 0
        self.sending = True
        self.accepted: list[float] = []
        self.refused: list[float] = []

    def fail(self, reason: str) -> None:
        """End the load with an error; the first one counts."""
        if not self.finished.done():
            self.finished.set_exception(Wrong(reason))

    def send_due(self) -> None:
        """Send what is due over the connections that are idle."""
        while self.due and self.idle:
            connection = self.idle.pop()
            connection.due_at = self.due.popleft()
            self.under_way += 1
            connection.send(next(self.requests))
        if not self.sending and not self.due and not self.under_way and not self.finished.done():
            self.finished.set_result(None)


class _Connection(Exchange):
    """One of the load's connections."""

    def __init__(self, load: _Open) -> None:
        super().__init__()
        self.load = load
        self.due_at = 0.0

    def failed(self, reason: str) -> None:
        self.load.fail(reason)

    def answered(self, data: bytes, end: int) -> None:
        load = self.load
        status = data[9:12]
        if status == load.status:
            load.accepted.append(time.perf_counter() - self.due_at)
        elif status == REFUSED and load.refusals and (told := RETRY_AFTER.search(data, 0, end)):
            load.refused.append(time.perf_counter() - self.sent_at)
            if load.patient:
                load.under_way -= 1
                asyncio.get_running_loop().call_later(int(told[1]), self._come_back)
                return
        else:
            load.fail(f"{load.status.decode()} expected, but: {data[:SHOWN_OF_AN_ANSWER]!r}")
            return
        load.under_way -= 1
        self._come_back()

    def _come_back(self) -> None:
        self.load.idle.append(self)
        self.load.send_due()


async def _run(load: OpenLoad) -> OpenAnswers:
    loop = asyncio.get_running_loop()
    state = _Open(load, loop.create_future())
    transports = []
    for _ in range(load.connections):
        transport, connection = await loop.create_connection(lambda: _Connection(state), "127.0.0.1", load.port)
        transports.append(transport)
        state.idle.append(connection)
    cpu_before = time.process_time()
    started_at = time.perf_counter()
    offered = 0
    try:
        while (passed := time.perf_counter() - started_at) < load.seconds and not state.finished.done():
            while offered < passed * load.rate_per_s:
                state.due.append(started_at + offered / load.rate_per_s)
                offered += 1
            state.send_due()
            await asyncio.sleep(TICK_S)
        state.sending = False
        state.send_due()
        await asyncio.wait_for(state.finished, PATIENCE_S)
    except TimeoutError:
        raise Wrong(f"{state.under_way} requests had no answer after {PATIENCE_S:.0f} s") from None
    finally:
        for transport in transports:
            transport.abort()
    seconds = time.perf_counter() - started_at
    accepted, refused = sorted(state.accepted), sorted(state.refused)
    return OpenAnswers(
        offered=offered,
        accepted=len(accepted),
        refused=len(refused),
        seconds=seconds,
        accepted_p50_ms=_ms(accepted, 0.50),
        accepted_p99_ms=_ms(accepted, 0.99),
        refused_p50_ms=_ms(refused, 0.50),
        refused_p99_ms=_ms(refused, 0.99),
        client_cpu=(time.process_time() - cpu_before) / seconds,
    )


def _ms(ordered: list[float], part: float) -> float:
    return percentile(ordered, part) * 1e3 if ordered else 0.0
