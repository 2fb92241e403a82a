"""100 messages a request: what a batch gains over single messages, and what sqlite3 does with its rows.

sqlite3 stands there twice: with a commit for each 100 rows, as if requests came one after the other, and
with a commit for as many rows as all connections have under way, as group commit can do.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice

import msgspec

from bench.api import ChatPath
from bench.load import Load, post_request, run_load
from bench.measure import Contestant, Goal, Row, Sample, Stage
from bench.raw_sqlite import Commits, run_commits
from bench.scenarios.posting import CHATS, CHATS_PER_APPLICATION, Poster
from bench.workbench import Workbench

BATCH = 100
REQUESTS = 160
CONNECTIONS = 16
SINGLE_CONNECTIONS = 64

SINGLE = f"single POSTs, {SINGLE_CONNECTIONS} connections"
RAW_BATCH = f"sqlite3, {BATCH} rows a commit"
RAW_GROUP = f"sqlite3, {BATCH * CONNECTIONS} rows a commit"


class BatchPoster:
    """Posts batches to some chats in turn, and remembers how many were acknowledged."""

    def __init__(self, bench: Workbench, port: int, chats: list[ChatPath]) -> None:
        self.bench = bench
        self.port = port
        self.chats = chats
        self.acknowledged = 0
        lines = bench.corpus.messages(0, REQUESTS * BATCH)
        self.requests = tuple(
            post_request(
                f"{chats[index % len(chats)].messages}/batch",
                msgspec.json.encode({"messages": list(islice(lines, BATCH))}),
            )
            for index in range(REQUESTS)
        )

    def post(self, seconds: float) -> Sample:
        """Post for so long."""
        load = Load(self.port, self.requests, 201, CONNECTIONS, seconds, first=self.acknowledged)
        answers = self.bench.in_client(run_load, load)
        self.acknowledged += answers.count
        return answers.sample(BATCH)

    def acknowledged_in(self, index: int) -> int:
        """How many messages of one chat were acknowledged."""
        turns, rest = divmod(self.acknowledged, len(self.chats))
        return (turns + (index < rest)) * BATCH


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """Batches, single messages, and sqlite3 twice."""
    server = stack.enter_context(bench.server())
    chats = server.api.create_chats(2 * CHATS, CHATS_PER_APPLICATION)
    batches = BatchPoster(bench, server.port, chats[:CHATS])
    singles = Poster(bench, server, chats[CHATS:], SINGLE_CONNECTIONS)
    lines = tuple(bench.corpus.messages(0, REQUESTS * BATCH))

    def raw(name: str, rows: int) -> Contestant:
        return Contestant(
            name, lambda seconds: bench.in_client(run_commits, Commits(bench.folder, lines, rows, seconds))
        )

    label = f"batches of {BATCH}, {CONNECTIONS} connections"

    def row(limit: str, goal: Goal | None = None) -> Row:
        return Row(label, "batches", "messages_per_s", "msg/s", limit, limit, goal=goal)

    def check() -> None:
        singles.check(server.api)
        for index, chat in enumerate(batches.chats):
            server.api.check_complete(chat, batches.acknowledged_in(index))

    return Stage(
        contestants=[
            Contestant(SINGLE, singles.post),
            Contestant("batches", batches.post),
            raw(RAW_BATCH, BATCH),
            raw(RAW_GROUP, BATCH * CONNECTIONS),
        ],
        rows=[row(RAW_BATCH, Goal("ratio", "at_least", 0.60)), row(RAW_GROUP), row(SINGLE)],
        rest=server.rest,
        check=check,
    )
