"""POST at a rate that the client sets: at half of what the server can do, and at twice as much.

What it can do is measured first in each round, in a closed loop over 64 connections. At half of it, what counts is how
long the slowest hundredth waits beyond the bare ASGI app's, in flushes of the disk. At twice of it, what counts is that
it goes on doing what it can, refuses the rest at once, and is as it was when the load has ended: it takes as many posts
as before, and has nothing left of what it put off.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

from bench.api import Api
from bench.bare import NOTHING
from bench.houses import Server
from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong, percentile
from bench.open_load import OpenLoad, run_open_load
from bench.scenarios.posting import BARE, CHATS, CHATS_PER_APPLICATION, Poster
from bench.workbench import Workbench

CLOSED_CONNECTIONS = 64
HALF_CONNECTIONS = 256
TWICE_CONNECTIONS = 2_000
AGAIN_WITHIN_S = 5.0
AS_BEFORE = 0.9
FLUSHES = 200
FLUSHED_BYTES = 4096


def server_of(house: str, bench: Workbench, stack: ExitStack) -> Server:
    """A server to post to: of the stack house an API process with Redis, and no worker meanwhile."""
    if house == "embedded":
        return stack.enter_context(bench.server())
    return stack.enter_context(stack.enter_context(bench.stack.place()).api())


class RatePoster(Poster):
    """Posts in a closed loop to find out the top rate, and at a rate of its own."""

    def post_at(
        self, rate_per_s: float, seconds: float, connections: int, *, refusals: bool, patient: bool = True
    ) -> Sample:
        """Post at a rate, and remember what was acknowledged."""
        load = OpenLoad(
            port=self.server.port,
            requests=self.requests,
            status=201,
            connections=connections,
            seconds=seconds,
            rate_per_s=rate_per_s,
            refusals=refusals,
            patient=patient,
        )
        answers = self.bench.in_client(run_open_load, load)
        self.acknowledged += answers.accepted
        return answers.sample()

    def check(self, api: Api) -> None:
        """Check that the chats hold 1 to n each, and together what was acknowledged: whichever was refused.

        Raises:
            Wrong: it is not so.
        """
        held = [list(api.numbers(chat)) for chat in self.chats]
        if any(numbers != list(range(1, len(numbers) + 1)) for numbers in held):
            raise Wrong("a chat does not list 1 to n")
        if sum(map(len, held)) != self.acknowledged:
            raise Wrong(f"{self.acknowledged} messages were acknowledged, and {sum(map(len, held))} are there")


def set_up_half(house: str, bench: Workbench, stack: ExitStack) -> Stage:
    """The latency at half of the top rate, beside the bare app's at the same rate."""
    server = server_of(house, bench, stack)
    poster = RatePoster(bench, server, server.api.create_chats(CHATS, CHATS_PER_APPLICATION), CLOSED_CONNECTIONS)

    def measure(seconds: float) -> Sample:
        rate = poster.post(seconds)["answers_per_s"] / 2
        bench.bare_answers(NOTHING)
        load = OpenLoad(bench.bare.port, poster.requests, 201, HALF_CONNECTIONS, 3 * seconds, rate)
        bare = bench.in_client(run_open_load, load)
        server.rest()
        sample = poster.post_at(rate, 3 * seconds, HALF_CONNECTIONS, refusals=False)
        return {
            **sample,
            "bare_p50_ms": bare.accepted_p50_ms,
            "bare_p99_ms": bare.accepted_p99_ms,
            "beyond_ms": max(0.0, sample["p99_ms"] - bare.accepted_p99_ms),
            "flush_ms": flush_ms(bench.folder),
        }

    label = "POST at half of the top rate"
    bare = f"{BARE}, same rate"
    return Stage(
        contestants=[Contestant("ours", measure)],
        rows=[
            Row(f"{label}: p50", "ours", "p50_ms", "ms", "ours", bare, "bare_p50_ms"),
            Row(f"{label}: p99", "ours", "p99_ms", "ms", "ours", bare, "bare_p99_ms"),
            Row(
                f"{label}: p99 beyond that",
                *("ours", "beyond_ms", "ms"),
                *("ours", "one flush of 4 KiB", "flush_ms"),
                goal=Goal("ratio", "at_most", 3.0),
            ),
        ],
        rest=server.rest,
        check=lambda: poster.check(server.api),
    )


