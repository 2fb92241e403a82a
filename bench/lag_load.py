"""The probes of a searchable lag: post a message with a word of its own, then search for it until it is found.

Probes start at a constant rate, whatever became of those before, among as many other messages. The same probes go to
Elasticsearch directly, as the limit: index a document, search until it is found. It runs in the client's process.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import msgspec

from bench.corpus import Line
from bench.measure import Sample, Wrong, percentile

POLL_S = 0.02
PATIENCE_S = 30.0
CONNECTIONS = 64


@dataclass(frozen=True)
class LagLoad:
    """Where, and how often. `paths` are chats' messages; or an index of Elasticsearch, where `raw`."""

    base_url: str
    paths: tuple[str, ...]
    lines: tuple[Line, ...]
    per_s: int
    every: int
    """One message of so many is a probe."""
    seconds: float
    raw: bool = False


@dataclass(frozen=True)
class Lags:
    """What was found after how long, and how many messages were posted to each path."""

    seconds: tuple[float, ...]
    posted: tuple[int, ...]

    def sample(self) -> Sample:
        """The figures of it."""
        ordered = sorted(self.seconds)
        return {
            "p50_ms": percentile(ordered, 0.50) * 1e3,
            "p99_ms": percentile(ordered, 0.99) * 1e3,
            "probes": len(ordered),
        }


def run_lag_load(load: LagLoad) -> Lags:
    """Post and search.

    Raises:
        Wrong: a request failed, or a message was not found in PATIENCE_S.
    """
    try:
        return asyncio.run(_run(load))
    except* Wrong as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise Wrong(str(first)) from errors


async def _run(load: LagLoad) -> Lags:
    lags: list[float] = []
    posted = [0] * len(load.paths)
    started_at = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(load.base_url, connector=connector) as http, asyncio.TaskGroup() as group:
        target: _Chats | _Index = _Index(http) if load.raw else _Chats(http)
        for index in range(int(load.per_s * load.seconds)):
            await asyncio.sleep(max(0.0, started_at + index / load.per_s - time.perf_counter()))
            place = index % len(load.paths)
            posted[place] += 1
            line, path = load.lines[index % len(load.lines)], load.paths[place]
            if index % load.every:
                group.create_task(target.post(path, line))
            else:
                word = secrets.token_hex(8)
                probe = Line(line.sender, f"{line.body} {word}")
                group.create_task(_probe(target.post(path, probe), partial(target.finds, path, word), lags))
    return Lags(tuple(lags), tuple(posted))


async def _probe(post: Awaitable[None], finds: Callable[[], Awaitable[bool]], lags: list[float]) -> None:
    await post
    posted_at = time.perf_counter()
    while not await finds():
        if time.perf_counter() - posted_at > PATIENCE_S:
            raise Wrong(f"a message was not found for {PATIENCE_S:.0f} s")
        await asyncio.sleep(POLL_S)
    lags.append(time.perf_counter() - posted_at)


class _Chats:
    """Our API."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def post(self, path: str, line: Line) -> None:
        await _answer(self._http.post(path, json=msgspec.to_builtins(line)))

    async def finds(self, path: str, word: str) -> bool:
        return bool(await _answer(self._http.get(f"{path}/search", params={"q": word})))


class _Index:
    """Elasticsearch itself, with an index like ours."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def post(self, path: str, line: Line) -> None:
        document = {"room": "1:1", "chat": 1, "number": 1, "created_at": 0, "folded": line.body.casefold()}
        await _answer(self._http.post(f"{path}/_doc", params={"routing": "1"}, json=document))

    async def finds(self, path: str, word: str) -> bool:
        query = {"query": {"match_phrase": {"folded.three": word}}, "size": 1}
        answer = await _answer(self._http.post(f"{path}/_search", params={"routing": "1"}, json=query))
        return bool(answer["hits"]["hits"])


async def _answer(asking: Any) -> Any:
    async with asking as answer:
        body = await answer.read()
        if answer.status not in (200, 201):
            raise Wrong(f"a request was answered {answer.status} {body[:500]!r}")
        return msgspec.json.decode(body)
