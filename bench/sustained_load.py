"""The sustained load: as many messages as a whole system takes without its backlog growing.

A closed loop over keep-alive connections, whose gate shuts while more than a mark waits for either projection. So the
workers set the pace, and have full batches to work on. What the backlog is, Redis is asked, often. The measured
window goes from one shutting of the gate to another, so that the backlog is the same at both ends; if it grew all the
same, what it grew does not count.

It runs in the client's process.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import redis.asyncio

from bench.load import PATIENCE_S, SHOWN_OF_AN_ANSWER, Exchange, run_alone
from bench.measure import Wrong

LOOK_S = 0.03
EDGE_TIMEOUT_S = 20.0
"""How long the gate may stay as it is before a window ends without it."""

PROJECTIONS = ("store", "search")


@dataclass(frozen=True)
class SustainedLoad:
    """What to send, over how many connections, and how far the projections may be behind."""

    port: int
    requests: tuple[bytes, ...]
    first: int
    connections: int
    redis_url: str
    metas: tuple[str, ...]
    """The keys that count what was recorded and what was applied, one a partition."""
    mark: int
    settling_s: float
    seconds: float


@dataclass(frozen=True)
class Window:
    """What happened: all acknowledged, and within the measured window."""

    acknowledged: int
    accepted: int
    growth: int
    backlog: int
    seconds: float
    client_cpu_s: float
    gate_shut: float
    """For which part of the window the gate was shut."""

    @property
    def sustained(self) -> int:
        """Messages that were accepted, stored and indexed."""
        return self.accepted - max(0, self.growth)


def run_sustained_load(load: SustainedLoad) -> Window:
    """Put the load on the server.

    Raises:
        Wrong: a message was not accepted.
    """
    return run_alone(_run(load))


class _Gate:
    """What the connections of one load share."""

    def __init__(self, load: SustainedLoad, finished: asyncio.Future[None]) -> None:
        first = load.first % len(load.requests)
        self.requests: Iterator[bytes] = itertools.islice(itertools.cycle(load.requests), first, None)
        self.finished = finished
        self.is_open = True
        self.ending = False
        self.waiting: list[_Connection] = []
        self.working = load.connections
        self.answered = 0

    def fail(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(Wrong(reason))

    def set(self, is_open: bool) -> None:
        self.is_open = is_open
        if is_open or self.ending:
            waiting, self.waiting = self.waiting, []
            for connection in waiting:
                connection.go_on()


class _Connection(Exchange):
    def __init__(self, gate: _Gate) -> None:
        super().__init__()
        self.gate = gate

    def failed(self, reason: str) -> None:
        self.gate.fail(reason)

    def answered(self, data: bytes, end: int) -> None:
        if data[9:12] != b"201":
            self.gate.fail(f"201 expected, but: {data[:SHOWN_OF_AN_ANSWER]!r}")
            return
        self.gate.answered += 1
        self.go_on()

    def go_on(self) -> None:
        gate = self.gate
        if gate.ending:
            gate.working -= 1
            if gate.working == 0 and not gate.finished.done():
                gate.finished.set_result(None)
        elif gate.is_open:
            self.send(next(gate.requests))
        else:
            gate.waiting.append(self)


async def _run(load: SustainedLoad) -> Window:
    loop = asyncio.get_running_loop()
    gate = _Gate(load, loop.create_future())
    opened = [
        await loop.create_connection(lambda: _Connection(gate), "127.0.0.1", load.port) for _ in range(load.connections)
    ]
    async with redis.asyncio.Redis.from_url(load.redis_url) as server:
        backlog = _Backlog(server, load.metas)
        await backlog.look()
        for _, connection in opened:
            connection.go_on()
        try:
            window = await _watch(load, gate, backlog)
            gate.ending = True
            gate.set(True)
            await asyncio.wait_for(gate.finished, PATIENCE_S)
        except TimeoutError:
            raise Wrong(f"{gate.working} requests had no answer after {PATIENCE_S:.0f} s") from None
        finally:
            for transport, _ in opened:
                transport.abort()
    return Window(gate.answered, *window)


async def _watch(load: SustainedLoad, gate: _Gate, backlog: _Backlog) -> tuple[int, int, int, float, float, float]:
    """Keep the gate; what happened in the window after the settling."""

    async def until_it_shuts(seconds: float) -> float:
        """Wait so long, and then for the gate to shut next, if it does; for which part of that it was shut."""
        started_at, was_open, shut, looks = time.monotonic(), False, 0, 0
        while (age_s := time.monotonic() - started_at) < seconds + EDGE_TIMEOUT_S:
            if gate.finished.done():
                gate.finished.result()
            await backlog.look()
            gate.set(backlog.most < load.mark)
            if age_s >= seconds and was_open and not gate.is_open:
                break
            was_open = gate.is_open
            shut += not was_open
            looks += 1
            await asyncio.sleep(LOOK_S)
        return shut / max(1, looks)

    await until_it_shuts(load.settling_s)
    before, waiting_before, started_at, cpu_before_s = (
        gate.answered,
        backlog.most,
        time.monotonic(),
        time.process_time(),
    )
    gate_shut = await until_it_shuts(load.seconds)
    return (
        gate.answered - before,
        backlog.most - waiting_before,
        backlog.most,
        time.monotonic() - started_at,
        time.process_time() - cpu_before_s,
        gate_shut,
    )


class _Backlog:
    """How many facts wait for the projection that is further behind."""

    def __init__(self, server: redis.asyncio.Redis, metas: tuple[str, ...]) -> None:
        self._server = server
        self._metas = metas
        self.most = 0

    async def look(self) -> None:
        names = [name for projection in PROJECTIONS for name in (projection, f"{projection}_done")]
        pipeline = self._server.pipeline(transaction=False)
        for meta in self._metas:
            pipeline.execute_command("HMGET", meta, *names)
        waiting = [0] * len(PROJECTIONS)
        for found in await pipeline.execute():
            counts = [int(count or 0) for count in found]
            for index in range(len(PROJECTIONS)):
                waiting[index] += counts[2 * index] - counts[2 * index + 1]
        self.most = max(waiting)
