"""POST of one message a request, each on disk before it is answered.

Beside the bare ASGI app over as many connections, and, over one connection, beside sqlite3 that commits
row by row: with nobody to share a commit with, the disk is the limit. The CPU time of a message, with the
work that was put off until after the answer, is the figure that a busy machine disturbs least.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from bench.api import Api, ChatPath
from bench.bare import NOTHING
from bench.houses import Server
from bench.load import Answers, Load, post_request, run_load
from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong
from bench.raw_sqlite import Commits, run_commits
from bench.workbench import Workbench

REQUESTS = 2_000
CHATS = 16
CHATS_PER_APPLICATION = 4

BARE = "bare ASGI"


class Poster:
    """Posts single messages to some chats in turn, and remembers how many were acknowledged."""

    def __init__(self, bench: Workbench, server: Server, chats: Sequence[ChatPath], connections: int) -> None:
        self.bench = bench
        self.server = server
        self.chats = chats
        self.connections = connections
        self.acknowledged = 0
        self.number_sum = 0
        # A whole number of turns around the chats, so that request n always goes to chat n % chats.
        count = REQUESTS - REQUESTS % len(chats)
        self.requests = tuple(
            post_request(chats[index % len(chats)].messages, msgspec.json.encode(line))
            for index, line in enumerate(bench.corpus.messages(0, count))
        )

    def post(self, seconds: float, count: int | None = None, *, rest: bool = True) -> Sample:
        """Post for so long, or so many; and wait, if asked to rest, until the server has done what it put off."""
        load = Load(
            port=self.server.port,
            requests=self.requests,
            status=201,
            connections=self.connections,
            seconds=seconds,
            first=self.acknowledged,
            count=count,
            sum_numbers=True,
        )
        cpu_before_s = self.server.cpu_s()
        answers = self.bench.in_client(run_load, load)
        if rest:
            self.server.rest()
        self.acknowledged += answers.count
        self.number_sum += answers.number_sum
        return {**answers.sample(), **cpu_sample(self.server, cpu_before_s, answers)}

    def check(self, api: Api) -> None:
        """Check that each chat holds 1 to n, that it counts n, and that the answers gave out these numbers.

        Raises:
            Wrong: it is not so.
        """
        turns, rest = divmod(self.acknowledged, len(self.chats))
        expected_sum = 0
        for index, chat in enumerate(self.chats):
            count = turns + (index < rest)
            api.check_complete(chat, count)
            expected_sum += count * (count + 1) // 2
        if self.number_sum != expected_sum:
            raise Wrong(f"the answers' numbers add up to {self.number_sum} instead of {expected_sum}")


def cpu_sample(server: Server, before_s: float, answers: Answers) -> Sample:
    """The server's CPU time for each answer since it had used `before_s`."""
    return {"server_cpu_us": (server.cpu_s() - before_s) / answers.count * 1e6}


def bare_poster(bench: Workbench, poster: Poster) -> Contestant:
    """The bare ASGI app under a poster's very requests."""
    server = bench.bare

    def measure(seconds: float) -> Sample:
        bench.bare_answers(NOTHING)
        load = Load(server.port, poster.requests, 201, poster.connections, seconds, sum_numbers=True)
        cpu_before_s = server.cpu_s()
        answers = bench.in_client(run_load, load)
        return {**answers.sample(), **cpu_sample(server, cpu_before_s, answers)}

    return Contestant(BARE, measure)


def set_up(connections: int, bench: Workbench, stack: ExitStack) -> Stage:
    """The scenario for so many connections."""
    server = stack.enter_context(bench.server())
    many = Poster(bench, server, server.api.create_chats(CHATS, CHATS_PER_APPLICATION), connections)
    one = Poster(bench, server, server.api.create_chats(1, 1), connections)
    contestants = [bare_poster(bench, many), Contestant("many", many.post), Contestant("one", one.post)]
    goal = Goal("ratio", "at_least", 0.75) if connections == 64 else None
    label = f"POST, {connections} {'connection' if connections == 1 else 'connections'}"
    rows = [
        Row(f"{label}, {CHATS} chats", "many", "answers_per_s", "req/s", BARE, BARE, goal=goal),
        Row(f"{label}, 1 chat", "one", "answers_per_s", "req/s", BARE, BARE, goal=goal),
        Row(f"{label}, CPU", "many", "server_cpu_us", "µs", BARE, BARE),
    ]
    if connections == 1:
        lines = tuple(bench.corpus.messages(0, REQUESTS))
        raw = "sqlite3, 1 row a commit"
        contestants.append(
            Contestant(raw, lambda seconds: bench.in_client(run_commits, Commits(bench.folder, lines, 1, seconds)))
        )
        rows.append(Row(f"{label}, {CHATS} chats", "many", "answers_per_s", "req/s", raw, raw))

    def check() -> None:
        many.check(server.api)
        one.check(server.api)

    return Stage(contestants, rows, rest=server.rest, check=check)
