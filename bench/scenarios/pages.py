"""GET of a page of 50 in a small and in a large database: the price of a page must not grow with the chat.

Pages begin at random places of the chat, and from each the client follows `Link` for some more. The limit
is the bare ASGI app that answers with the bytes of such a page, and for the large database also the small
one.
"""

from __future__ import annotations

import random
from contextlib import ExitStack

from bench.bare import FixedAnswer
from bench.houses import Server
from bench.load import Load, get_request, run_load
from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong
from bench.scenarios.posting import cpu_sample
from bench.workbench import LONG_CHAT, Filled, Workbench

PAGE = 50
CONNECTIONS = 64
PLACES = 500
FOLLOWED = 9

OF_BARE = {"embedded": 0.40, "stack": 0.30}
"""What a page should reach of the bare app's rate; in stack mode it asks two servers."""

NOT_COPIED = {"content-length", "date", "server", "transfer-encoding", "connection"}


def as_bare_answer(answer: FixedAnswer) -> FixedAnswer:
    """An answer of ours as the bare ASGI app can give it: the server software adds its own headers again."""
    headers = [(name, value) for name, value in answer.headers if name.lower() not in NOT_COPIED]
    return FixedAnswer(answer.status, headers, answer.body)


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """Both databases, and the bare ASGI app with a page from the middle of the large one."""
    small, large = bench.small, bench.large
    servers = {
        name: stack.enter_context(bench.server(filled.storage)) for name, filled in (("small", small), ("large", large))
    }
    pages = {"small": pages_of(small), "large": pages_of(large)}
    for server in servers.values():
        server.rest()
    middle = servers["large"].api.call("GET", pages["large"][0])
    if middle.body.count(b'"number":') != PAGE or not any('rel="next"' in value for _, value in middle.headers):
        raise Wrong(f"a page of {PAGE} with a next one expected, but: {middle.headers} {middle.body[:500]!r}")

    def load(server: Server, paths: list[str], seconds: float) -> Sample:
        requests = tuple(get_request(path) for path in paths)
        cpu_before_s = server.cpu_s()
        answers = bench.in_client(run_load, Load(server.port, requests, 200, CONNECTIONS, seconds, follow=FOLLOWED))
        return {**answers.sample(), **cpu_sample(server, cpu_before_s, answers)}

    def measure_bare(seconds: float) -> Sample:
        bench.bare_answers(as_bare_answer(middle))
        return load(bench.bare, pages["large"], seconds)

    def label(filled: Filled) -> str:
        return f"page of {PAGE} at {filled.messages:,}"

    bare, of_bare = "bare ASGI, same bytes", Goal("ratio", "at_least", OF_BARE[bench.house.name])
    of_small = Goal("ratio", "at_most", 1.2)
    return Stage(
        contestants=[
            Contestant("small", lambda seconds: load(servers["small"], pages["small"], seconds)),
            Contestant("large", lambda seconds: load(servers["large"], pages["large"], seconds)),
            Contestant("bare", measure_bare),
        ],
        rows=[
            Row(label(small), "small", "answers_per_s", "req/s", "bare", bare, goal=of_bare),
            Row(label(large), "large", "answers_per_s", "req/s", "bare", bare, goal=of_bare),
            Row(label(large), "large", "us_per_answer", "µs", "small", label(small), goal=of_small),
            Row(f"{label(large)}, CPU", "large", "server_cpu_us", "µs", "small", label(small)),
        ],
    )


def pages_of(filled: Filled) -> list[str]:
    """Paths of pages at random places of a database's long chat, each with FOLLOWED more after it."""
    dice = random.Random(1)
    chat = filled.chats[LONG_CHAT]
    starts = range(1, chat.messages - PAGE * (FOLLOWED + 1))
    return [f"{chat.path.messages}?limit={PAGE}&after={dice.choice(starts)}" for _ in range(PLACES)]
