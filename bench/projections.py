"""The projections of the stack house, run alone, and their limits: raw inserts and raw bulk requests.

A projection is run here until nothing is left, and by itself: a worker has both, and what each costs could not be
told apart. It runs step by step, read, apply, acknowledge, so that each step can be timed; and as a worker runs it, who
reads one batch while another is being applied. What was applied step by step comes back by batches, and the limits take
exactly these, made ready beforehand:

- MariaDB gets each batch as one INSERT into a table like `messages`, in a transaction of its own: over one connection,
  and over as many as a worker uses.
- Elasticsearch gets each batch as the same bulk requests, as many at once, into an index like ours, and answers as
  little as it can: a batch at a time, and as many batches as a worker has under way.

Each function runs in the client's process. Unlike the rest of the benchmark this module knows the project's inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, cast

import aiohttp
import asyncmy
import msgspec
import uvloop

from bench.measure import Sample, Wrong
from chat_system.model import MessageChanged
from chat_system.ports import Entry
from chat_system.settings import Settings
from chat_system.stack.bulk import pieces as bulk_pieces
from chat_system.stack.elasticsearch import Elasticsearch
from chat_system.stack.indices import Indices
from chat_system.stack.mysql import Address
from chat_system.stack.search import AT_ONCE
from chat_system.wiring import LANES, SEARCH_BATCH, STORE_BATCH, open_house
from chat_system.worker import collect_seldom

BATCHES = {"store": STORE_BATCH, "search": SEARCH_BATCH}
RAW_TABLES = ("raw_messages", "raw_messages_of_many")
RAW_SUFFIX, RAW_SUFFIX_OF_MANY = "-raw", "-raw-of-many"

Batch = tuple[Entry, ...]

R = TypeVar("R")


ProjectionName = Literal["store", "search"]


class _Applies(Protocol):
    async def apply(self, entries: Sequence[Entry]) -> None:
        """Apply a batch."""


@dataclass(frozen=True)
class Projecting:
    """Apply all that waits for one projection in the place that the settings name."""

    settings: Mapping[str, str]
    projection: ProjectionName
    keep: bool = True
    """Hand back what was applied."""


@dataclass(frozen=True)
class Projected:
    """What was applied, and what that took: seconds of this process's life, and of CPU time in it."""

    messages: int
    read_s: float
    apply_s: float
    acknowledge_s: float
    cpu_s: float
    batches: tuple[Batch, ...]

    def sample(self) -> Sample:
        """The figures of it."""
        return {
            "applied_per_s": self.messages / self.apply_s,
            "read_us": self.read_s / self.messages * 1e6,
            "apply_us": self.apply_s / self.messages * 1e6,
            "acknowledge_us": self.acknowledge_s / self.messages * 1e6,
            "own_cpu_us": self.cpu_s / self.messages * 1e6,
            "messages_in_a_batch": self.messages / len(self.batches) if self.batches else 0.0,
        }


@dataclass(frozen=True)
class Raw:
    """Write these batches as fast as the server takes them."""

    settings: Mapping[str, str]
    batches: tuple[Batch, ...]


def run_projection(work: Projecting) -> Projected:
    """Apply until nothing is left.

    Raises:
        Wrong: something was set aside, or is left.
    """
    return _as_a_worker(_project(work))


def _as_a_worker(work: Coroutine[None, None, R]) -> R:
    """Run it in a loop like a worker's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _project(work: Projecting) -> Projected:
    clock = time.perf_counter
    taken: list[Sequence[Entry]] = []
    read_s = apply_s = acknowledge_s = 0.0
    async with open_house(Settings.from_environment(work.settings)) as house:
        collect_seldom()
        apply = cast(_Applies, getattr(house, work.projection)).apply
        cpu_before_s = time.process_time()
        while True:
            started_at = clock()
            entries = await house.journal.read(work.projection, BATCHES[work.projection])
            if not entries:
                break
            read_at = clock()
            await apply(entries)
            applied_at = clock()
            await house.journal.acknowledge(work.projection, entries)
            acknowledge_s += clock() - applied_at
            apply_s += applied_at - read_at
            read_s += read_at - started_at
            taken.append(entries)
        cpu_s = time.process_time() - cpu_before_s
        backlog = await house.journal.backlog(work.projection)
    # Made into objects only now: the projection itself may have done without.
    batches = tuple(tuple(entry for entry in entries if isinstance(entry.fact, MessageChanged)) for entries in taken)
    messages = sum(map(len, batches))
    if backlog.entries or backlog.set_aside or not messages:
        raise Wrong(f"{messages} messages were applied, then: {backlog}")
    return Projected(messages, read_s, apply_s, acknowledge_s, cpu_s, batches if work.keep else ())


def run_as_worker(work: Projecting) -> Sample:
    """Apply until nothing is left, as a worker does; seconds of this process's life, and of CPU time in it.

    Raises:
        Wrong: something was set aside, or is left.
    """
    return _as_a_worker(_work(work))


async def _work(work: Projecting) -> Sample:
    async with open_house(Settings.from_environment(work.settings), working=True) as house:
        collect_seldom()
        cpu_before_s, started_at = time.process_time(), time.perf_counter()
        await asyncio.gather(*(one.drain() for one in house.projectors if one.projection == work.projection))
        sample = {"seconds": time.perf_counter() - started_at, "cpu_s": time.process_time() - cpu_before_s}
        backlog = await house.journal.backlog(work.projection)
    if backlog.entries or backlog.set_aside:
        raise Wrong(f"a worker has left this: {backlog}")
    return sample


def run_raw_inserts(work: Raw) -> Sample:
    """Insert the batches' messages; their rate over one connection, and over several."""
    return asyncio.run(_insert(work))