def set_up_twice(house: str, bench: Workbench, stack: ExitStack) -> Stage:
    """What is accepted at twice the top rate, and what a second is like when that is over."""
    server = server_of(house, bench, stack)
    poster = RatePoster(bench, server, server.api.create_chats(CHATS, CHATS_PER_APPLICATION), CLOSED_CONNECTIONS)

    def top(seconds: float) -> Sample:
        return poster.post(3 * seconds)

    def twice(seconds: float, *, patient: bool) -> Sample:
        # For as long as the load that follows: what is put off for a while is put off for the same while.
        rate = poster.post(3 * seconds)["answers_per_s"]
        server.rest()
        resident_mib = server.child.resident_mib()
        sample = poster.post_at(2 * rate, 3 * seconds, TWICE_CONNECTIONS, refusals=True, patient=patient)
        ended_at = time.monotonic()
        grown_mib = server.child.peak_mib() - resident_mib
        while poster.post(seconds / 2, rest=False)["answers_per_s"] < AS_BEFORE * rate:
            if time.monotonic() - ended_at > 6 * AGAIN_WITHIN_S:
                break
        posting_s = time.monotonic() - ended_at
        server.rest()
        return {
            **sample,
            "top_per_s": rate,
            "posting_s": posting_s,
            "again_s": time.monotonic() - ended_at,
            "resident_mib": resident_mib,
            "grown_mib": grown_mib,
        }

    return Stage(
        contestants=[
            Contestant("top", top),
            Contestant("twice", lambda seconds: twice(seconds, patient=True)),
            Contestant("impatient", lambda seconds: twice(seconds, patient=False)),
        ],
        rows=[
            *_rows_of_twice("POST at twice the top rate", "twice"),
            *_rows_of_twice("POST at twice the top rate, never waiting", "impatient"),
        ],
        rest=server.rest,
        check=lambda: poster.check(server.api),
    )  # fmt: skip


def _rows_of_twice(label: str, contestant: str) -> list[Row]:
    top = f"top rate, {CLOSED_CONNECTIONS} connections"
    return [
        Row(
            f"{label}: accepted", *(contestant, "answers_per_s", "req/s"), *(contestant, top, "top_per_s"),
            goal=Goal("ratio", "at_least", 0.95),
        ),
        Row(f"{label}: refused", contestant, "refused_per_s", "req/s", contestant, top, "top_per_s"),
        Row(f"{label}: refusal p50", contestant, "refused_p50_ms", "ms", contestant, "accepted, p50", "p50_ms"),
        Row(f"{label}: refusal p99", contestant, "refused_p99_ms", "ms", contestant, "accepted, p99", "p99_ms"),
        Row(f"{label}: memory grown", contestant, "grown_mib", "MiB", contestant, "before", "resident_mib"),
        Row(f"{label}: posting as before after", contestant, "posting_s", "s", contestant, "the same", "posting_s"),
        Row(
            f"{label}: as before after", *(contestant, "again_s", "s"), *(contestant, "the same", "again_s"),
            goal=Goal("figure", "at_most", AGAIN_WITHIN_S),
        ),
    ]  # fmt: skip


def flush_ms(folder: Path) -> float:
    """How long the folder's disk takes to flush 4 KiB that were appended to a file, median, in milliseconds."""
    path = folder / "flushed"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(b"x" * FLUSHED_BYTES)
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - before)
    path.unlink()
    return percentile(sorted(took), 0.5) * 1e3
