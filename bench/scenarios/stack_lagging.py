"""Stack mode: how long after the answer to a POST a search finds the message, at a moderate constant rate.

Beside Elasticsearch itself, asked the same way: a document that is indexed directly is found when the index is
refreshed next, once a second. What comes on top of that is ours.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.lag_load import LagLoad, run_lag_load
from bench.measure import Contestant, Row, Sample, Stage
from bench.projections import RAW_SUFFIX, NewIndex, make_index
from bench.workbench import Workbench

RATE_PER_S = 200
PROBE_EVERY = 20
CHATS = 16
CHATS_PER_APPLICATION = 4
ROUNDS = 3
LINES = 2_000


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """An API process, a worker, and an index of Elasticsearch's own."""
    place = stack.enter_context(bench.stack.place())
    api = stack.enter_context(place.api())
    stack.enter_context(place.worker())
    chats = api.api.create_chats(CHATS, CHATS_PER_APPLICATION)
    bench.in_client(make_index, NewIndex(place.settings))
    raw_index = bench.in_client(make_index, NewIndex(place.settings, RAW_SUFFIX))
    lines = tuple(bench.corpus.messages(0, LINES))
    posted = [0] * len(chats)

    def load(base_url: str, paths: tuple[str, ...], *, raw: bool) -> Sample:
        lags = bench.in_client(
            run_lag_load, LagLoad(base_url, paths, lines, RATE_PER_S, PROBE_EVERY, bench.sizes.lag_s, raw)
        )
        if not raw:
            posted[:] = [before + now for before, now in zip(posted, lags.posted, strict=True)]
        return lags.sample()

    def check() -> None:
        api.wait_until_applied()
        for chat, count in zip(chats, posted, strict=True):
            api.api.check_complete(chat, count)

    paths = tuple(chat.messages for chat in chats)
    label, limit = f"stack: searchable after a POST, {RATE_PER_S} msg/s", "Elasticsearch, indexed directly"
    return Stage(
        contestants=[
            Contestant("ours", lambda _: load(f"http://127.0.0.1:{api.port}", paths, raw=False)),
            Contestant("raw", lambda _: load(bench.stack.elasticsearch.url, (f"/{raw_index}",), raw=True)),
        ],
        rows=[
            Row(f"{label}: p50", "ours", "p50_ms", "ms", "raw", limit),
            Row(f"{label}: p99", "ours", "p99_ms", "ms", "raw", limit),
        ],
        check=check,
        rounds_at_most=ROUNDS,
    )
