"""Stack mode: POST of one message a request, 64 connections, by one API process and Redis alone.

Beside the bare ASGI app, and beside itself with a Redis that writes its file and never waits for the disk: the same
processes, told so between two measurements. No worker runs meanwhile, as if it had a machine of its own; afterwards
one does, and what it has stored is checked.

How many messages share an fsync is counted on Redis, whose every write to its file is followed by one.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.measure import Contestant, Goal, Row, Sample, Stage
from bench.scenarios.posting import BARE, CHATS, CHATS_PER_APPLICATION, Poster, bare_poster
from bench.workbench import Workbench

CONNECTIONS = 64
LABEL = f"stack: POST, {CONNECTIONS} connections"
OFF = "the same without fsync"


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """One API process, one Redis, two ways of flushing."""
    place = stack.enter_context(bench.stack.place())
    api = stack.enter_context(place.api())
    redis = bench.stack.redis
    poster = Poster(bench, api, api.api.create_chats(CHATS, CHATS_PER_APPLICATION), CONNECTIONS)

    def post(seconds: float) -> Sample:
        redis_cpu_s, flushes, acknowledged = redis.cpu_s(), redis.flushes(), poster.acknowledged
        sample = poster.post(seconds)
        posted = poster.acknowledged - acknowledged
        return {
            **sample,
            "redis_cpu_us": (redis.cpu_s() - redis_cpu_s) / posted * 1e6,
            "messages_per_fsync": posted / (redis.flushes() - flushes),
            "connections": CONNECTIONS,
        }

    def post_without_fsync(seconds: float) -> Sample:
        redis.fsync("no")
        try:
            return post(seconds)
        finally:
            redis.fsync("always")
            # What was not flushed is flushed with the next write, which is not to be the first one measured.
            api.api.create_application("flushes")

    def check() -> None:
        with place.worker():
            api.wait_until_applied()
            poster.check(api.api)

    return Stage(
        contestants=[bare_poster(bench, poster), Contestant("always", post), Contestant("off", post_without_fsync)],
        rows=[
            Row(LABEL, "always", "answers_per_s", "req/s", BARE, BARE, goal=Goal("ratio", "at_least", 0.75)),
            Row(LABEL, "always", "answers_per_s", "req/s", "off", OFF, goal=Goal("ratio", "at_least", 0.90)),
            Row(f"{LABEL}, CPU with Redis", "always", "server_cpu_us", "µs", BARE, BARE),
            Row(f"{LABEL}, CPU of Redis", "always", "redis_cpu_us", "µs", "off", OFF),
            Row(
                f"{LABEL}: messages per fsync",
                *("always", "messages_per_fsync", "msg"),
                *("always", "all that are under way", "connections"),
            ),
        ],
        rest=api.rest,
        check=check,
    )