async def _insert(work: Raw) -> Sample:
    address = Address.of(Settings.from_environment(work.settings).mysql_url)
    async with contextlib.AsyncExitStack() as closing:
        connections = []
        for _ in range(LANES):
            connections.append(await address.connect())
            closing.push_async_callback(connections[-1].ensure_closed)
        samples = []
        for table, used in zip(RAW_TABLES, (connections[:1], connections), strict=True):
            async with connections[0].cursor() as cursor:
                await cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} LIKE messages")
            statements = iter([_insertion(connections[0], table, batch) for batch in work.batches])
            # Who is ready takes the next.
            write = functools.partial(_all, [_in_turn(connection.query, statements) for connection in used])
            samples.append(await _timed(work.batches, write))
    return {**samples[0], "messages_per_s": samples[1]["messages_per_s"]}


async def _all(work: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*work)


def _insertion(connection: asyncmy.Connection, table: str, batch: Batch) -> bytes:
    rows = ",".join(
        connection.cursor().mogrify(
            "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (entry.application, entry.chat, *msgspec.structs.astuple(entry.message)),
        )
        for entry in sorted(batch, key=lambda entry: (entry.application, entry.chat, entry.message.number))
    )
    return f"INSERT INTO {table} VALUES {rows}".encode()  # noqa: S608 - every value is quoted by the driver


async def _in_turn(send: Callable[[bytes], Awaitable[object]], statements: Iterator[bytes]) -> None:
    for statement in statements:
        await send(statement)


def run_raw_bulks(work: Raw) -> Sample:
    """Index the batches' documents; their rate."""
    return asyncio.run(_index(work))


@dataclass(frozen=True)
class NewIndex:
    """The index of the place that the settings name or, with a suffix, another like it."""

    settings: Mapping[str, str]
    suffix: str = ""


def make_index(work: NewIndex) -> str:
    """Make it, if it is missing; its name."""
    return asyncio.run(_make_index(Settings.from_environment(work.settings), work.suffix))


async def _make_index(settings: Settings, suffix: str) -> str:
    name = f"{settings.elasticsearch_index}{suffix}"
    elasticsearch = Elasticsearch(settings.elasticsearch_url)
    try:
        await Indices(elasticsearch, name).create()
    finally:
        await elasticsearch.close()
    return name


async def _index(work: Raw) -> Sample:
    settings = Settings.from_environment(work.settings)
    bodies = [[body for _, body in bulk_pieces(batch)] for batch in work.batches]
    async with aiohttp.ClientSession(headers={"content-type": "application/x-ndjson"}) as http:

        async def send(url: str, free: asyncio.Semaphore, body: bytes) -> None:
            async with free, http.post(url, data=body) as answer:
                said = await answer.read()
                if said != b'{"errors":false}':
                    raise Wrong(f"a raw bulk request was answered {answer.status} {said[:500]!r}")

        async def send_batches(url: str, batches: Iterator[Sequence[bytes]]) -> None:
            free = asyncio.Semaphore(AT_ONCE)
            for batch in batches:
                await asyncio.gather(*(send(url, free, body) for body in batch))

        samples = []
        for suffix, lanes in ((RAW_SUFFIX, 1), (RAW_SUFFIX_OF_MANY, LANES)):
            name = await _make_index(settings, suffix)
            url = f"{settings.elasticsearch_url}/{name}/_bulk?filter_path=errors"
            batches = iter(bodies)
            write = functools.partial(_all, [send_batches(url, batches) for _ in range(lanes)])
            samples.append(await _timed(work.batches, write))
    return {**samples[0], "messages_per_s": samples[1]["messages_per_s"]}


async def _timed(batches: Sequence[Batch], write: Callable[[], Awaitable[None]]) -> Sample:
    messages = sum(map(len, batches))
    cpu_before_s, started_at = time.process_time(), time.perf_counter()
    await write()
    seconds = time.perf_counter() - started_at
    return {
        "messages_per_s": messages / seconds,
        "applied_per_s": messages / seconds,
        "own_cpu_us": (time.process_time() - cpu_before_s) / messages * 1e6,
    }
