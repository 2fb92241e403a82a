"""Stack mode: each projection alone, beside its server writing the same rows or documents made ready beforehand.

Messages are posted over HTTP as in `stack-post`, so that the journal holds what real load leaves in it. Then one
projection works until nothing is left. Twice it stands beside its limit: applying alone, step by step; and as a worker
does it, with reading from and acknowledging to Redis, which the limit has no part of.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong
from bench.projections import (
    Batch,
    NewIndex,
    Projecting,
    ProjectionName,
    Raw,
    make_index,
    run_as_worker,
    run_projection,
    run_raw_bulks,
    run_raw_inserts,
)
from bench.scenarios.posting import CHATS, CHATS_PER_APPLICATION, Poster
from bench.stack import Place
from bench.workbench import Workbench

CONNECTIONS = 64
POSTING_TIMEOUT_S = 300.0
WARM_UPS = {"store": 1, "search": 1}
"""Java compiles what is run often while it runs. Whoever is measured first would pay for it."""

GOAL = Goal("ratio", "at_least", 0.92)

RAW: dict[str, tuple[Callable[[Raw], Sample], str]] = {
    "store": (run_raw_inserts, "raw multi-row INSERT"),
    "search": (run_raw_bulks, "raw _bulk, ready bodies"),
}


class Projection:
    """One projection over one place, and its limit."""

    def __init__(self, bench: Workbench, place: Place, poster: Poster, name: ProjectionName) -> None:
        self.bench = bench
        self.place = place
        self.poster = poster
        self.name = name
        self.applied = 0
        self.batches: tuple[Batch, ...] = ()

    def measure(self, _seconds: float) -> Sample:
        """Post, then apply what was posted."""
        self.poster.post(POSTING_TIMEOUT_S, self.bench.sizes.projected)
        servers = self.bench.stack
        servers.rest()
        before_s = servers.cpu_s()
        projected = self.bench.in_client(run_projection, Projecting(self.place.settings, self.name))
        servers.rest()
        self.applied += projected.messages
        self.batches = projected.batches
        return _with_cpu(projected.sample(), servers.cpu_s() - before_s, projected.messages)

    def measure_worker(self, _seconds: float) -> Sample:
        """Post, then apply what was posted as a worker does."""
        acknowledged = self.poster.acknowledged
        self.poster.post(POSTING_TIMEOUT_S, self.bench.sizes.projected)
        count = self.poster.acknowledged - acknowledged
        servers = self.bench.stack
        servers.rest()
        before_s = servers.cpu_s()
        worked = self.bench.in_client(run_as_worker, Projecting(self.place.settings, self.name))
        servers.rest()
        self.applied += count
        sample = {"messages_per_s": count / worked["seconds"], "own_cpu_us": worked["cpu_s"] / count * 1e6}
        return _with_cpu(sample, servers.cpu_s() - before_s, count)

    def warm_up(self) -> None:
        """Let all write for a while."""
        for _ in range(WARM_UPS[self.name]):
            self.measure(0.0)
            self.measure_worker(0.0)
            self.measure_raw(0.0)

    def measure_raw(self, _seconds: float) -> Sample:
        """Write what was applied last."""
        servers = self.bench.stack
        before_s = servers.cpu_s()
        sample = self.bench.in_client(RAW[self.name][0], Raw(self.place.settings, self.batches))
        servers.rest()
        # All of it is written twice.
        return _with_cpu(sample, servers.cpu_s() - before_s, 2 * sum(map(len, self.batches)))

    def check(self) -> None:
        """Check that what was posted was applied, all of it and once.

        Raises:
            Wrong: it was not.
        """
        if self.applied != self.poster.acknowledged:
            raise Wrong(f"{self.poster.acknowledged} messages were acknowledged, {self.applied} applied")


def _with_cpu(sample: Sample, servers_cpu_s: float, messages: int) -> Sample:
    servers_us = servers_cpu_s / messages * 1e6
    return {**sample, "servers_cpu_us": servers_us, "cpu_us": sample["own_cpu_us"] + servers_us}


def set_up(name: ProjectionName, bench: Workbench, stack: ExitStack) -> Stage:
    """An API process that accepts, the projection, and its limit."""
    place = stack.enter_context(bench.stack.place())
    bench.in_client(make_index, NewIndex(place.settings))
    api = stack.enter_context(place.api())
    poster = Poster(bench, api, api.api.create_chats(CHATS, CHATS_PER_APPLICATION), CONNECTIONS)
    projection = Projection(bench, place, poster, name)
    limit = RAW[name][1]
    label = f"stack: {name} projection"

    projection.warm_up()

    def check() -> None:
        projection.check()
        with place.worker():
            api.wait_until_applied()
            poster.check(api.api)

    return Stage(
        contestants=[
            Contestant("ours", projection.measure, warm_up=False),
            Contestant("worker", projection.measure_worker, warm_up=False),
            Contestant("raw", projection.measure_raw, warm_up=False),
        ],
        rows=[
            Row(f"{label}, applying", "ours", "applied_per_s", "msg/s", "raw", limit, goal=GOAL),
            Row(
                f"{label}, reading and acknowledging, too", "worker", "messages_per_s", "msg/s", "raw", limit, goal=GOAL
            ),
            Row(f"{label}, CPU of all processes", "worker", "cpu_us", "µs", "raw", limit),
        ],
        check=check,
    )
