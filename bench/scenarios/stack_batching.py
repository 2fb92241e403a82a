"""Stack mode: 100 messages a request, by one API process and Redis alone, beside one plain script call per batch."""

from __future__ import annotations

from contextlib import ExitStack

from bench.measure import Contestant, Goal, Row, Sample, Stage
from bench.raw_redis import Calls, run_calls
from bench.scenarios.batches import BATCH, CONNECTIONS, BatchPoster
from bench.scenarios.posting import CHATS, CHATS_PER_APPLICATION
from bench.workbench import Workbench

RAW = "one EVALSHA per batch"


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """The same bytes, with and without what makes them messages. No worker runs meanwhile."""
    place = stack.enter_context(bench.stack.place())
    api = stack.enter_context(place.api())
    poster = BatchPoster(bench, api.port, api.api.create_chats(CHATS, CHATS_PER_APPLICATION))
    bodies = tuple(request.partition(b"\r\n\r\n")[2] for request in poster.requests)

    def check() -> None:
        with place.worker():
            api.wait_until_applied()
            for index, chat in enumerate(poster.chats):
                api.api.check_complete(chat, poster.acknowledged_in(index))

    def call(seconds: float) -> Sample:
        return bench.in_client(run_calls, Calls(bench.stack.redis.url, bodies, BATCH, CONNECTIONS, seconds))

    return Stage(
        contestants=[
            Contestant("batches", poster.post),
            Contestant(RAW, call),
        ],
        rows=[
            Row(
                f"stack: batches of {BATCH}, {CONNECTIONS} connections",
                *("batches", "messages_per_s", "msg/s", RAW, RAW),
                goal=Goal("ratio", "at_least", 0.60),
            )
        ],
        rest=api.rest,
        check=check,
    )
