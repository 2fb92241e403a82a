"""Cold start: from the start of the process until it answers, over a new and over a large database.

Beside the bare ASGI app, which is what Python and the server software need by themselves. The first POST
to a new database creates an application; to the large one it adds a message.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from bench.api import Api
from bench.houses import Server
from bench.measure import Contestant, Goal, Row, Sample, Stage
from bench.workbench import Workbench

GOAL = Goal("figure", "at_most", 1.5)


def time_start(server: Server, first_post: Callable[[Api], object]) -> Sample:
    """Seconds until GET /health/live and a POST are answered; the server is stopped afterwards."""
    try:
        live_s = server.child.wait_until(lambda: server.api.answers("/health/live"))
        first_post(server.api)
        return {"live_s": live_s, "posted_s": server.child.age_s()}
    finally:
        server.stop()


def set_up(bench: Workbench, _stack: ExitStack) -> Stage:
    """A new database each time, the large one, and the bare ASGI app."""
    large = bench.large
    with bench.server(large.storage) as server:
        chat = server.api.create_chats(1, 1)[0]
    message = msgspec.to_builtins(bench.corpus.message(0))

    def start_new(_seconds: float) -> Sample:
        storage = bench.new_storage()
        sample = time_start(bench.house.spawn(storage), lambda api: api.create_application("bench"))
        shutil.rmtree(storage)
        return sample

    def start_large(_seconds: float) -> Sample:
        return time_start(
            bench.house.spawn(large.storage), lambda api: api.call("POST", chat.messages, message, status=201)
        )

    def start_bare(_seconds: float) -> Sample:
        server = bench.spawn_bare()
        return time_start(server, lambda api: api.call("POST", "/", message, status=201))

    def row(label: str, contestant: str, figure: str) -> Row:
        return Row(f"start, {label}", contestant, figure, "s", "bare", "bare ASGI", goal=GOAL)

    full = f"{large.messages:,}"
    return Stage(
        contestants=[
            Contestant("new", start_new),
            Contestant("large", start_large),
            Contestant("bare", start_bare),
        ],
        rows=[
            row("new, first GET", "new", "live_s"),
            row("new, first POST", "new", "posted_s"),
            row(f"{full}, first GET", "large", "live_s"),
            row(f"{full}, first POST", "large", "posted_s"),
        ],
    )
