"""Stack mode: read after write, a page of 50 of a chat of which nothing has been applied to MySQL yet.

Two systems hold the same chat. One has no worker, so every page is made of what waits in Redis; in the other all is
applied, and the tail that is laid over MySQL is empty. Pages begin at random places.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from itertools import islice

import msgspec

from bench.api import ChatPath
from bench.load import Load, get_request, post_request, run_load
from bench.measure import Contestant, Row, Sample, Stage, Wrong
from bench.scenarios.batches import BATCH
from bench.scenarios.pages import CONNECTIONS, PAGE, PLACES
from bench.scenarios.posting import cpu_sample
from bench.stack import StackApi
from bench.workbench import Workbench

POSTING_CONNECTIONS = 4
POSTING_TIMEOUT_S = 300.0


def fill(bench: Workbench, api: StackApi) -> ChatPath:
    """A chat of many messages, posted in batches."""
    [chat] = api.api.create_chats(1, 1)
    count = bench.sizes.unapplied
    lines = bench.corpus.messages(0, count)
    requests = tuple(
        post_request(f"{chat.messages}/batch", msgspec.json.encode({"messages": list(islice(lines, BATCH))}))
        for _ in range(count // BATCH)
    )
    bench.in_client(
        run_load, Load(api.port, requests, 201, POSTING_CONNECTIONS, POSTING_TIMEOUT_S, count=len(requests))
    )
    return chat


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """The same chat twice: unapplied and applied."""
    count = bench.sizes.unapplied
    dice = random.Random(1)
    starts = [dice.randrange(count - PAGE) for _ in range(PLACES)]
    apis: dict[str, StackApi] = {}
    requests: dict[str, tuple[bytes, ...]] = {}
    for name in ("unapplied", "applied"):
        place = stack.enter_context(bench.stack.place())
        api = apis[name] = stack.enter_context(place.api())
        chat = fill(bench, api)
        requests[name] = tuple(get_request(f"{chat.messages}?limit={PAGE}&after={start}") for start in starts)
        if name == "applied":
            with place.worker():
                api.wait_until_applied()
        page = api.api.call("GET", f"{chat.messages}?limit={PAGE}&after={count - PAGE}")
        if page.body.count(b'"number":') != PAGE:
            raise Wrong(f"a page of {PAGE} expected, but: {page.body[:500]!r}")

    def read(name: str, seconds: float) -> Sample:
        api = apis[name]
        cpu_before_s = api.cpu_s()
        answers = bench.in_client(run_load, Load(api.port, requests[name], 200, CONNECTIONS, seconds))
        return {**answers.sample(), **cpu_sample(api, cpu_before_s, answers)}

    def check() -> None:
        # Nobody has applied anything behind our back.
        if (waiting := apis["unapplied"].api.backlog()) < count:
            raise Wrong(f"of {count} messages only {waiting:.0f} were still unapplied at the end")

    label, limit = f"stack: page of {PAGE} of {count:,} unapplied", "all applied"
    return Stage(
        contestants=[
            Contestant("unapplied", lambda seconds: read("unapplied", seconds)),
            Contestant("applied", lambda seconds: read("applied", seconds)),
        ],
        rows=[
            Row(label, "unapplied", "us_per_answer", "µs", "applied", limit),
            Row(f"{label}: p99", "unapplied", "p99_ms", "ms", "applied", limit),
            Row(f"{label}, CPU of all processes", "unapplied", "server_cpu_us", "µs", "applied", limit),
        ],
        rest=lambda: [api.rest() for api in apis.values()],
        check=check,
    )
