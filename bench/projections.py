"""The projections of the stack house, run alone, and their limits: raw inserts and raw bulk requests.

A projection is run here as a worker runs it, read, apply, acknowledge, until nothing is left, but by itself: a worker
has both, and what each costs could not be told apart. What it has applied comes back by batches, and the limits take
exactly these, made ready beforehand:

- MariaDB gets each batch as one INSERT into a table like `messages`, in a transaction of its own.
- Elasticsearch gets each batch as the same bulk requests, as many at once, into an index like ours, and answers as
  little as it can.

Each function runs in the client's process. Unlike the rest of the benchmark this module knows the project's inside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import aiohttp
import asyncmy
import msgspec

from bench.measure import Sample, Wrong
from chat_system.model import MessageChanged
from chat_system.ports import Entry
from chat_system.settings import Settings
from chat_system.stack.indices import Indices, connect
from chat_system.stack.mysql import Address
from chat_system.stack.search import AT_ONCE
from chat_system.stack.search import _pieces as bulk_pieces
from chat_system.wiring import SEARCH_BATCH, STORE_BATCH, open_house

BATCHES = {"store": STORE_BATCH, "search": SEARCH_BATCH}
RAW_TABLE = "raw_messages"
RAW_SUFFIX = "-raw"

Batch = tuple[Entry, ...]


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
        whole_s = self.read_s + self.apply_s + self.acknowledge_s
        return {
            "messages_per_s": self.messages / whole_s,
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
    return asyncio.run(_project(work))


async def _project(work: Projecting) -> Projected:
    clock = time.perf_counter
    batches: list[Batch] = []
    messages = 0
    read_s = apply_s = acknowledge_s = 0.0
    async with open_house(Settings.from_environment(work.settings)) as house:
        apply = cast(_Applies, getattr(house, work.projection)).apply
        cpu_before_s = time.process_time()
        while True:
            started_at = clock()
            entries = tuple(await house.journal.read(work.projection, BATCHES[work.projection]))
            if not entries:
                break
            read_at = clock()
            await apply(entries)
            applied_at = clock()
            await house.journal.acknowledge(work.projection, entries)
            acknowledge_s += clock() - applied_at
            apply_s += applied_at - read_at
            read_s += read_at - started_at
            found = tuple(entry for entry in entries if isinstance(entry.fact, MessageChanged))
            messages += len(found)
            if work.keep:
                batches.append(found)
        cpu_s = time.process_time() - cpu_before_s
        backlog = await house.journal.backlog(work.projection)
    if backlog.entries or backlog.set_aside or not messages:
        raise Wrong(f"{messages} messages were applied, then: {backlog}")
    return Projected(messages, read_s, apply_s, acknowledge_s, cpu_s, tuple(batches))


def run_raw_inserts(work: Raw) -> Sample:
    """Insert the batches' messages; their rate."""
    return asyncio.run(_insert(work))


async def _insert(work: Raw) -> Sample:
    address = Address.of(Settings.from_environment(work.settings).mysql_url)
    connection = await address.connect()
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(f"CREATE TABLE IF NOT EXISTS {RAW_TABLE} LIKE messages")
        statements = [_insertion(connection, batch) for batch in work.batches]
        return await _timed(work.batches, lambda: _in_turn(connection.query, statements))
    finally:
        await connection.ensure_closed()


def _insertion(connection: asyncmy.Connection, batch: Batch) -> bytes:
    rows = ",".join(
        connection.cursor().mogrify(
            "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (entry.application, entry.chat, *msgspec.structs.astuple(entry.message)),
        )
        for entry in sorted(batch, key=lambda entry: (entry.application, entry.chat, entry.message.number))
    )
    return f"INSERT INTO {RAW_TABLE} VALUES {rows}".encode()  # noqa: S608 - every value is quoted by the driver


async def _in_turn(send: Callable[[bytes], Awaitable[object]], statements: Sequence[bytes]) -> None:
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
    client = connect(settings.elasticsearch_url)
    try:
        await Indices(client, name).create()
    finally:
        await client.close()
    return name


async def _index(work: Raw) -> Sample:
    settings = Settings.from_environment(work.settings)
    name = await _make_index(settings, RAW_SUFFIX)
    bodies = [[body for _, body in bulk_pieces(batch)] for batch in work.batches]
    url = f"{settings.elasticsearch_url}/{name}/_bulk?filter_path=errors"
    async with aiohttp.ClientSession(headers={"content-type": "application/x-ndjson"}) as http:
        free = asyncio.Semaphore(AT_ONCE)

        async def send(body: bytes) -> None:
            async with free, http.post(url, data=body) as answer:
                said = await answer.read()
                if said != b'{"errors":false}':
                    raise Wrong(f"a raw bulk request was answered {answer.status} {said[:500]!r}")

        async def send_batches() -> None:
            for batch in bodies:
                await asyncio.gather(*map(send, batch))

        return await _timed(work.batches, send_batches)


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
