"""Stack mode: the rate at which messages are accepted, stored and searchable with a backlog that does not grow.

The limit is arithmetic on what was measured in the same round: two cores, divided by what a message costs in each of
the three stages alone, all server processes together. API and Redis accept so many messages; then the store's
projection takes them, with MariaDB and Redis, and nothing else runs; then the search projection, with Elasticsearch.
What servers put off until they have time is waited for and counted in. The second limit counts the client, too, which
the first gets for nothing though it runs on the same cores.

Then all of it runs at once: one API process, one worker, the three servers and the client. The load stops while a
projection is further behind than a mark, so that the workers set the pace (`sustained_load.py`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong
from bench.processes import Child
from bench.projections import NewIndex, Projecting, ProjectionName, make_index, run_projection
from bench.scenarios.posting import CHATS, CHATS_PER_APPLICATION, Poster
from bench.stack import Place, StackApi
from bench.sustained_load import SustainedLoad, run_sustained_load
from bench.workbench import Workbench

CONNECTIONS = 256
"""With 64 the gate never shut: they waited for their answers, each behind Elasticsearch' threads, and the workers for
them."""

POSTING_TIMEOUT_S = 300.0
MARK = 20_000
"""Facts: a few batches of each projection."""

SETTLING_S = 5.0
ROUNDS = 3
PARTITIONS = 8
STAGES: tuple[ProjectionName, ...] = ("store", "search")


class System:
    """One place, and what was measured over it."""

    def __init__(self, bench: Workbench, place: Place, api: StackApi) -> None:
        self.bench = bench
        self.place = place
        self.api = api
        self.poster = Poster(bench, api, api.api.create_chats(CHATS, CHATS_PER_APPLICATION), CONNECTIONS)

    def measure_stages(self, _seconds: float) -> Sample:
        """Each stage alone; what a message costs in it, and what two cores could do at that price."""
        servers, poster = self.bench.stack, self.poster
        servers.rest(self.api.child)
        before_s, acknowledged = servers.cpu_s() + self.api.child.cpu_s(), poster.acknowledged
        posted = poster.post(POSTING_TIMEOUT_S, self.bench.sizes.sustained)
        servers.rest(self.api.child)
        count = poster.acknowledged - acknowledged
        costs = {"accept_us": (servers.cpu_s() + self.api.child.cpu_s() - before_s) / count * 1e6}
        for projection in STAGES:
            before_s = servers.cpu_s()
            projected = self.bench.in_client(run_projection, Projecting(self.place.settings, projection, keep=False))
            servers.rest()
            if projected.messages != count:
                raise Wrong(f"{count} messages were acknowledged, {projected.messages} came to {projection}")
            costs[f"{projection}_us"] = (projected.cpu_s + servers.cpu_s() - before_s) / count * 1e6
        total_us = sum(costs.values())
        client_us = posted["client_cpu"] / posted["answers_per_s"] * 1e6
        cores = len(os.sched_getaffinity(0))
        return {
            "messages_per_s": cores / total_us * 1e6,
            "with_client_per_s": cores / (total_us + client_us) * 1e6,
            "client_us": client_us,
            "cpu_us": total_us,
            **costs,
        }

    def measure_sustained(self, _seconds: float) -> Sample:
        """All at once."""
        with self.place.worker() as worker:
            worker.wait_until(lambda: b"working" in worker.log.read_bytes())
            before_s, acknowledged = self._cpu_s(worker), self.poster.acknowledged
            sample = self._measure_window()
            self.api.wait_until_applied()
            self.bench.stack.rest(self.api.child, worker)
            after_s, count = self._cpu_s(worker), self.poster.acknowledged - acknowledged
        costs = {f"{name}_us": (after_s[name] - before_s[name]) / count * 1e6 for name in after_s}
        return {**sample, **costs, "cpu_us": sum(costs.values())}

    def _measure_window(self) -> Sample:
        settings, poster, seconds = self.place.settings, self.poster, self.bench.sizes.sustained_s
        prefix = settings["CHAT_REDIS_PREFIX"]
        load = SustainedLoad(
            port=self.api.port,
            requests=poster.requests,
            first=poster.acknowledged,
            connections=CONNECTIONS,
            redis_url=settings["CHAT_REDIS_URL"],
            metas=tuple(f"{prefix}:{{p{partition}}}:meta" for partition in range(PARTITIONS)),
            mark=MARK,
            settling_s=SETTLING_S,
            seconds=seconds,
        )
        window = self.bench.in_client(run_sustained_load, load)
        poster.acknowledged += window.acknowledged
        return {
            "messages_per_s": window.sustained / window.seconds,
            "with_client_per_s": window.sustained / window.seconds,
            "backlog": window.backlog,
            "backlog_growth": window.growth,
            "gate_shut": window.gate_shut,
            "client_us": window.client_cpu_s / window.accepted * 1e6,
        }

    def _cpu_s(self, worker: Child) -> dict[str, float]:
        return {**self.bench.stack.cpu_by_server(), "api": self.api.child.cpu_s(), "worker": worker.cpu_s()}

    def check(self) -> None:
        """Check that each chat lists all that was acknowledged, and that a search counts as many."""
        turns, rest = divmod(self.poster.acknowledged, len(self.poster.chats))
        for index, chat in enumerate(self.poster.chats):
            self.api.api.check_complete(chat, turns + (index < rest))


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """One system, whole and in stages."""
    place = stack.enter_context(bench.stack.place())
    bench.in_client(make_index, NewIndex(place.settings))
    system = System(bench, place, stack.enter_context(place.api()))
    cores = len(os.sched_getaffinity(0))
    label = "stack: accepted, stored and searchable"
    return Stage(
        contestants=[
            Contestant("stages", system.measure_stages),
            # Java compiles what is run often while it runs, in small pieces otherwise than in large ones.
            Contestant("all", system.measure_sustained),
        ],
        rows=[
            Row(
                label,
                *("all", "messages_per_s", "msg/s"),
                *("stages", f"{cores} cores / CPU of each stage alone"),
                goal=Goal("ratio", "at_least", 0.75),
            ),
            Row(label, "all", "with_client_per_s", "msg/s", "stages", f"{cores} cores / the same and the client's"),
            Row(f"{label}, CPU", "all", "cpu_us", "µs", "stages", "the stages alone, together"),
        ],
        check=system.check,
        rounds_at_most=ROUNDS,
    )
